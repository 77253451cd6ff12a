//! Who may change something over the admin address: whoever has the token. Without a configured token, whoever is on this
//! machine.

use crate::config::checked::Secret;
use crate::http::{Request, Response, StatusCode, header};

/// Decides about each request that would change something.
#[derive(Clone, Debug)]
pub struct Gate {
    token: Option<Secret>,
}

impl Gate {
    /// For `admin.token`.
    pub fn new(token: Option<Secret>) -> Self {
        Self { token }
    }

    /// Whether the request may change something; else the answer that says why not.
    ///
    /// # Errors
    /// 401 without the right token, 403 where no token could help.
    pub fn admit(&self, request: &Request) -> Result<(), Response> {
        let Some(Secret(token)) = &self.token else {
            return match request.peer().ip().to_canonical().is_loopback() {
                true => Ok(()),
                false => refused(
                    StatusCode::FORBIDDEN,
                    "changes are allowed from this machine only; set admin.token to allow them with it from others",
                ),
            };
        };
        let given = request.headers().get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        match given {
            Some(given) if same(given, token.as_bytes()) => Ok(()),
            _ => refused(
                StatusCode::UNAUTHORIZED,
                "a change needs the header `authorization: Bearer …` with admin.token",
            ),
        }
    }
}

fn refused(status: StatusCode, why: &str) -> Result<(), Response> {
    Err(Response::text(status, why))
}

/// Compares in a time that depends on what was given alone: it doesn't end at the first byte that differs.
fn same(given: &[u8], token: &[u8]) -> bool {
    let mut differing = 0;
    for (at, byte) in given.iter().enumerate() {
        differing |= byte ^ token.get(at).unwrap_or(&!byte);
    }
    given.len() == token.len() && std::hint::black_box(differing) == 0
}
