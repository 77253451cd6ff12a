//! `GET /api/hot`: the hottest rows and apps of each shard, as JSON. README.md beside this file says what each name means.
//!
//! Rows are named by who they are, too, which is personal data: only for those who could change something here.

use super::Registry;
use super::gate::Gate;
use crate::clock;
use crate::hot::counts::{HALF_LIFE, window_seconds_max};
use crate::hot::picture::{Hot, Part, TOP_MAX, top};
use crate::hot::{By, Picture, rule_for_app, rule_for_row};
use crate::http::{Method, Request, Response, Routes, StatusCode};
use crate::ids::{AppId, RowKey, ShardIndex};
use crate::table::Table;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Rows and apps shown by each weight unless the request says how many.
const TOP: usize = 10;

/// How long an answer waits for shards to say who their rows are.
const IDENTITIES_WAIT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Answer<'r> {
    half_life_seconds: u64,
    window_seconds: f64,
    /// Whether rows have `identifier` and `parent_id`.
    identities: &'static str,
    shards: Vec<Shard<'r>>,
}

#[derive(Serialize)]
struct Shard<'r> {
    shard: &'r str,
    messages_per_s: f64,
    writes_per_s: f64,
    database_seconds_per_s: f64,
    share_error_max: f64,
    /// Why rows lack their identities.
    #[serde(skip_serializing_if = "Option::is_none")]
    identities_missing: Option<String>,
    rows: Vec<Row>,
    apps: Vec<App>,
}

#[derive(Serialize)]
struct Row {
    app_id: String,
    subscription_id: String,
    /// Of a table that the configuration describes: the row's key by its columns, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    parts: Parts,
    #[serde(skip_serializing_if = "Option::is_none")]
    identifier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    rule: String,
}

#[derive(Serialize)]
struct App {
    app_id: String,
    #[serde(flatten)]
    parts: Parts,
    rule: String,
}

#[derive(Serialize)]
struct Parts {
    by_messages: Shown,
    by_writes: Shown,
    by_database_time: Shown,
}

#[derive(Serialize)]
struct Shown {
    share: f64,
    per_s: f64,
}

/// With `/api/hot`.
#[must_use]
pub fn with_hot(routes: Routes, registry: &Arc<Registry>, gate: Gate) -> Routes {
    let registry = registry.clone();
    routes.with(Method::GET, "/api/hot", move |request| {
        answer(&registry, &gate, request)
    })
}

fn answer(registry: &Registry, gate: &Gate, request: &Request) -> Response {
    let count = match count_asked_for(request.query()) {
        Ok(count) => count,
        Err(why) => return Response::text(StatusCode::BAD_REQUEST, why),
    };
    let picture = registry.hot.picture();
    let rows_of_shards = picture.shards.iter().map(|shard| top(&shard.rows, count));
    let rows_of_shards: Vec<Vec<Hot<RowKey>>> = rows_of_shards.collect();
    let may_see = gate.admit(request).is_ok();
    if may_see {
        // All shards are asked at once; the answers are waited for below.
        for (index, rows) in rows_of_shards.iter().enumerate() {
            let keys: Vec<RowKey> = rows.iter().map(|row| row.key).collect();
            let identities = &registry.hot.identities;
            let _ = identities.of(ShardIndex(index), &keys, clock::now());
        }
    }
    let until = clock::now() + IDENTITIES_WAIT;
    let shards = rows_of_shards.into_iter().enumerate().map(|(index, rows)| {
        let keys: Vec<RowKey> = rows.iter().map(|row| row.key).collect();
        let known = match may_see {
            true => registry.hot.identities.of(ShardIndex(index), &keys, until),
            false => crate::hot::identities::Known {
                identities: vec![None; keys.len()],
                why_not: None,
            },
        };
        let name = &registry.shard_names[index];
        let table = registry.hot.table.as_deref().filter(|_| may_see);
        shard(
            (name, table),
            &picture,
            ShardIndex(index),
            (rows, known),
            count,
        )
    });
    let answer = Answer {
        half_life_seconds: HALF_LIFE.as_secs(),
        window_seconds: rounded(window_seconds_max()),
        identities: match may_see {
            true => "shown",
            false => "hidden: ask from this machine, or with admin.token where one is set",
        },
        shards: shards.collect(),
    };
    Response::json(StatusCode::OK, &answer)
}

fn shard<'r>(
    (name, table): (&'r str, Option<&Table>),
    picture: &Picture,
    ShardIndex(index): ShardIndex,
    (rows, known): (Vec<Hot<RowKey>>, crate::hot::identities::Known),
    count: usize,
) -> Shard<'r> {
    let shard = &picture.shards[index];
    let [messages_per_s, writes_per_s, database_seconds_per_s] = shard.per_s.map(rounded);
    let row = |(row, identity): (Hot<RowKey>, Option<crate::hot::Identity>)| {
        let (identifier, parent) = identity
            .map(|identity| (identity.identifier, identity.parent))
            .unwrap_or_default();
        Row {
            app_id: row.key.app.to_string(),
            subscription_id: row.key.subscription.to_string(),
            key: table.and_then(|table| Some(table.shown(shard.names.get(&row.key)?))),
            parts: parts(&row),
            identifier,
            parent_id: parent.map(|parent| parent.to_string()),
            rule: rule_for_row(&row.key),
        }
    };
    let app = |app: &Hot<AppId>| App {
        app_id: app.key.to_string(),
        parts: parts(app),
        rule: rule_for_app(&app.key),
    };
    Shard {
        shard: name,
        messages_per_s,
        writes_per_s,
        database_seconds_per_s,
        share_error_max: rounded(shard.share_error_max.into_iter().fold(0.0, f64::max)),
        identities_missing: known.why_not,
        rows: rows.into_iter().zip(known.identities).map(row).collect(),
        apps: top(&shard.apps, count).iter().map(app).collect(),
    }
}

fn parts<K>(hot: &Hot<K>) -> Parts {
    let shown = |by| {
        let Part { share, per_s } = hot.by(by);
        Shown {
            share: rounded(share),
            per_s: rounded(per_s),
        }
    };
    Parts {
        by_messages: shown(By::Messages),
        by_writes: shown(By::Writes),
        by_database_time: shown(By::DatabaseTime),
    }
}

/// More digits would only be noise.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// `top=N`, the only thing that can be asked for.
fn count_asked_for(query: Option<&str>) -> Result<usize, String> {
    let mut count = TOP;
    for pair in query.unwrap_or_default().split('&') {
        match pair.split_once('=') {
            Some(("top", value)) => {
                let number = value.parse().ok();
                let number = number.filter(|number| (1..=TOP_MAX).contains(number));
                count = number.ok_or_else(|| {
                    format!("top={value}: allowed is a whole number from 1 to {TOP_MAX}")
                })?;
            }
            _ if pair.is_empty() => {}
            _ => {
                return Err(format!(
                    "{pair}: /api/hot knows top=N only, N from 1 to {TOP_MAX}"
                ));
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::config::checked::Secret;
    use crate::hot::{Board, Counting, Identities, Identity, Shelf};
    use crate::http::Server;
    use crate::ids::SubscriptionId;
    use crate::observe::admin;
    use serde_json::Value;
    use std::net::SocketAddr;

    const APP: AppId = AppId([7; 16]);

    fn row(number: u8) -> RowKey {
        RowKey {
            app: APP,
            subscription: SubscriptionId([number; 16]),
        }
    }

    /// Shard b has three rows, of which the first has 60 of 100 messages; everybody who is asked for is somebody.
    fn registry() -> Arc<Registry> {
        let shards = vec![ShardIndex(0), ShardIndex(1)];
        let mut registry = Registry::new(1, shards, vec!["a".to_owned(), "b".to_owned()]);
        let identity = |key: &RowKey| {
            Some(Identity {
                identifier: Some(format!("{}@b.c", key.subscription.0[0])),
                parent: Some(SubscriptionId([9; 16])),
            })
        };
        let identities =
            move |_: ShardIndex, keys: &[RowKey]| Ok(keys.iter().map(identity).collect::<Vec<_>>());
        registry.hot = Board::new(Identities::new(2, Arc::new(identities)));
        let begin = clock::now();
        let later = begin + Duration::from_secs(1);
        let mut counting = Counting::new(begin);
        for (number, messages) in [(1, 60), (2, 30), (3, 10)] {
            counting.sample(messages, [(row(number), messages)].into_iter());
            counting.count(Duration::from_millis(2), later);
        }
        let shelf = Shelf::default();
        counting.hand_over(&shelf, later);
        let shelves = [(ShardIndex(1), &shelf)].into_iter();
        registry.hot.show(Picture::of(2, shelves, later));
        Arc::new(registry)
    }

    fn serve(token: Option<&str>) -> Server {
        let gate = Gate::new(token.map(|token| Secret(token.to_owned())));
        let routes = with_hot(Routes::new(), &registry(), gate);
        admin::start(SocketAddr::from(([127, 0, 0, 1], 0)), routes).unwrap()
    }

    fn ask(server: &Server, path: &str) -> (u16, String) {
        let answer = admin::tests::ask(server, &format!("GET {path}"));
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    fn answer_of(server: &Server, path: &str) -> Value {
        let (status, body) = ask(server, path);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    #[test]
    fn the_answer_names_the_hottest_first_with_shares_rates_identity_and_rule() {
        let server = serve(None);
        let answer = answer_of(&server, "/api/hot");
        assert_eq!(answer["half_life_seconds"], 10);
        assert_eq!(answer["shards"][0]["shard"], "a");
        assert_eq!(answer["shards"][0]["rows"], serde_json::json!([]));
        let shard = &answer["shards"][1];
        assert_eq!(
            shard["messages_per_s"],
            shard["apps"][0]["by_messages"]["per_s"]
        );
        assert_eq!(shard["rows"].as_array().unwrap().len(), 3);
        let row = &shard["rows"][0];
        assert_eq!(row["app_id"], APP.to_string());
        assert_eq!(row["subscription_id"], SubscriptionId([1; 16]).to_string());
        assert_eq!(row["by_messages"]["share"], 0.6);
        assert_eq!(row["by_writes"]["share"], 0.3333);
        assert_eq!(row["by_database_time"]["share"], 0.3333);
        assert_eq!(row["identifier"], "1@b.c");
        assert_eq!(row["parent_id"], SubscriptionId([9; 16]).to_string());
        assert_eq!(
            row["rule"],
            "millpond rules add --app 07070707-0707-0707-0707-070707070707 \
             --subscription 01010101-0101-0101-0101-010101010101 --reason \"…\""
        );
        assert_eq!(shard["apps"][0]["by_messages"]["share"], 1.0);
        assert_eq!(
            shard["apps"][0]["rule"],
            "millpond rules add --app 07070707-0707-0707-0707-070707070707 --reason \"…\""
        );
    }

    #[test]
    fn who_rows_are_is_hidden_from_those_without_the_token() {
        let server = serve(Some("secret"));
        let (status, body) = ask(&server, "/api/hot");
        assert_eq!(status, 200);
        assert!(
            body.contains("hidden: ") && !body.contains("@b.c"),
            "{body}"
        );
        assert!(!body.contains("parent_id"), "{body}");
        assert!(body.contains(&SubscriptionId([1; 16]).to_string()));
    }

    #[test]
    fn top_says_how_many_and_anything_else_is_refused() {
        let server = serve(None);
        let answer = answer_of(&server, "/api/hot?top=1");
        assert_eq!(answer["shards"][1]["rows"].as_array().unwrap().len(), 1);
        for wrong in [
            "top=0", "top=101", "top=-1", "top=x", "top=", "top", "rows=3",
        ] {
            let (status, body) = ask(&server, &format!("/api/hot?{wrong}"));
            assert_eq!(status, 400, "{wrong}");
            assert!(body.contains("from 1 to 100"), "{wrong}: {body}");
        }
    }
}
