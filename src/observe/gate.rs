//! Who may change something over the admin address: whoever has the token. Without a configured token, whoever is on this
//! machine.

use crate::config::checked::Secret;
use crate::http::{Request, Response, StatusCode, has_bearer_token, header};
use std::net::IpAddr;

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

    /// Whether a token opens it.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether the request may change something; else the answer that says why not.
    ///
    /// # Errors
    /// 401 without the right token, 403 where no token could help.
    pub fn admit(&self, request: &Request) -> Result<(), Response> {
        if let Err(why) = own_page(request) {
            return refused(StatusCode::FORBIDDEN, why);
        }
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

/// A browser says whose page asks. Any page that somebody on this machine looks at could ask for changes, so it has to be ours:
/// the origin's host is the one that was asked. And where no token is needed that has to be an address or `localhost`, since
/// whoever owns a name can let it point here.
fn own_page(request: &Request) -> Result<(), &'static str> {
    let Some(origin) = request.headers().get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default();
    let origin = origin.split_once("://").map_or(origin, |(_, host)| host);
    let asked = request.headers().get(header::HOST);
    if asked.and_then(|host| host.to_str().ok()) != Some(origin) {
        return Err("changes are not taken from pages of other sites");
    }
    let is_token = request.headers().contains_key(header::AUTHORIZATION);
    let name =
        origin.rsplit_once(':').map_or(
            origin,
            |(name, port)| {
                if port.ends_with(']') { origin } else { name }
            },
        );
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    match is_token || name == "localhost" || bare.parse::<IpAddr>().is_ok() {
        true => Ok(()),
        false => Err(
            "without a token changes are taken from pages at an address or localhost only; open it as http://127.0.0.1:… or set \
             admin.token",
        ),
    }
}

fn refused(status: StatusCode, why: &str) -> Result<(), Response> {
    Err(Response::text(status, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(token: Option<&str>, headers: &[(&str, &str)]) -> u16 {
        let gate = Gate::new(token.map(|token| Secret(token.to_owned())));
        let request = Request::for_tests("POST", "/api/rules", headers, "");
        gate.admit(&request)
            .map_or_else(|refused| refused.status().as_u16(), |()| 200)
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let from = |origin, host| status(None, &[("origin", origin), ("host", host)]);
        assert_eq!(
            status(None, &[("host", "127.0.0.1:9464")]),
            200,
            "no browser"
        );
        assert_eq!(from("http://127.0.0.1:9464", "127.0.0.1:9464"), 200);
        assert_eq!(from("http://localhost:9464", "localhost:9464"), 200);
        assert_eq!(from("http://localhost", "localhost"), 200);
        assert_eq!(from("http://[::1]:9464", "[::1]:9464"), 200);
        assert_eq!(from("http://evil.example", "127.0.0.1:9464"), 403);
        assert_eq!(from("http://127.0.0.1:8000", "127.0.0.1:9464"), 403);
        assert_eq!(from("null", "127.0.0.1:9464"), 403);
        // A name that its owner lets point to this machine.
        assert_eq!(from("http://evil.example:9464", "evil.example:9464"), 403);
    }

    #[test]
    fn with_a_token_the_page_may_have_any_name() {
        let named = [("origin", "http://box:9464"), ("host", "box:9464")];
        let with = |token: &'static str| [named[0], named[1], ("authorization", token)];
        assert_eq!(status(Some("secret"), &with("Bearer secret")), 200);
        assert_eq!(status(Some("secret"), &with("Bearer other")), 401);
        let other_site = [
            ("origin", "http://evil.example"),
            ("host", "box:9464"),
            ("authorization", "Bearer secret"),
        ];
        assert_eq!(status(Some("secret"), &other_site), 403);
    }
}
