//! `/api/rules`: what rules there are, and changes to them. A change is answered once this process has decided it in all its
//! partitions, or after 5 s with what is known then.

use crate::clock;
use crate::http::{Method, Request, Response, Routes, StatusCode};
use crate::observe::gate::Gate;
use crate::rules::record::{Removed, Rule, RuleId, Target, check_text};
use crate::rules::shared::Order;
use crate::rules::shown::{Asked, Shown};
use crate::rules::table::Table;
use crate::rules::{ACTIVE_MAX, Rules};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a change is waited for.
const DECIDED_BY: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// With the paths of the rules.
#[must_use]
pub fn routes(routes: Routes, gate: &Gate, rules: &Arc<Rules>) -> Routes {
    let (to_list, to_add, to_remove) = (rules.clone(), rules.clone(), rules.clone());
    let (may_add, may_remove) = (gate.clone(), gate.clone());
    let path = "/api/rules";
    routes
        .with(Method::GET, path, move |_| list(&to_list))
        .with(Method::POST, path, move |request| {
            let admitted = may_add.admit(request);
            answer(admitted.and_then(|()| add(&to_add, request)))
        })
        .with(Method::DELETE, path, move |request| {
            let admitted = may_remove.admit(request);
            answer(admitted.and_then(|()| remove(&to_remove, request)))
        })
}

fn answer(answer: Result<Response, Response>) -> Response {
    answer.unwrap_or_else(|refused| refused)
}

fn list(rules: &Rules) -> Response {
    let (table, now) = (rules.table(), clock::timestamp());
    let shown: Vec<Shown> = table
        .entries
        .iter()
        .map(|entry| Shown::of(entry, now))
        .collect();
    Response::json(StatusCode::OK, &shown)
}

fn add(rules: &Rules, request: &Request) -> Result<Response, Response> {
    let asked: Asked = serde_json::from_slice(request.body())
        .map_err(|error| bad(format_args!("the body is no rule: {error}")))?;
    let now = now();
    let rule = checked(&asked, now).map_err(bad)?;
    if rules.table().active(now) >= ACTIVE_MAX {
        return Err(refused(
            StatusCode::CONFLICT,
            format_args!("{ACTIVE_MAX} rules are active; remove one first"),
        ));
    }
    let id = rule.id;
    write(rules, rule)?;
    Ok(decided(rules, id, |table| {
        let entry = table.find(id);
        entry.is_some_and(|entry| entry.undecided.is_empty())
    }))
}

fn remove(rules: &Rules, request: &Request) -> Result<Response, Response> {
    let query = request.query().unwrap_or_default();
    let id = parameter(query, "id").ok_or_else(|| bad("say which: ?id=…&author=…"))?;
    let id = RuleId::parse(&id).ok_or_else(|| bad(format_args!("id {id:?} is no UUID")))?;
    let author = parameter(query, "author").unwrap_or_default();
    let author = check_text("author", &author).map_err(bad)?;
    let table = rules.table();
    let Some(entry) = table.find(id) else {
        return Err(refused(
            StatusCode::NOT_FOUND,
            format_args!("there is no rule {id}; GET /api/rules lists them"),
        ));
    };
    if entry.rule.removed.is_none() {
        let removed = Some(Removed { at: now(), author });
        write(
            rules,
            Rule {
                removed,
                ..entry.rule.clone()
            },
        )?;
    }
    Ok(decided(rules, id, |table| {
        let entry = table.find(id);
        entry.is_some_and(|entry| entry.rule.removed.is_some() && entry.undecided.is_empty())
    }))
}

/// The rule, or what is wrong with it.
fn checked(asked: &Asked, now: Timestamp) -> Result<Rule, String> {
    let until = asked.until.as_deref().map(|text| {
        let until: Timestamp = text
            .parse()
            .map_err(|_| format!("until {text:?} is no time such as 2026-03-01T10:00:00Z"))?;
        if until <= now {
            return Err(format!(
                "until {text:?} has passed; the rule would skip nothing that comes"
            ));
        }
        Ok(milliseconds(until))
    });
    Ok(Rule {
        id: RuleId::random(),
        target: Target::of(
            &asked.app_id,
            asked.subscription_id.as_deref(),
            asked.parent_id.as_deref(),
        )?,
        reason: check_text("reason", &asked.reason)?,
        author: check_text("author", &asked.author)?,
        created_at: now,
        until: until.transpose()?,
        removed: None,
    })
}

/// Has a rule written, and waits until the broker has it.
fn write(rules: &Rules, rule: Rule) -> Result<(), Response> {
    let (answer, answered) = crossbeam_channel::bounded(1);
    rules.order(Order::Write(rule, answer));
    match answered.recv_timeout(DECIDED_BY) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(unwritten(&why)),
        Err(_) => Err(unwritten("no answer in time")),
    }
}

fn unwritten(why: &str) -> Response {
    refused(
        StatusCode::SERVICE_UNAVAILABLE,
        format_args!(
            "the rules topic did not take it ({why}); look at the list before you try again, it may be there all the same"
        ),
    )
}

/// What is known of the rule once that is so, or when it took too long.
fn decided(rules: &Rules, id: RuleId, is_so: impl Fn(&Table) -> bool) -> Response {
    let deadline: Instant = clock::now() + DECIDED_BY;
    loop {
        let table = rules.table();
        let so = is_so(&table);
        if !so && clock::now() < deadline {
            std::thread::sleep(LOOK);
            continue;
        }
        let status = if so {
            StatusCode::OK
        } else {
            StatusCode::ACCEPTED
        };
        let shown = table.find(id);
        return match shown.map(|entry| Shown::of(entry, clock::timestamp())) {
            Some(shown) => Response::json(status, &shown),
            None => unwritten("it was not read back in time"),
        };
    }
}

fn bad(why: impl std::fmt::Display) -> Response {
    refused(StatusCode::BAD_REQUEST, why)
}

fn refused(status: StatusCode, why: impl std::fmt::Display) -> Response {
    Response::text(status, why)
}

/// Now, in whole milliseconds, as Kafka's timestamps are.
fn now() -> Timestamp {
    milliseconds(clock::timestamp())
}

fn milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

/// The first value of that name in a query, with its percent signs resolved.
fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(own, _)| *own == name)?;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        bytes.push(match (first, others) {
            (b'+', _) => b' ',
            (b'%', [high, low, others @ ..]) => {
                rest = others;
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                u8::try_from(digit(high)? * 16 + digit(low)?).ok()?
            }
            (byte, _) => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn asked() -> Asked {
        Asked {
            app_id: "5eb5a37e-b458-11e3-ac11-000c2940e62c".to_owned(),
            subscription_id: None,
            parent_id: None,
            reason: "why".to_owned(),
            author: "ann".to_owned(),
            until: None,
        }
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_said() {
        let now = "2026-03-01T10:00:00Z".parse().unwrap();
        let refused = |change: fn(&mut Asked)| {
            let mut asked = asked();
            change(&mut asked);
            checked(&asked, now).unwrap_err()
        };
        assert!(checked(&asked(), now).is_ok());
        assert!(refused(|asked| asked.app_id.clear()).contains("app_id"));
        assert!(refused(|asked| asked.reason.clear()).contains("reason is empty"));
        assert!(refused(|asked| asked.author = " ".to_owned()).contains("author is empty"));
        let until = |text: &str| {
            let until = Some(text.to_owned());
            checked(&Asked { until, ..asked() }, now)
        };
        assert!(
            until("2026-03-01T10:00:00Z")
                .unwrap_err()
                .contains("passed")
        );
        assert!(until("tomorrow").unwrap_err().contains("no time"));
        let rule = until("2026-03-01T10:00:00.0015Z").unwrap();
        assert_eq!(rule.until.unwrap().to_string(), "2026-03-01T10:00:00.001Z");
    }

    #[test]
    fn a_parameter_is_found_and_resolved() {
        let query = "id=1&author=Jon%20D%C3%B6+e&author=other&bad=%zz";
        assert_eq!(parameter(query, "id").unwrap(), "1");
        assert_eq!(parameter(query, "author").unwrap(), "Jon Dö e");
        assert_eq!(parameter(query, "bad"), None);
        assert_eq!(parameter(query, "none"), None);
    }
}
