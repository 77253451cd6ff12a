//! Each reason why a body or a path is refused: the status, the reason, where it is and what the limit is; and nothing of it
//! is in the topic.

use super::edge::{APP, Edge, ROW, contents, player, pond};
use super::http::{Answer, put_with, request};
use millpond::ids::{AppId, SubscriptionId};
use serde_json::json;

/// A request to a row that is refused.
struct Refused {
    path: String,
    body: Vec<u8>,
    reason: &'static str,
    field: Option<String>,
    limit: Option<u64>,
}

impl Refused {
    /// The place of what is wrong.
    fn at(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    /// And the limit that it is beyond.
    fn beyond(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// To another path.
    fn to(mut self, path: String) -> Self {
        self.path = path;
        self
    }
}

fn refused(reason: &'static str, body: impl Into<Vec<u8>>) -> Refused {
    Refused {
        path: player(ROW),
        body: body.into(),
        reason,
        field: None,
        limit: None,
    }
}

/// With a good app and these fields.
fn fields(reason: &'static str, fields: &str) -> Refused {
    refused(reason, format!(r#"{{"app_id":"{APP}",{fields}}}"#))
}

/// An email with this JSON for its address.
fn email(address: &str) -> Refused {
    fields("bad-email", &format!(r#""email":{address}"#))
        .to(player(ROW) + "/email")
        .at("email")
}

fn broken_json() -> Vec<Refused> {
    let texts = [
        "",
        " ",
        "{",
        "[]",
        "null",
        "7",
        "\"x\"",
        "{}{}",
        "\u{feff}{}",
        "{'app_id':1}",
        "{\"a\":NaN}",
        "{\"a\":01}",
        "{\"a\":1,}",
        "{\"a\":\"\t\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\" 1}",
    ];
    let mut all: Vec<Refused> = texts.map(|text| refused("not-json", text)).into();
    all.push(refused("not-json", b"{\"a\":\"\xff\xfe\"}".as_slice()));
    all.push(refused("not-json", b"{\"a\":\"\xed\xa0\x80\"}".as_slice()));
    let good = format!(r#"{{"app_id":"{APP}"}}"#);
    all.push(refused("not-json", format!("{good} x")));
    all.push(refused("not-json", &good[..good.len() - 1]));
    all.push(refused("not-json", "[".repeat(60_000)));
    all
}

fn fields_and_ids() -> Vec<Refused> {
    let mut all = vec![
        fields("unknown-field", r#""tagz":{}"#),
        fields("unknown-field", &format!(r#""parent_id":"{APP}""#)),
        fields("unknown-field", &format!(r#""subscription_id":"{ROW}""#)),
        fields("unknown-field", r#""email":"a@example.com""#),
        fields("unknown-field", r#""email":"a@example.com","tags":{}"#).to(player(ROW) + "/email"),
        fields("duplicate-field", &format!(r#""app_id":"{APP}""#)),
        fields("duplicate-field", &format!(r#""app\u005fid":"{APP}""#)),
        fields("duplicate-field", r#""tags":{},"tags":{}"#),
        refused("missing-id", "{}").at("app_id"),
        refused("missing-id", r#"{"tags":{"a":1}}"#).at("app_id"),
        refused("missing-id", r#"{"email":"a@example.com"}"#)
            .to(player(ROW) + "/email")
            .at("app_id"),
        fields("bad-id", r#""mirror_to":"x""#).at("mirror_to"),
        fields("bad-id", r#""mirror_to":7"#).at("mirror_to"),
        fields("bad-id", r#""mirror_to":{}"#).at("mirror_to"),
        fields("self-parent", &format!(r#""mirror_to":"{ROW}""#)).at("mirror_to"),
        fields(
            "self-parent",
            &format!(r#""mirror_to":"{}""#, ROW.to_uppercase()),
        )
        .at("mirror_to"),
    ];
    for id in ["\"nonsense\"", "\"\"", "7", "true", "{}", "[]"] {
        all.push(refused("bad-id", format!(r#"{{"app_id":{id}}}"#)).at("app_id"));
    }
    all.push(refused("bad-id", format!(r#"{{"app_id":"{APP} "}}"#)).at("app_id"));
    for id in ["nonsense", "7", &ROW[1..], &format!("{ROW}0"), "%00"] {
        all.push(
            fields("bad-id", r#""tags":{}"#)
                .to(player(id))
                .at("subscription_id"),
        );
    }
    // An email's own row can't be linked to itself.
    let app = AppId::parse(APP.as_bytes()).unwrap();
    let own = SubscriptionId::of_email(app, "a@example.com").to_string();
    let itself = fields("self-parent", r#""email":"A@Example.com""#).to(player(&own) + "/email");
    all.push(itself.at("subscription_id"));
    all
}

fn tags_and_counts() -> Vec<Refused> {
    let tags = |value: &str| fields("bad-tags", &format!(r#""tags":{value}"#)).at("tags");
    let counts = |value: &str| fields("bad-counts", &format!(r#""counts":{value}"#)).at("counts");
    let mut all = Vec::new();
    for value in ["[]", "\"x\"", "7", "true"] {
        all.push(tags(value));
        all.push(counts(value));
    }
    for value in [
        "{}",
        "[]",
        r#"{"b":{}}"#,
        "1e999",
        "-1e999",
        "1e-2000",
        &"9".repeat(129),
    ] {
        all.push(tags(&format!(r#"{{"good":1,"a":{value}}}"#)));
    }
    for value in [
        "1.5",
        "1e3",
        "9223372036854775808",
        "-9223372036854775809",
        "\"1\"",
        "true",
        "null",
        "{}",
        "[]",
        "1.0",
    ] {
        all.push(counts(&format!(r#"{{"good":1,"a":{value}}}"#)));
    }
    all
}

fn texts() -> Vec<Refused> {
    let mut all = Vec::new();
    for text in [
        "\\u0000",
        "a\\u0000b",
        "\\ud800",
        "\\udc00",
        "\\udc00\\ud800",
        "\\ud800x",
        "\\ud800\\u0041",
    ] {
        all.push(fields("bad-text", &format!(r#""tags":{{"a":"{text}"}}"#)));
        all.push(fields("bad-text", &format!(r#""tags":{{"{text}":1}}"#)));
        all.push(fields("bad-text", &format!(r#""counts":{{"{text}":1}}"#)));
    }
    for address in [
        "\"\"",
        "\"nonsense\"",
        "\"@example.com\"",
        "\"a@\"",
        "7",
        "null",
        "{}",
    ] {
        all.push(email(address));
    }
    all.push(
        refused("bad-email", format!(r#"{{"app_id":"{APP}"}}"#))
            .to(player(ROW) + "/email")
            .at("email"),
    );
    all
}

fn beyond_limits() -> Vec<Refused> {
    let many = |count: usize| {
        let entries: Vec<String> = (0..count).map(|at| format!("\"n{at}\":{at}")).collect();
        entries.join(",")
    };
    let long = |length: usize| "x".repeat(length);
    vec![
        fields("too-many", &format!(r#""tags":{{{}}}"#, many(101)))
            .at("tags")
            .beyond(100),
        fields("too-many", &format!(r#""counts":{{{}}}"#, many(101)))
            .at("counts")
            .beyond(100),
        fields("too-long", &format!(r#""tags":{{"{}":1}}"#, long(129)))
            .at("tags")
            .beyond(128),
        fields("too-long", &format!(r#""counts":{{"{}":1}}"#, long(129)))
            .at("counts")
            .beyond(128),
        fields("too-long", &format!(r#""tags":{{"{}":1}}"#, "é".repeat(65)))
            .at("tags")
            .beyond(128),
        fields("too-long", &format!(r#""tags":{{"a":"{}"}}"#, long(1025)))
            .at("tags")
            .beyond(1024),
        fields(
            "too-long",
            &format!(r#""tags":{{"a":"{}"}}"#, "é".repeat(513)),
        )
        .at("tags")
        .beyond(1024),
    ]
}

/// Up to its limits everything is good.
const GOOD: usize = 5;

fn assert_limits_are_taken(edge: &Edge) {
    let entries: Vec<String> = (0..100).map(|at| format!("\"n{at}\":{at}")).collect();
    let entries = entries.join(",");
    let row = |at: u8| format!("00000000-0000-4000-8000-0000000000{at:02x}");
    let bodies = [
        format!(r#"{{"app_id":"{APP}","tags":{{{entries}}},"counts":{{{entries}}}}}"#),
        format!(
            r#"{{"app_id":"{APP}","tags":{{"{}":"{}"}}}}"#,
            "x".repeat(128),
            "y".repeat(1024)
        ),
        format!(
            r#"{{"app_id":"{APP}","tags":{{"{}":"{}"}}}}"#,
            "é".repeat(64),
            "é".repeat(512)
        ),
        format!(
            r#"{{"app_id":"{APP}"{}}}"#,
            " ".repeat(65536 - 2 - 10 - APP.len() - 1)
        ),
        format!(r#" {{ "tags" : {{ "😀" : "\ud83d\ude00\u0001" }} , "app_id" : "{APP}" }} "#),
    ];
    assert_eq!((bodies.len(), bodies[3].len()), (GOOD, 65536));
    for (at, body) in (0..).zip(&bodies) {
        edge.good(&row(at), body);
    }
}

/// Whether the place is the one that is meant, or one in it: `tags` or `tags.a`.
fn is_at(found: &str, field: &str) -> bool {
    let rest = found.strip_prefix(field);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// What differs from the expectation.
fn differs(case: &Refused, answer: &Answer) -> Option<String> {
    let problem = answer.json();
    let right = answer.status == 400
        && answer.reason() == case.reason
        && case.limit.is_none_or(|limit| problem["limit"] == limit)
        && case.field.as_deref().is_none_or(|field| {
            problem["field"]
                .as_str()
                .is_some_and(|found| is_at(found, field))
        });
    let body = String::from_utf8_lossy(&case.body[..case.body.len().min(200)]);
    let wanted = json!({"reason": case.reason, "field": case.field, "limit": case.limit});
    (!right).then(|| format!("{body}\n  is {problem}\n  not {wanted}"))
}

#[test]
fn each_reason_of_a_body_and_a_path_is_told_with_its_place_and_nothing_is_produced() {
    let pond = pond("refusals");
    let edge = Edge::start(&pond, &[]);
    let cases: Vec<Refused> = [
        broken_json(),
        fields_and_ids(),
        tags_and_counts(),
        texts(),
        beyond_limits(),
    ]
    .into_iter()
    .flatten()
    .collect();
    // On one connection: a refusal for what a body says does not end it.
    let mut client = edge.client();
    let mut wrong = Vec::new();
    for case in &cases {
        let answer = client.ask(&put_with(&case.path, &[], &case.body)).unwrap();
        wrong.extend(differs(case, &answer));
    }
    println!("{} requests refused", cases.len());
    assert!(
        wrong.is_empty(),
        "{} of them:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_limits_are_taken(&edge);
    edge.stop();
    assert_eq!(contents(&pond).len(), GOOD);
}

#[test]
fn other_methods_paths_and_types_are_refused_and_nothing_is_produced() {
    let pond = pond("routes");
    let edge = Edge::start(&pond, &[]);
    let body = json!({"app_id": APP}).to_string();
    let length = format!("Content-Length: {}", body.len());
    let json_type = "Content-Type: application/json";
    let ask = |line: &str, headers: &[&str]| {
        let headers = [&["Host: edge", &length], headers].concat();
        let answer = edge.ask(&request(
            &format!("{line} HTTP/1.1"),
            &headers,
            body.as_bytes(),
        ));
        (answer.status, answer.reason(), answer)
    };
    for path in [player(ROW), player(ROW) + "/email"] {
        for method in ["GET", "POST", "DELETE", "PATCH", "OPTIONS", "put", "BREW"] {
            let (status, reason, answer) = ask(&format!("{method} {path}"), &[json_type]);
            assert_eq!(
                (status, reason.as_str()),
                (405, "method-not-allowed"),
                "{method} {path}"
            );
            assert_eq!(answer.header("allow"), Some("PUT"));
        }
        for content_type in [
            "Content-Type: text/plain",
            "Content-Type: application/jsonx",
            "Content-Type: application/x-www-form-urlencoded",
            "Content-Type:",
            "X-Content-Type: application/json",
        ] {
            let (status, reason, _) = ask(&format!("PUT {path}"), &[content_type]);
            assert_eq!(
                (status, reason.as_str()),
                (415, "unsupported-media-type"),
                "{content_type}"
            );
        }
    }
    let player = player(ROW);
    for path in [
        "/",
        "/api/v1/players",
        "/api/v2/players/x",
        "/API/v1/players/x",
        &format!("{player}/"),
        &format!("{player}/phone"),
        &format!("{player}/email/"),
        &format!("{player}/email/more"),
        &format!("/x{player}"),
        &format!("/.{player}"),
        "/livez",
        "/metrics",
    ] {
        let (status, reason, _) = ask(&format!("PUT {path}"), &[json_type]);
        assert_eq!((status, reason.as_str()), (404, "not-found"), "{path}");
    }
    edge.stop();
    assert!(contents(&pond).is_empty());
}
