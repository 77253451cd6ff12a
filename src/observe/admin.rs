//! The admin address: health for supervisors, metrics for Prometheus. Its server has its own few threads, so it answers
//! while the rest is busy.

use super::metrics::{self, Format, Metrics};
use super::notify::Watched;
use super::recorder::{ConnectionState, Registry};
use super::status::Backlog;
use crate::clock;
use crate::http::{Limits, Method, Request, Response, Routes, Server, StatusCode, header};
use crate::ids::ShardIndex;
use crate::sync::Ordering;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A poller that did not poll for so long will not do so again: it polls at least every 100 ms.
const POLL_PAUSE_MS_MAX: i64 = 30_000;

/// A worker that gave no sign of life for so long waits for an answer that will not come: statements end after 30 s, and a
/// peer that is gone is noticed within as much. Connecting, waiting and trying again are signs of life.
const WORKER_PAUSE_MS_MAX: i64 = 180_000;

/// Requests are small and few; what a stranger can make us hold is small, too.
const LIMITS: Limits = Limits {
    connections_max: 64,
    head_bytes_max: 16 * 1024,
    body_bytes_max: 64 * 1024,
    head_deadline: Duration::from_secs(10),
    request_deadline: Duration::from_secs(10),
    idle_deadline: Duration::from_secs(60),
    write_deadline: Duration::from_secs(10),
};

/// Serves the routes at the address, from threads named `admin-…`.
///
/// # Errors
/// The address can't be listened on.
pub fn start(listen: SocketAddr, routes: Routes) -> io::Result<Server> {
    Server::start(listen, LIMITS, "admin", move |request| {
        routes.answer(&request)
    })
}

/// What a consumer shows: `/livez`, `/readyz`, `/metrics`.
pub fn consumer_routes(registry: &Arc<Registry>) -> Routes {
    let (for_livez, for_readyz) = (registry.clone(), registry.clone());
    let metrics = Metrics::new().with(metrics::Consumer(registry.clone()));
    Routes::new()
        .with(Method::GET, "/livez", move |_| {
            health(live(&for_livez, clock::running_ms()))
        })
        .with(Method::GET, "/readyz", move |_| health(ready(&for_readyz)))
        .with(Method::GET, "/metrics", move |request| {
            scrape(request, &metrics)
        })
}

/// The answer to a scrape, in the form that it asks for.
pub fn scrape(request: &Request, metrics: &Metrics) -> Response {
    crate::fault::panic_point("scrape");
    let accept = request.headers().get_all(header::ACCEPT).iter();
    let accept: Vec<&str> = accept.filter_map(|line| line.to_str().ok()).collect();
    let format = Format::wanted(&accept.join(","));
    Response::new(
        StatusCode::OK,
        format.content_type(),
        metrics.render(format),
    )
}

/// 200 `ok`, or 503 with the reason.
pub fn health(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => Response::text(StatusCode::OK, "ok"),
        Err(why) => Response::text(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

/// What a process manager is told of a consumer: the same.
pub fn consumer_watched(
    registry: &Arc<Registry>,
    stopping: impl Fn() -> bool + Send + 'static,
) -> Watched {
    let (for_ready, for_live, for_status) = (registry.clone(), registry.clone(), registry.clone());
    Watched {
        ready: Box::new(move || ready(&for_ready)),
        live: Box::new(move || live(&for_live, clock::running_ms())),
        stopping: Box::new(stopping),
        status: Box::new(move || Backlog::now(&for_status).to_string()),
    }
}

/// Whether a restart would not help. A poller that has not begun yet is waiting for Kafka, and a restart would only wait
/// again.
fn live(registry: &Registry, now_ms: i64) -> Result<(), String> {
    for (group, poller) in registry.pollers.iter().enumerate() {
        let polled_at_ms = poller.polled_at_ms.get();
        let pause_ms = now_ms - polled_at_ms;
        if polled_at_ms != 0 && pause_ms > POLL_PAUSE_MS_MAX {
            return Err(format!(
                "the poller of core group {group} has not polled Kafka for {} s; restart the process",
                pause_ms / 1000
            ));
        }
    }
    for worker in &registry.workers_on_duty() {
        let alive_at_ms = worker.alive_at_ms.get();
        let pause_ms = now_ms - alive_at_ms;
        if alive_at_ms != 0 && pause_ms > WORKER_PAUSE_MS_MAX {
            return Err(format!(
                "worker {} of core group {} has waited for shard {} for {} s, which its time limits rule out; restart \
                 the process",
                worker.lane,
                worker.group,
                registry.shard_names[worker.shard.0],
                pause_ms / 1000
            ));
        }
    }
    Ok(())
}

/// Whether every configured part is up.
pub(super) fn ready(registry: &Registry) -> Result<(), String> {
    if registry.ready.load(Ordering::Relaxed) {
        return Ok(());
    }
    let shards = (0..registry.shards.len()).map(ShardIndex);
    let mut reasons: Vec<String> = shards
        .filter_map(|shard| why_not_ready(registry, shard))
        .collect();
    let mut pollers = registry.pollers.iter();
    if pollers.all(|poller| poller.partitions.get() == 0) {
        reasons.push("no partition is assigned".to_owned());
    }
    if reasons.is_empty() {
        reasons.push("starting or stopping".to_owned());
    }
    Err(format!("not ready: {}", reasons.join("; ")))
}

/// What is wrong with a shard: it can't be written to, or not all its connections stand.
fn why_not_ready(registry: &Registry, shard: ShardIndex) -> Option<String> {
    let workers = registry.workers_on_duty();
    let (total, away) = workers.iter().filter(|worker| worker.shard == shard).fold(
        (0, 0),
        |(total, away), worker| {
            let is_away = worker.connection_state() == ConnectionState::Down;
            (total + 1, away + usize::from(is_away))
        },
    );
    let ShardIndex(index) = shard;
    let (state, name) = (&registry.shards[index], &registry.shard_names[index]);
    let why = state.why.lock();
    if state.down.load(Ordering::Relaxed) {
        Some(format!("shard {name}: {why}"))
    } else if away > 0 {
        let separator = if why.is_empty() { "" } else { ": " };
        Some(format!(
            "shard {name}: {away} of {total} connections are not up{separator}{why}"
        ))
    } else {
        None
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::super::recorder::WorkerRecorder;
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn registry() -> Arc<Registry> {
        let shards = vec![ShardIndex(0), ShardIndex(1)];
        Arc::new(Registry::new(
            2,
            shards,
            vec!["a".to_owned(), "b".to_owned()],
        ))
    }

    /// The whole answer to a request without a body.
    pub fn ask(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        write!(
            stream,
            "{request} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_poller_that_stopped_polling_makes_livez_fail_and_names_its_group() {
        let registry = registry();
        assert_eq!(live(&registry, 1_000_000), Ok(()));
        registry.pollers[0].polled_at_ms.set(970_000);
        registry.pollers[1].polled_at_ms.set(969_000);
        let why = live(&registry, 1_000_000).unwrap_err();
        assert_eq!(
            why,
            "the poller of core group 1 has not polled Kafka for 31 s; restart the process"
        );
        registry.pollers[1].polled_at_ms.set(999_990);
        assert_eq!(live(&registry, 1_000_000), Ok(()));
    }

    #[test]
    fn a_worker_without_a_sign_of_life_makes_livez_fail_and_names_its_shard() {
        let registry = registry();
        let worker = Arc::new(WorkerRecorder::new(0, ShardIndex(1), 3));
        registry.workers.lock().push(worker.clone());
        assert_eq!(live(&registry, 1_000_000), Ok(()), "it has not begun");
        worker.alive_at_ms.set(1_300_000);
        assert_eq!(live(&registry, 1_400_000), Ok(()), "it waits on purpose");
        assert_eq!(
            live(&registry, 1_481_000).unwrap_err(),
            "worker 3 of core group 0 has waited for shard b for 181 s, which its time limits rule out; restart the process"
        );
    }

    #[test]
    fn readyz_says_what_is_missing() {
        let registry = registry();
        registry.shards[1].down.store(true, Ordering::Relaxed);
        "no such table".clone_into(&mut registry.shards[1].why.lock());
        assert_eq!(
            ready(&registry).unwrap_err(),
            "not ready: shard b: no such table; no partition is assigned"
        );
        registry.ready.store(true, Ordering::Relaxed);
        assert_eq!(ready(&registry), Ok(()));
    }

    #[test]
    fn the_address_answers_health_metrics_and_strays() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = start(loopback, consumer_routes(&registry())).unwrap();
        assert!(ask(&server, "GET /livez").ends_with("\r\n\r\nok\n"));
        assert!(ask(&server, "HEAD /livez").ends_with("\r\n\r\n"));
        assert!(ask(&server, "GET /readyz").starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        let metrics = ask(&server, "GET /metrics");
        assert!(metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
        assert!(metrics.contains("\n# TYPE millpond_commits_total counter\n"));
        let accept = "GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;version=1.0.0\r\nx-rest:";
        let metrics = ask(&server, accept);
        assert!(metrics.contains(
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"
        ));
        assert!(metrics.ends_with("# EOF\n"));
        let stray = ask(&server, "GET /metric");
        assert!(stray.starts_with("HTTP/1.1 404 Not Found\r\n"));
        assert!(stray.ends_with("no /metric here; there is /livez /readyz /metrics\n"));
        let wrong = ask(&server, "POST /metrics");
        assert!(wrong.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
        assert!(wrong.contains("allow: GET, HEAD\r\n"));
        assert_eq!(server.stop(Duration::from_secs(5)), 0);
    }
}
