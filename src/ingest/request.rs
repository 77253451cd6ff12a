//! From a request to the updates that it stands for. What is accepted here was decoded as the consumer will decode it, so it
//! can't become a dead letter for what can be told from the message alone.

use super::refusal::Refusal;
use crate::config::checked::{Ingest, Secret};
use crate::http::{HeaderMap, Method, Request, StatusCode, has_bearer_token, header};
use crate::ids::{AppId, Partition, SubscriptionId};
use crate::partitioner::Partitioner;
use crate::update::{Change, Place, Update, decode, judge, parse_uuid, shortened};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// What the paths begin with.
const PLAYERS: &str = "/api/v1/players/";
/// The longest address that mail can be sent to (RFC 5321).
const EMAIL_BYTES_MAX: usize = 254;
/// A trace context of version 00: four fields of hexadecimal digits.
const TRACEPARENT_BYTES: usize = 55;

/// An update to be produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its row's subscription, which is its key.
    pub subscription: SubscriptionId,
    /// Where it goes.
    pub partition: Partition,
    /// The update on the wire.
    pub value: Vec<u8>,
}

/// What a request stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updates {
    /// All on one partition, in the order in which they are produced.
    pub messages: Vec<Message>,
    /// The parent's id, where the answer names it.
    pub parent: Option<SubscriptionId>,
}

/// What requests are held to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The edge's own.
    pub ingest: Ingest,
    /// Bytes of key and value.
    pub message_max_bytes: usize,
    /// App → partition.
    pub partitioner: Partitioner,
}

impl Rules {
    /// The updates of a request, in full or not at all.
    pub fn read(&self, request: &Request) -> Result<Updates, Refusal> {
        let tokens = &self.ingest.tokens;
        let tokens = tokens.iter().map(|Secret(token)| token.as_str());
        if tokens.len() > 0 && !has_bearer_token(request, tokens) {
            let detail =
                "a request needs the header `authorization: Bearer …` with one of ingest.tokens";
            return Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                detail,
            ));
        }
        let (id, is_email) = self::path(request)?;
        let Some(caller) = SubscriptionId::parse(id.as_bytes()) else {
            let detail = format!("the path's subscription id is no UUID: {}", shortened(id));
            return Err(Refusal::bad("bad-id", detail).of("subscription_id"));
        };
        self::head(request.headers())?;
        let text = std::str::from_utf8(request.body())
            .map_err(|error| Refusal::bad("not-json", format!("the body is not UTF-8: {error}")))?;
        let known: &[&str] = match is_email {
            true => &["app_id", "email"],
            false => &["app_id", "tags", "counts", "mirror_to"],
        };
        let body = Body::read(text, known)?;
        let app = AppId(body.uuid("app_id")?.ok_or_else(|| {
            Refusal::bad("missing-id", "app_id is missing; it is needed").of("app_id")
        })?);
        match is_email {
            true => self.email(app, caller, &body),
            false => self.update(app, caller, &body),
        }
    }

    /// The update, and the same for the row that it is mirrored to.
    fn update(
        &self,
        app: AppId,
        caller: SubscriptionId,
        body: &Body<'_>,
    ) -> Result<Updates, Refusal> {
        let mirror = body.uuid("mirror_to")?.map(SubscriptionId);
        if mirror == Some(caller) {
            let detail = "mirror_to names the row itself, which would get the update twice";
            return Err(Refusal::bad("self-parent", detail).of("mirror_to"));
        }
        let mut fields = String::new();
        for name in ["tags", "counts"] {
            if let Some(raw) = body.get(name) {
                fields.push_str(&format!(",\"{name}\":{raw}"));
            }
        }
        let rows = std::iter::once(caller).chain(mirror);
        let messages = rows.map(|row| self.message(app, row, &fields));
        Ok(Updates {
            messages: messages.collect::<Result<_, _>>()?,
            parent: None,
        })
    }

    /// The address's own row, and the link of the caller to it.
    fn email(
        &self,
        app: AppId,
        caller: SubscriptionId,
        body: &Body<'_>,
    ) -> Result<Updates, Refusal> {
        let raw = body.get("email").unwrap_or("null");
        let address = serde_json::from_str::<String>(raw).ok();
        let Some(address) = address.filter(|address| is_address(address)) else {
            let detail = format!("email is no address: {}", shortened(raw));
            return Err(Refusal::bad("bad-email", detail).of("email"));
        };
        let parent = SubscriptionId::of_email(app, &address);
        if parent == caller {
            let detail = "the path names the row of the address itself";
            return Err(Refusal::bad("self-parent", detail).of("subscription_id"));
        }
        let address = serde_json::to_string(&address).expect("text is JSON");
        let of_parent = format!(",\"device_type\":\"email\",\"identifier\":{address}");
        let of_caller = format!(",\"parent_id\":\"{parent}\"");
        Ok(Updates {
            messages: vec![
                self.message(app, parent, &of_parent)?,
                self.message(app, caller, &of_caller)?,
            ],
            parent: Some(parent),
        })
    }

    fn message(
        &self,
        app: AppId,
        subscription: SubscriptionId,
        fields: &str,
    ) -> Result<Message, Refusal> {
        let key = subscription.to_string();
        let value = format!("{{\"app_id\":\"{app}\",\"subscription_id\":\"{key}\"{fields}}}");
        let value = value.into_bytes();
        let partition = self.partitioner.partition_of(app);
        judge(Some(key.as_bytes()), Some(&value), self.message_max_bytes)
            .map_err(|rejection| Refusal::of_update(rejection).beyond(self.message_max_bytes))?;
        let place = Place {
            subscription,
            partition,
            partitioner: Some(&self.partitioner),
        };
        let update = decode(&value, &place).map_err(Refusal::of_update)?;
        self.check_sizes(&update)?;
        Ok(Message {
            subscription,
            partition,
            value,
        })
    }

    fn check_sizes(&self, update: &Update<'_>) -> Result<(), Refusal> {
        let limits = &self.ingest;
        let too_long = |field, what: &str, bytes: usize, limit: usize| {
            let detail = format!("{what} has {bytes} bytes; {limit} are allowed");
            Err(Refusal::bad("too-long", detail).of(field).beyond(limit))
        };
        let (mut tags, mut counts) = (0, 0);
        for change in &update.changes {
            let (field, name, value) = match change {
                Change::Merge { name, value, .. } => {
                    tags += 1;
                    ("tags", name, value.unwrap_or_default())
                }
                Change::Add { name, .. } => {
                    counts += 1;
                    ("counts", name, "")
                }
                Change::Set { .. } | Change::Amount { .. } | Change::Delete | Change::Own(_) => {
                    continue;
                }
            };
            if name.len() > limits.name_max_bytes {
                let what = format!("the name {:?} in {field}", shortened(name));
                return too_long(field, &what, name.len(), limits.name_max_bytes);
            }
            let bytes = bytes_of(value);
            if bytes > limits.value_max_bytes {
                let what = format!("the value of {name:?}");
                return too_long(field, &what, bytes, limits.value_max_bytes);
            }
        }
        for (field, count) in [("tags", tags), ("counts", counts)] {
            if count > limits.tags_max {
                let detail = format!("{field} has {count} names; {} are allowed", limits.tags_max);
                return Err(Refusal::bad("too-many", detail)
                    .of(field)
                    .beyond(limits.tags_max));
            }
        }
        Ok(())
    }
}

/// Of a JSON scalar: a text's bytes without quotes and escapes.
fn bytes_of(value: &str) -> usize {
    match value.strip_prefix('"') {
        None => value.len(),
        Some(text) if !text.contains('\\') => text.len() - 1,
        Some(_) => serde_json::from_str::<String>(value).map_or(value.len(), |text| text.len()),
    }
}

/// The subscription in the path, and whether the path is that of its e-mail.
fn path(request: &Request) -> Result<(&str, bool), Refusal> {
    let rest = request.path().strip_prefix(PLAYERS);
    let found = rest.and_then(|rest| match rest.split_once('/') {
        None if !rest.is_empty() => Some((rest, false)),
        Some((id, "email")) => Some((id, true)),
        _ => None,
    });
    let Some(found) = found else {
        let detail = format!(
            "no {} here; there is {PLAYERS}{{subscription_id}} and {PLAYERS}{{subscription_id}}/email",
            shortened(request.path())
        );
        return Err(Refusal::new(StatusCode::NOT_FOUND, "not-found", detail));
    };
    if request.method() != Method::PUT {
        let detail = format!("{} is not allowed here, only PUT", request.method());
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(Refusal::new(status, "method-not-allowed", detail));
    }
    Ok(found)
}

/// A body's length is announced by `Content-Length` alone: with chunks beside it, or in its place, whoever forwards to us may
/// see another end of the body than we do.
pub fn screen(method: &Method, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
    let has_body = matches!(*method, Method::PUT | Method::POST | Method::PATCH);
    let detail = if headers.contains_key(header::TRANSFER_ENCODING) {
        "a body needs a Content-Length; Transfer-Encoding is not taken"
    } else if has_body && !headers.contains_key(header::CONTENT_LENGTH) {
        "a body needs a Content-Length"
    } else {
        return Ok(());
    };
    Err((StatusCode::LENGTH_REQUIRED, detail.to_owned()))
}

fn head(headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers.get(header::CONTENT_TYPE);
    let given = given.map(|given| String::from_utf8_lossy(given.as_bytes()));
    let media_type = given.as_deref().and_then(|given| given.split(';').next());
    match media_type.map(str::trim) {
        Some(media_type) if media_type.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => {
            let detail = match &given {
                Some(given) => format!("content-type is {}", shortened(given)),
                None => "content-type is missing".to_owned(),
            };
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let detail = format!("{detail}; it must be application/json");
            Err(Refusal::new(status, "unsupported-media-type", detail))
        }
    }
}

/// The request's trace context, if it is one.
pub fn traceparent(headers: &HeaderMap) -> Option<&[u8]> {
    let given = headers.get("traceparent")?.as_bytes();
    let digits = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    let mut fields = given.split(|byte| *byte == b'-');
    let lengths = [2, 32, 16, 2];
    let is_one = given.len() == TRACEPARENT_BYTES
        && lengths.iter().all(|length| {
            let field = fields.next().unwrap_or_default();
            field.len() == *length && field.iter().all(digits)
        });
    is_one.then_some(given)
}

/// A local part, an @, a domain; what lies between them is the mail servers' business.
fn is_address(text: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    let mut parts = text.rsplitn(2, '@');
    let (domain, local) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    text.len() <= EMAIL_BYTES_MAX && !local.is_empty() && !domain.is_empty() && !text.contains(bad)
}

/// The body's fields, each still as JSON text.
struct Body<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Body<'a> {
    /// Reads an object that has these fields and no other, each once.
    fn read(text: &'a str, known: &[&'static str]) -> Result<Self, Refusal> {
        let body: Self = serde_json::from_str(text).map_err(|error| {
            Refusal::bad("not-json", format!("the body is no JSON object: {error}"))
        })?;
        for (at, (name, _)) in body.0.iter().enumerate() {
            if !known.contains(&name.as_ref()) {
                let name = shortened(name);
                let detail = format!("{name:?} is no field; there are {}", known.join(", "));
                return Err(Refusal::bad("unknown-field", detail).of(name));
            }
            if body.0[..at].iter().any(|(before, _)| before == name) {
                let detail = format!("{name:?} comes twice");
                return Err(Refusal::bad("duplicate-field", detail).of(name));
            }
        }
        Ok(body)
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(of, _)| of == name);
        found.map(|(_, raw)| raw.get())
    }

    fn uuid(&self, name: &'static str) -> Result<Option<[u8; 16]>, Refusal> {
        let Some(raw) = self.get(name) else {
            return Ok(None);
        };
        match parse_uuid(raw) {
            Some(id) => Ok(Some(id)),
            None => {
                let detail = format!("{name} is no UUID: {}", shortened(raw));
                Err(Refusal::bad("bad-id", detail).of(name))
            }
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Body<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = Body<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body<'de>, A::Error> {
                let mut fields = Vec::with_capacity(4);
                // One more than there can be is wrong in any case.
                while fields.len() <= FIELDS_MAX
                    && let Some(name) = map.next_key::<Name<'de>>()?
                {
                    fields.push((name.0, map.next_value()?));
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Body(fields))
            }
        }
        deserializer.deserialize_map(Of)
    }
}

/// Fields that a body can have.
const FIELDS_MAX: usize = 4;

/// A field's name, borrowed unless it holds escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
