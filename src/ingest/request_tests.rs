//! Requests, from their bytes to their updates or the reason why not.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::config;

const APP: &str = "00000000-0000-4000-8000-0000000000aa";
const ROW: &str = "11111111-1111-4111-8111-111111111111";
const OTHER: &str = "22222222-2222-4222-8222-222222222222";

fn rules(ingest: &str) -> Rules {
    let text = format!(
        "[kafka]\npartitions = 12\n[[shard]]\nname = \"a\"\napps = \"00-ff\"\npostgres = \"host=127.0.0.1\"\n\
         [ingest]\n{ingest}"
    );
    let sources = config::Sources::of_text(&text);
    let config = config::load(&sources).unwrap().config;
    Rules {
        ingest: config.ingest,
        message_max_bytes: config.consumer.message_max_bytes,
        partitioner: config.partitioner,
    }
}

/// `extra` has the head's other lines.
fn read(
    rules: &Rules,
    target: &str,
    extra: &[(&str, &str)],
    body: &str,
) -> Result<Updates, Refusal> {
    let (method, path) = target.split_once(' ').unwrap();
    let mut head = vec![("content-type", "application/json")];
    head.retain(|(name, _)| extra.iter().all(|(other, _)| other != name));
    head.extend(extra.iter().filter(|(_, value)| !value.is_empty()));
    let request = Request::for_tests(method, path, &head, body);
    rules.read(&request)
}

fn put(body: &str) -> Result<Updates, Refusal> {
    read(&rules(""), &format!("PUT /api/v1/players/{ROW}"), &[], body)
}

fn put_email(body: &str) -> Result<Updates, Refusal> {
    let target = format!("PUT /api/v1/players/{ROW}/email");
    read(&rules(""), &target, &[], body)
}

/// A body with the app and these fields.
fn with_app(fields: &str) -> String {
    format!("{{\"app_id\":\"{APP}\"{fields}}}")
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.value).unwrap()
}

#[test]
fn an_update_is_one_message_on_its_apps_partition() {
    let body = with_app(r#","counts": {"sessions": 1}, "tags":{"vip":null,"name":"J\u00f3n"}"#);
    let updates = put(&body).unwrap();
    let [message] = &updates.messages[..] else {
        panic!("one message")
    };
    let app = AppId::parse(APP.as_bytes()).unwrap();
    assert_eq!(message.subscription.to_string(), ROW);
    assert_eq!(message.partition, rules("").partitioner.partition_of(app));
    assert_eq!(
        text(message),
        format!(
            r#"{{"app_id":"{APP}","subscription_id":"{ROW}","tags":{{"vip":null,"name":"J\u00f3n"}},"counts":{{"sessions": 1}}}}"#
        )
    );
    assert_eq!(updates.parent, None);
}

#[test]
fn ids_in_any_usual_form_are_one_row() {
    let upper = format!("PUT /api/v1/players/{}", ROW.to_uppercase());
    let body = with_app("").replace('-', "");
    let updates = read(&rules(""), &upper, &[], &body).unwrap();
    assert_eq!(updates, put(&with_app("")).unwrap());
}

#[test]
fn a_mirrored_update_is_produced_once_for_each_row() {
    let body = with_app(&format!(r#","tags":{{"a":1}},"mirror_to":"{OTHER}""#));
    let updates = put(&body).unwrap();
    let rows: Vec<String> = updates
        .messages
        .iter()
        .map(|of| of.subscription.to_string())
        .collect();
    assert_eq!(rows, [ROW, OTHER]);
    assert_eq!(
        text(&updates.messages[0]).replace(ROW, OTHER),
        text(&updates.messages[1])
    );
    let itself = with_app(&format!(r#","mirror_to":"{ROW}""#));
    assert_eq!(put(&itself).unwrap_err().reason, "self-parent");
}

#[test]
fn an_email_is_a_row_and_a_link_to_it() {
    let updates = put_email(&with_app(r#","email":"Ann@Example.org""#)).unwrap();
    let app = AppId::parse(APP.as_bytes()).unwrap();
    let parent = SubscriptionId::of_email(app, "ann@example.org");
    assert_eq!(updates.parent, Some(parent));
    assert_eq!(
        text(&updates.messages[0]),
        format!(
            r#"{{"app_id":"{APP}","subscription_id":"{parent}","device_type":"email","identifier":"Ann@Example.org"}}"#
        )
    );
    assert_eq!(
        text(&updates.messages[1]),
        format!(r#"{{"app_id":"{APP}","subscription_id":"{ROW}","parent_id":"{parent}"}}"#)
    );
    for email in [
        "null",
        "1",
        "\"\"",
        "\"ann\"",
        "\"@b\"",
        "\"a@\"",
        "\"a b@c\"",
        "\"a@b\\u0000\"",
    ] {
        let refusal = put_email(&with_app(&format!(",\"email\":{email}"))).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.field.as_deref()),
            ("bad-email", Some("email")),
            "{email}"
        );
    }
    assert_eq!(put_email(&with_app("")).unwrap_err().reason, "bad-email");
}

#[test]
fn what_would_be_a_dead_letter_is_refused_with_its_reason() {
    for (fields, reason, field) in [
        (r#","tags":[]"#, "bad-tags", Some("tags")),
        (r#","tags":{"a":{}}"#, "bad-tags", Some("tags")),
        (r#","counts":{"a":1.5}"#, "bad-counts", Some("counts")),
        (
            r#","counts":{"a":9223372036854775808}"#,
            "bad-counts",
            Some("counts"),
        ),
        (r#","tags":{"a":"\u0000"}"#, "bad-text", None),
        (r#","tags":{"a":"\ud800"}"#, "bad-text", None),
        (r#","mirror_to":"x""#, "bad-id", Some("mirror_to")),
        (r#","mirror_to":null"#, "bad-id", Some("mirror_to")),
        (r#","parent_id":null"#, "unknown-field", Some("parent_id")),
        (r#","tags":{},"tags":{}"#, "duplicate-field", Some("tags")),
        (
            r#","tags":{},"tags":{},"tags":{},"tags":{},"tags":{}"#,
            "duplicate-field",
            Some("tags"),
        ),
    ] {
        let refusal = put(&with_app(fields)).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.field.as_deref()),
            (reason, field),
            "{fields}: {}",
            refusal.detail
        );
        assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
    }
    for (body, reason) in [
        ("", "not-json"),
        ("[]", "not-json"),
        ("{\"app_id\":", "not-json"),
        ("{}", "missing-id"),
        ("{} {}", "not-json"),
        ("{\"app_id\":\"x\"}", "bad-id"),
        ("{\"app_id\":7}", "bad-id"),
    ] {
        assert_eq!(put(body).unwrap_err().reason, reason, "{body}");
    }
}

#[test]
fn sizes_are_bounded_and_the_limit_is_named() {
    let small =
        rules("tags_max = 2\nname_max_bytes = 4\nvalue_max_bytes = 6\nbody_max_bytes = 2048");
    let target = format!("PUT /api/v1/players/{ROW}");
    let refusal = |fields: &str| read(&small, &target, &[], &with_app(fields)).unwrap_err();
    let of = |refusal: Refusal| (refusal.reason, refusal.field, refusal.limit);
    let field = |name: &str| Some(name.to_owned());
    assert_eq!(
        of(refusal(r#","tags":{"a":1,"b":2,"c":3}"#)),
        ("too-many", field("tags"), Some(2))
    );
    assert_eq!(
        of(refusal(r#","counts":{"names":1}"#)),
        ("too-long", field("counts"), Some(4))
    );
    // Of a text what it says counts, not how it is written.
    for value in [r#""1234567""#, r#""123456\u0041""#, "1234567"] {
        assert_eq!(
            of(refusal(&format!(r#","tags":{{"a":{value}}}"#))),
            ("too-long", field("tags"), Some(6)),
            "{value}"
        );
    }
    for value in [r#""123456""#, r#""12345\u0041""#, "123456"] {
        let fields = format!(r#","tags":{{"a":{value},"b":null}},"counts":{{"name":1}}"#);
        assert!(
            read(&small, &target, &[], &with_app(&fields)).is_ok(),
            "{value}"
        );
    }
}

#[test]
fn paths_methods_types_and_tokens_have_their_status() {
    let locked = rules("tokens = [\"one\", \"two\"]");
    let target = format!("PUT /api/v1/players/{ROW}");
    let status = |target: &str, head: &[(&str, &str)]| {
        read(&locked, target, head, &with_app(""))
            .map_or_else(|refusal| refusal.status.as_u16(), |_| 200)
    };
    let good = ("authorization", "Bearer two");
    assert_eq!(status(&target, &[good]), 200);
    for wrong in [
        "Bearer",
        "Bearer tw",
        "Bearer twoo",
        "Basic two",
        "two",
        "Bearer  two",
    ] {
        assert_eq!(status(&target, &[("authorization", wrong)]), 401, "{wrong}");
    }
    assert_eq!(status(&target, &[]), 401);
    assert_eq!(status(&target.replace("PUT", "POST"), &[good]), 405);
    for path in [
        "/",
        "/api/v1/players/",
        "/api/v1/players/x/y",
        "/api/v2/players/x",
        "/api/v1/players/x/email/",
    ] {
        assert_eq!(status(&format!("PUT {path}"), &[good]), 404, "{path}");
    }
    assert_eq!(status("PUT /api/v1/players/x", &[good]), 400);
    for media_type in ["text/plain", "application/jsonx", ""] {
        assert_eq!(status(&target, &[good, ("content-type", media_type)]), 415);
    }
    assert_eq!(
        status(
            &target,
            &[good, ("content-type", "Application/JSON; charset=utf-8")]
        ),
        200
    );
}

#[test]
fn a_body_without_its_length_is_not_asked_for() {
    let status = |method: &Method, headers: &[(&str, &str)]| {
        let request = Request::for_tests(method.as_str(), "/", headers, "");
        screen(method, request.headers()).map_err(|(status, _)| status.as_u16())
    };
    let (length, chunks) = (("content-length", "2"), ("transfer-encoding", "chunked"));
    assert_eq!(status(&Method::PUT, &[length]), Ok(()));
    assert_eq!(status(&Method::GET, &[]), Ok(()));
    assert_eq!(status(&Method::PUT, &[]), Err(411));
    for method in [Method::PUT, Method::GET] {
        assert_eq!(status(&method, &[chunks]), Err(411));
        assert_eq!(status(&method, &[length, chunks]), Err(411));
    }
}

#[test]
fn a_trace_context_is_passed_on_only_if_it_is_one() {
    let of = |value: &str| {
        let request = Request::for_tests("PUT", "/", &[("traceparent", value)], "");
        traceparent(request.headers()).map(<[u8]>::to_vec)
    };
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(of(good).unwrap(), good.as_bytes());
    for bad in [
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319cb-7ad6b7169203331-01",
    ] {
        assert_eq!(of(bad), None, "{bad}");
    }
}
