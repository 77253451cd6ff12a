//! HTTP and the edge's requests by the strictest reading, written apart from the edge: what was answered 200 must be a
//! request here too, and its messages are known.

use millpond::ids::{AppId, SubscriptionId};
use serde_json::{Map, Value, json};

/// A message: its key, and its value as text that is the same for the same value.
pub type Content = (String, String);

/// A request that nobody can read in two ways.
pub struct Request<'a> {
    method: &'a str,
    target: &'a str,
    body: &'a [u8],
}

/// The requests one after the other, up to the first thing that is none.
pub fn read(mut bytes: &[u8]) -> Vec<Request<'_>> {
    let mut requests = Vec::new();
    while let Some((request, length)) = read_one(bytes) {
        requests.push(request);
        bytes = &bytes[length..];
    }
    requests
}

fn read_one(bytes: &[u8]) -> Option<(Request<'_>, usize)> {
    // Empty lines before a request are passed over, as old clients sent them.
    let mut start = 0;
    while bytes[start..].starts_with(b"\r\n") {
        start += 2;
    }
    let end = bytes[start..].windows(4).position(|at| at == b"\r\n\r\n")? + start;
    let mut lines = bytes[start..end].split(|byte| *byte == b'\n');
    let line = std::str::from_utf8(line_of(lines.next()?)?).ok()?;
    let (method, rest) = line.split_once(' ')?;
    let (target, version) = rest.split_once(' ')?;
    let readable = matches!(version, "HTTP/1.0" | "HTTP/1.1")
        && method.bytes().all(is_token)
        && !target.is_empty()
        && target.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    let mut length = None;
    let mut hosts = 0;
    // The last line has lost its end with the empty one.
    for line in lines {
        let (name, value) = header(line_of(line).or(Some(line))?)?;
        match name.to_ascii_lowercase().as_str() {
            "transfer-encoding" => return None,
            "host" => hosts += 1,
            "content-length" => {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let this: usize = digits.then(|| value.parse().ok())??;
                if length.is_some_and(|before| before != this) {
                    return None;
                }
                length = Some(this);
            }
            _ => {}
        }
    }
    let body_start = end + 4;
    let body_end = body_start.checked_add(length.unwrap_or(0))?;
    let body = bytes.get(body_start..body_end)?;
    let one_host = hosts == 1 || (hosts == 0 && version == "HTTP/1.0");
    let request = Request {
        method,
        target,
        body,
    };
    (readable && one_host).then_some((request, body_end))
}

/// Without its end; `None` where that is not CR LF.
fn line_of(line: &[u8]) -> Option<&[u8]> {
    line.strip_suffix(b"\r")
}

fn header(line: &[u8]) -> Option<(&str, String)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(&line[..colon]).ok()?;
    let value = &line[colon + 1..];
    let printable = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    let good = !name.is_empty() && name.bytes().all(is_token) && value.iter().all(printable);
    let value = String::from_utf8_lossy(value);
    good.then(|| (name, value.trim_matches([' ', '\t']).to_owned()))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl Request<'_> {
    /// What it puts into the topic if it is taken; `None` for one that no edge may take.
    pub fn messages(&self) -> Option<Vec<Content>> {
        let path = match self.target.strip_prefix("http://") {
            Some(absolute) => &absolute[absolute.find('/')?..],
            None => self.target,
        };
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let id = path.strip_prefix("/api/v1/players/")?;
        let (id, is_email) = id
            .strip_suffix("/email")
            .map_or((id, false), |id| (id, true));
        let row = SubscriptionId::parse(id.as_bytes())?;
        let body: Value = serde_json::from_slice(self.body).ok()?;
        let app = AppId::parse(body["app_id"].as_str()?.as_bytes())?;
        let message = |row: SubscriptionId, fields: &Value| {
            let mut value = json!({"app_id": app.to_string(), "subscription_id": row.to_string()});
            let fields = fields.as_object()?.clone();
            value.as_object_mut()?.extend(fields);
            Some((row.to_string(), plain(value).to_string()))
        };
        if self.method != "PUT" {
            return None;
        }
        if is_email {
            let address = body["email"].as_str()?;
            let parent = SubscriptionId::of_email(app, address);
            let identity = json!({"device_type": "email", "identifier": address});
            let link = json!({"parent_id": parent.to_string()});
            return Some(vec![message(parent, &identity)?, message(row, &link)?]);
        }
        let mut fields = Map::new();
        for name in ["tags", "counts"] {
            fields.insert(name.to_owned(), body[name].clone());
        }
        let fields = Value::Object(fields);
        let mut messages = vec![message(row, &fields)?];
        if !body["mirror_to"].is_null() {
            let other = SubscriptionId::parse(body["mirror_to"].as_str()?.as_bytes())?;
            messages.push(message(other, &fields)?);
        }
        Some(messages)
    }
}

/// Without what says nothing.
pub fn plain(mut value: Value) -> Value {
    let says_nothing = |value: &Value| value.is_null() || *value == json!({});
    for name in ["tags", "counts"] {
        if value.get(name).is_some_and(says_nothing) {
            value.as_object_mut().expect("an object").remove(name);
        }
    }
    value
}
