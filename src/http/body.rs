//! From a head to a whole request, and from that to the handler: what both servers do between hyper and their users.

use super::server::Limits;
use super::{Bytes, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;

/// The request with its body, or why there is none. `is_late`: the body took too long.
pub(super) async fn whole(
    request: hyper::Request<Incoming>,
    peer: SocketAddr,
    limits: &Limits,
    is_late: impl Fn() -> bool,
) -> Result<Request, (StatusCode, String)> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if request.version() == hyper::Version::HTTP_11 && hosts != 1 {
        let line = format!("{hosts} Host headers instead of one");
        return Err((StatusCode::BAD_REQUEST, line));
    }
    let bytes_max = limits.body_bytes_max;
    let too_large = || {
        let line = format!("the body is larger than {bytes_max} bytes");
        Err((StatusCode::PAYLOAD_TOO_LARGE, line))
    };
    let (head, body) = request.into_parts();
    // Refused before the first byte is asked for: a client that expects `100 Continue` sends none.
    if usize::try_from(body.size_hint().lower()).is_ok_and(|announced| announced > bytes_max) {
        return too_large();
    }
    let mut bytes = Vec::new();
    let mut body = pin!(body);
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(_) if is_late() => {
                let line = "the body took too long".to_owned();
                return Err((StatusCode::REQUEST_TIMEOUT, line));
            }
            Err(error) => {
                let line = format!("the body can't be read: {error}");
                return Err((StatusCode::BAD_REQUEST, line));
            }
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > bytes_max {
            return too_large();
        }
        // Copied, since a piece keeps the whole buffer that it was read into: a body that comes byte by byte would hold thousands.
        bytes.extend_from_slice(&data);
    }
    let message = hyper::Request::from_parts(head, Bytes::from(bytes));
    Ok(Request::new(peer, message))
}

/// Calls the handler. Its panic is one request's failure, not the server's.
pub(super) fn call<Answer>(
    handler: &(impl Fn(Request) -> Answer + ?Sized),
    request: Request,
    failed: impl FnOnce(Response) -> Answer,
) -> Answer {
    let (method, uri) = request.line();
    catch_unwind(AssertUnwindSafe(|| handler(request))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(
            request = format!("{method} {}", uri.path()),
            error = text.unwrap_or("no message"),
            "a handler panicked; its connection is closed"
        );
        let response = Response::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the handler failed; the log says why",
        );
        failed(response.and_close())
    })
}
