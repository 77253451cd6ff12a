//! Why a request is not taken, as problem+json (RFC 9457) with a reason for programs, a sentence for people, and where it
//! applies the field and the limit.

use crate::dead::Reason;
use crate::http::{Response, StatusCode, header};
use crate::update::Rejection;
use serde::Serialize;

/// What a client hears that is to come again.
const RETRY_AFTER_S: u32 = 1;

/// A refused request: nothing of it was produced, unless the status is 504.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The answer's status.
    pub status: StatusCode,
    /// For programs; one word for each kind.
    pub reason: &'static str,
    /// For people: what, where, and what to do.
    pub detail: String,
    /// What of the request is wrong: a field of the body, or the path's id.
    pub field: Option<String>,
    /// The limit that it is beyond.
    pub limit: Option<u64>,
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    reason: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

impl Refusal {
    /// With neither field nor limit.
    pub fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            reason,
            detail: detail.into(),
            field: None,
            limit: None,
        }
    }

    /// 400.
    pub fn bad(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason, detail)
    }

    /// It is about this field.
    #[must_use]
    pub fn of(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    /// It is beyond this limit.
    #[must_use]
    pub fn beyond(mut self, limit: usize) -> Self {
        self.limit = Some(limit as u64);
        self
    }

    /// What the server refuses before there is a whole request.
    pub fn of_protocol(status: StatusCode, detail: String) -> Self {
        let reason = match status {
            StatusCode::REQUEST_TIMEOUT => "timeout",
            StatusCode::LENGTH_REQUIRED => "length-required",
            StatusCode::PAYLOAD_TOO_LARGE => "too-large",
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => {
                "head-too-large"
            }
            StatusCode::SERVICE_UNAVAILABLE if detail == "stopping" => "stopping",
            StatusCode::SERVICE_UNAVAILABLE => "too-many-connections",
            _ => "bad-request",
        };
        Self::new(status, reason, detail)
    }

    /// What would be a dead letter.
    pub fn of_update(rejection: Rejection) -> Self {
        let Rejection { reason, message } = rejection;
        let field = match reason {
            Reason::BadTags => Some("tags"),
            Reason::BadCounts | Reason::Overflow => Some("counts"),
            _ => None,
        };
        let status = match reason {
            Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self {
            field: field.map(str::to_owned),
            ..Self::new(status, reason.as_str(), message)
        }
    }

    /// The answer.
    pub fn response(&self) -> Response {
        let problem = Problem {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Refused"),
            status: self.status.as_u16(),
            reason: self.reason,
            detail: &self.detail,
            field: self.field.as_deref(),
            limit: self.limit,
        };
        let json = serde_json::to_vec(&problem).expect("plain values are JSON");
        let response = Response::new(self.status, "application/problem+json", json);
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                response.with_header(header::RETRY_AFTER, RETRY_AFTER_S.into())
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                response.with_header(header::ALLOW, header::HeaderValue::from_static("PUT"))
            }
            StatusCode::UNAUTHORIZED => response.with_header(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Bearer"),
            ),
            _ => response,
        }
    }
}
