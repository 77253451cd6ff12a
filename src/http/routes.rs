//! Exact paths, each with its handler. An unknown path is answered with the list of the known ones, a known path with
//! another method with what it allows.

use super::{Method, Request, Response, StatusCode, header};
use hyper::header::HeaderValue;

type Handler = Box<dyn Fn(&Request) -> Response + Send + Sync>;

struct Route {
    method: Method,
    path: &'static str,
    handler: Handler,
}

/// Paths and their handlers. HEAD is served wherever GET is.
#[derive(Default)]
pub struct Routes(Vec<Route>);

impl Routes {
    /// No path yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more method of a path, which starts with `/`.
    #[must_use]
    pub fn with(
        mut self,
        method: Method,
        path: &'static str,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        self.0.push(Route {
            method,
            path,
            handler: Box::new(handler),
        });
        self
    }

    /// Answers by path and method.
    pub fn answer(&self, request: &Request) -> Response {
        let of_path = || self.0.iter().filter(|route| route.path == request.path());
        if let Some(route) = of_path().find(|route| route.serves(request.method())) {
            return (route.handler)(request);
        }
        if of_path().next().is_none() {
            return self.not_found(request.path());
        }
        let allowed = of_path()
            .flat_map(Route::methods)
            .collect::<Vec<_>>()
            .join(", ");
        Response::text(
            StatusCode::METHOD_NOT_ALLOWED,
            format_args!("{} allows {allowed}", request.path()),
        )
        .with_header(
            header::ALLOW,
            HeaderValue::try_from(allowed).expect("methods are tokens"),
        )
    }

    fn not_found(&self, path: &str) -> Response {
        let mut known = self.0.iter().map(|route| route.path).collect::<Vec<_>>();
        known.dedup();
        Response::text(
            StatusCode::NOT_FOUND,
            format_args!("no {path} here; there is {}", known.join(" ")),
        )
    }
}

impl Route {
    fn serves(&self, method: &Method) -> bool {
        self.method == method || (self.method == Method::GET && method == Method::HEAD)
    }

    fn methods(&self) -> Vec<&str> {
        if self.method == Method::GET {
            vec!["GET", "HEAD"]
        } else {
            vec![self.method.as_str()]
        }
    }
}
