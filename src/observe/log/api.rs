//! `/api/log`: whose applied updates are logged without sampling. Each process has its own.

use super::applied::{Applied, Target, WATCH_DEFAULT, WATCH_MAX, WATCHED_MAX, Watched};
use crate::clock;
use crate::http::{Method, Request, Response, Routes, StatusCode};
use crate::ids::{AppId, SubscriptionId};
use crate::observe::Registry;
use crate::observe::gate::Gate;
use crate::sync::Ordering;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The path.
pub const PATH: &str = "/api/log";

/// What GET and DELETE answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Logged {
    /// One applied update in so many is logged; 0 for none.
    pub applied_sample: u64,
    /// What may be watched at a time.
    pub watched_max: usize,
    /// Of these all are.
    pub watched: Vec<Shown>,
}

/// Something watched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shown {
    /// The app.
    pub app_id: Option<String>,
    /// The subscription.
    pub subscription_id: Option<String>,
    /// Until when, RFC 3339.
    pub until: String,
    /// Lines so far.
    pub logged: u64,
}

/// What PUT takes. At least one of the ids.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// The subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription_id: Option<String>,
    /// For how long, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
}

/// With the path.
#[must_use]
pub fn with_log(routes: Routes, registry: &Arc<Registry>, gate: &Gate) -> Routes {
    let (to_list, to_watch, to_unwatch) = (registry.clone(), registry.clone(), registry.clone());
    let (may_watch, may_unwatch) = (gate.clone(), gate.clone());
    routes
        .with(Method::GET, PATH, move |_| {
            Response::json(StatusCode::OK, &list(&to_list.telemetry.applied))
        })
        .with(Method::PUT, PATH, move |request| {
            let admitted = may_watch.admit(request);
            answer(admitted.and_then(|()| watch(&to_watch.telemetry.applied, request)))
        })
        .with(Method::DELETE, PATH, move |request| {
            let admitted = may_unwatch.admit(request);
            answer(admitted.and_then(|()| unwatch(&to_unwatch.telemetry.applied, request)))
        })
}

fn answer(answer: Result<Response, Response>) -> Response {
    answer.unwrap_or_else(|refused| refused)
}

fn list(applied: &Applied) -> Logged {
    Logged {
        applied_sample: applied.every(),
        watched_max: WATCHED_MAX,
        watched: applied.watched().iter().map(Shown::of).collect(),
    }
}

fn watch(applied: &Applied, request: &Request) -> Result<Response, Response> {
    let asked: Asked = serde_json::from_slice(request.body())
        .map_err(|error| bad(format!("the body is not what to watch: {error}")))?;
    let target = target(asked.app_id.as_deref(), asked.subscription_id.as_deref()).map_err(bad)?;
    let during = during(asked.for_s).map_err(bad)?;
    let watched = applied.watch(target, during).map_err(|_| {
        let why = format!("{WATCHED_MAX} are watched already; end one first");
        Response::text(StatusCode::CONFLICT, why)
    })?;
    let shown = Shown::of(&watched);
    tracing::info!(
        app_id = shown.app_id,
        subscription_id = shown.subscription_id,
        until = shown.until,
        "all applied updates of it are logged from now on"
    );
    Ok(Response::json(StatusCode::OK, &shown))
}

/// How long to watch, or why not.
pub fn during(seconds: Option<u64>) -> Result<Duration, String> {
    let during = seconds.map_or(WATCH_DEFAULT, Duration::from_secs);
    match during.is_zero() || during > WATCH_MAX {
        false => Ok(during),
        true => Err(format!(
            "for_s is {}, allowed is 1 to {}",
            during.as_secs(),
            WATCH_MAX.as_secs()
        )),
    }
}

fn unwatch(applied: &Applied, request: &Request) -> Result<Response, Response> {
    let query = request.query().unwrap_or_default();
    // Ids have nothing that a query would escape.
    let id = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(own, _)| *own == name)
            .map(|(_, value)| value.to_owned())
    };
    let (app, subscription) = (id("app_id"), id("subscription_id"));
    let target = target(app.as_deref(), subscription.as_deref()).map_err(bad)?;
    match applied.unwatch(target) {
        true => Ok(Response::json(StatusCode::OK, &list(applied))),
        false => Err(Response::text(
            StatusCode::NOT_FOUND,
            "that is not watched; millpond log list (GET /api/log) says what is",
        )),
    }
}

/// Whose updates, or what is wrong with the ids.
pub fn target(app: Option<&str>, subscription: Option<&str>) -> Result<Target, String> {
    let no_uuid = |name: &str, text: &str| format!("{name} {text:?} is no UUID");
    let app = app.map(|text| AppId::parse(text.as_bytes()).ok_or_else(|| no_uuid("app_id", text)));
    let subscription = subscription.map(|text| {
        SubscriptionId::parse(text.as_bytes()).ok_or_else(|| no_uuid("subscription_id", text))
    });
    let target = Target {
        app: app.transpose()?,
        subscription: subscription.transpose()?,
    };
    match target {
        Target {
            app: None,
            subscription: None,
        } => Err("say whose updates: app_id, subscription_id or both".to_owned()),
        target => Ok(target),
    }
}

fn bad(why: String) -> Response {
    Response::text(StatusCode::BAD_REQUEST, why)
}

impl Shown {
    fn of(watched: &Watched) -> Self {
        let left = watched.until.saturating_duration_since(clock::now());
        let until = clock::timestamp() + left;
        Self {
            app_id: watched.target.app.map(|app| app.to_string()),
            subscription_id: watched.target.subscription.map(|id| id.to_string()),
            until: until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            logged: watched.logged.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";

    #[test]
    fn what_is_watched_has_an_id_and_an_end() {
        assert!(target(Some(APP), None).is_ok());
        assert!(target(None, Some(APP)).is_ok());
        assert_eq!(
            target(None, None),
            Err("say whose updates: app_id, subscription_id or both".to_owned())
        );
        assert_eq!(
            target(Some("x"), None),
            Err("app_id \"x\" is no UUID".to_owned())
        );
        assert_eq!(during(None), Ok(Duration::from_secs(600)));
        assert_eq!(during(Some(86_400)), Ok(WATCH_MAX));
        for bad in [0, 86_401] {
            assert!(during(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_list_shows_what_is_watched() {
        let applied = Applied::default();
        applied.set_every(1000);
        let target = target(Some(APP), None).expect("an app");
        applied.watch(target, WATCH_DEFAULT).expect("there is room");
        let shown = list(&applied);
        assert_eq!(shown.applied_sample, 1000);
        assert_eq!(shown.watched[0].app_id.as_deref(), Some(APP));
        assert_eq!(shown.watched[0].subscription_id, None);
    }
}
