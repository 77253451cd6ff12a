//! The status page: what who is woken at night needs, on one page without anything from elsewhere.
//!
//! - [`document`]: the shape of `/api/status`
//! - [`board`]: where samples are left, and what the configuration says
//! - [`sampler`]: counters become rates and history; [`latency`]: distributions become curves
//! - [`reading`]: from all of these to the document
//! - [`findings`]: the plain sentences on top
//! - [`peers`]: the group's other processes
//!
//! The page itself is put together at the start from `page.html`, `page.css` and the scripts, in the order of [`SCRIPTS`]. It may
//! run that script and nothing else, and speak with nobody but the process that it came from.

pub mod board;
pub mod document;
pub mod findings;
mod latency;
pub mod peers;
pub mod reading;
pub mod sampler;
#[cfg(test)]
mod tests;

use super::Registry;
use super::admin;
use super::gate::Gate;
use crate::http::{Method, Request, Response, Routes, StatusCode, content_hash, header};
use crate::rules::Rules;
use document::{Document, Readiness};
use header::HeaderValue;
use peers::Peers;
use std::sync::Arc;

const HTML: &str = include_str!("page.html");
const CSS: &str = include_str!("page.css");
/// Each uses those before it.
const SCRIPTS: [&str; 6] = [
    include_str!("elements.js"),
    include_str!("charts.js"),
    include_str!("heat.js"),
    include_str!("tables.js"),
    include_str!("forms.js"),
    include_str!("page.js"),
];

/// With `/status`, `/api/status`, and `/` leading to the page. `peers` is owned by the returned routes.
#[must_use]
pub fn with_page(
    routes: Routes,
    registry: &Arc<Registry>,
    rules: &Arc<Rules>,
    gate: &Gate,
) -> Routes {
    let page = Page::new();
    let peers = Peers::new(&registry.page.about.peers);
    let (registry, rules, gate) = (registry.clone(), rules.clone(), gate.clone());
    routes
        .with(Method::GET, "/", |_| {
            let to = HeaderValue::from_static("/status");
            Response::text(StatusCode::FOUND, "see /status").with_header(header::LOCATION, to)
        })
        .with(Method::GET, "/status", move |_| page.answer())
        .with(Method::GET, "/api/status", move |request| {
            let mut document = document(&registry, &rules);
            document.changes = changes(&gate, request).to_owned();
            // A peer asks for this process alone.
            if request.query() != Some(peers::ALONE) {
                peers.join(&mut document);
            }
            Response::json(StatusCode::OK, &document).with_header(header::CACHE_CONTROL, NO_STORE)
        })
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// This process' own, with what is found in it.
pub fn document(registry: &Registry, rules: &Rules) -> Document {
    let readiness = match admin::ready(registry) {
        Ok(()) => Readiness {
            ready: true,
            why: String::new(),
        },
        Err(why) => Readiness {
            ready: false,
            why: match registry.page.waits_for() {
                waits_for if waits_for.is_empty() => why,
                waits_for => waits_for,
            },
        },
    };
    let mut document = reading::document(registry, readiness, &rules.table());
    document.findings = findings::findings(&document);
    document
}

/// What whoever asks may do about rules and workers.
fn changes(gate: &Gate, request: &Request) -> &'static str {
    if gate.admit(request).is_ok() {
        "open"
    } else if gate.has_token() {
        "token"
    } else {
        "here"
    }
}

/// The page as it is sent, with what it may do.
struct Page {
    html: String,
    policy: HeaderValue,
}

impl Page {
    fn new() -> Self {
        let script = SCRIPTS.concat();
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            content_hash(&script),
            content_hash(CSS),
        );
        Self {
            html: HTML
                .replace("/* page.css */", CSS)
                .replace("/* scripts */", &script),
            policy: HeaderValue::try_from(policy).expect("hashes are text"),
        }
    }

    fn answer(&self) -> Response {
        Response::new(
            StatusCode::OK,
            "text/html; charset=utf-8",
            self.html.clone(),
        )
        .with_header(header::CONTENT_SECURITY_POLICY, self.policy.clone())
        .with_header(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        )
        .with_header(
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        )
        .with_header(header::CACHE_CONTROL, NO_STORE)
    }
}
