//! Who may change something over the admin address: whoever has the token. Without a configured token, whoever is on this
//! machine.

use crate::config::checked::Secret;
use crate::http::{Request, Response, StatusCode, has_bearer_token};

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
        match has_bearer_token(request, [token.as_str()]) {
            true => Ok(()),
            false => refused(
                StatusCode::UNAUTHORIZED,
                "a change needs the header `authorization: Bearer …` with admin.token",
            ),
        }
    }
}

fn refused(status: StatusCode, why: &str) -> Result<(), Response> {
    Err(Response::text(status, why))
}
