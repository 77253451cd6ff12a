//! What `assets` prints, given to the tools that it is for: promtool, Prometheus, systemd-analyze, bash.

use crate::child::Process;
use crate::ingest::edge::{Edge, SOON};
use crate::pond::{Pond, Shape, free_port};
use crate::reading;
use crate::workers::running;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn asset(arguments: &[&str]) -> String {
    let ended = Process::start_bare(&[&["assets"], arguments].concat(), &[]).wait(SOON);
    assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
    ended.stdout
}

/// Runs a tool that must be content, and say nothing against what it read.
fn content(tool: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(tool);
    command.args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|why| panic!("{tool}: {why}; run tests/install"));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{tool} {arguments:?}: {said}");
    output
}

#[test]
fn rules_their_tests_units_and_completions_are_what_their_tools_want() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rules = write("alerts.yml", &asset(&["alerts"]));
    content("promtool", &["check", "rules", &rules], "");
    let tests = asset(&["alert-tests"]);
    for alert in asset(&["alerts"]).lines() {
        if let Some(name) = alert.trim().strip_prefix("- alert: ") {
            let of_it = tests.matches(&format!("alertname: {name}\n")).count();
            assert!(
                of_it >= 2,
                "{name} needs a test that it fires, and one that it doesn't"
            );
        }
    }
    let tests = write("alert-tests.yml", &tests);
    content("promtool", &["test", "rules", &tests], "");

    for (of, command) in [("run", "run"), ("ingest", "ingest")] {
        let unit = asset(&["systemd", of]);
        let installed = format!("ExecStart=/usr/local/bin/millpond {command} ");
        assert!(unit.contains(&installed), "{unit}");
        let unit = unit.replace("/usr/local/bin/millpond", env!("CARGO_BIN_EXE_millpond"));
        let unit = write(&format!("millpond-{of}.service"), &unit);
        // It only warns of what it doesn't know.
        let output = content("systemd-analyze", &["verify", &unit], "");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
    let script = asset(&["completions", "bash"]) + "\ncomplete -p millpond\n";
    content("bash", &["-eu"], &script);
    assert!(asset(&["man", "run"]).contains("until\\-caught\\-up"));
}

/// A Prometheus that scrapes a consumer and an edge each second, and evaluates the alerts. Killed when dropped.
struct Prometheus {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(targets: &[u16], flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [alerts.yml]\n\
                          scrape_configs:\n  - job_name: millpond\n    static_configs:\n      - targets:\n"
            .to_owned();
        for port in targets {
            writeln!(config, "          - 127.0.0.1:{port}").unwrap();
        }
        let file = |name: &str| directory.path().join(name);
        std::fs::write(file("prometheus.yml"), config).unwrap();
        std::fs::write(file("alerts.yml"), asset(&["alerts"])).unwrap();
        let log = std::fs::File::create(file("log")).unwrap();
        let port = free_port();
        let argument = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let child = Command::new("prometheus")
            .arg(argument("config.file", &file("prometheus.yml")))
            .arg(argument("storage.tsdb.path", &file("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts; run tests/install");
        Self {
            child,
            port,
            _directory: directory,
        }
    }

    /// An answer of its API; `Err` with what it said, also while it is starting.
    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let url = format!("http://127.0.0.1:{}/api/v1/{path}", self.port);
        let request = ureq::get(&url).query_pairs(parameters.iter().copied());
        let request = request.config().http_status_as_error(false).build();
        let mut answer = request.call().map_err(|error| error.to_string())?;
        let text = answer.body_mut().read_to_string();
        let text = text.map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|_| text.clone())?;
        match answer["status"] == "success" {
            true => Ok(answer["data"].take()),
            false => Err(text),
        }
    }

    /// The values of a query that are numbers.
    fn values(&self, query: &str) -> Result<Vec<f64>, String> {
        let data = self.ask("query", &[("query", query)])?;
        let series = data["result"].as_array().unwrap();
        let values = series.iter().filter_map(|one| one["value"][1].as_str());
        let values = values.map(|text| text.parse().unwrap());
        Ok(values.filter(|value: &f64| value.is_finite()).collect())
    }

    fn one(&self, query: &str) -> f64 {
        let values = self.values(query).unwrap();
        assert_eq!(values.len(), 1, "{query}: {values:?}");
        values[0]
    }
}

/// Every query of the dashboard with its panel, as Grafana would send it.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut all = vec![];
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array();
        for target in targets.into_iter().flatten() {
            let mut query = target["expr"].as_str().unwrap().to_owned();
            for (variable, value) in [
                ("$__rate_interval", "5s"),
                ("$__range", "1m"),
                ("$job", ".*"),
                ("$instance", ".*"),
                ("$shard", ".*"),
            ] {
                query = query.replace(variable, value);
            }
            assert!(!query.contains('$'), "{query}");
            all.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    all
}

/// Waits until every query has data.
fn wait_for_data(prometheus: &Prometheus, mut missing: Vec<(String, String)>) {
    let deadline = Instant::now() + SOON;
    while !missing.is_empty() {
        assert!(Instant::now() < deadline, "no data for {missing:#?}");
        std::thread::sleep(Duration::from_millis(500));
        missing.retain(|(_, query)| {
            !prometheus
                .values(query)
                .is_ok_and(|found| !found.is_empty())
        });
    }
}

fn assert_alerts_evaluate(prometheus: &Prometheus) {
    let groups = prometheus.ask("rules", &[]).unwrap();
    let rules = groups["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 10, "{groups}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let firing = prometheus.ask("alerts", &[]).unwrap();
    let firing = firing["alerts"].as_array().unwrap();
    let mut firing = firing.iter().filter(|alert| alert["state"] == "firing");
    assert_eq!(firing.next(), None, "nothing is wrong here");
}

/// Native and classic histograms are of the same values.
fn assert_native(native: &Prometheus, classic: &Prometheus) {
    for name in ["millpond_apply_seconds", "millpond_ingest_answer_seconds"] {
        let p99 =
            |of: &Prometheus, series: &str| of.one(&format!("histogram_quantile(0.99, {series})"));
        let by_buckets = p99(classic, &format!("sum by (le) ({name}_bucket)"));
        let by_native = p99(native, name);
        println!("{name}: p99 {by_buckets} by classic buckets, {by_native} by native ones");
        // A classic bucket is 2.5 times as wide as the one before, at most.
        assert!((0.3..3.0).contains(&(by_native / by_buckets)), "{name}");
        let counts = (
            native.one(&format!("histogram_count({name})")),
            classic.one(&format!("{name}_count")),
        );
        assert_eq!(counts.0, counts.1, "{name}");
    }
    let rows =
        native.one("histogram_sum(millpond_batch_rows) / histogram_count(millpond_batch_rows)");
    assert!(rows >= 1.0, "{rows}");
}

#[test]
fn a_real_prometheus_has_data_for_every_panel_and_evaluates_every_alert() {
    let pond = Pond::new("assets", &Shape::default());
    pond.reconfigure("workers = 2", "workers = 2\nwrite_rate_max = 5000");
    let consumer = running(&pond, &[]);
    let edge = Edge::start(&pond, &[]);
    for port in [pond.admin_port, edge.admin.port()] {
        let (_, page) = reading::ask(port, "/metrics").unwrap();
        let output = content("promtool", &["check", "metrics"], &page);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{page}");
    }
    let targets = [pond.admin_port, edge.admin.port()];
    let classic = Prometheus::start(&targets, &[]);
    let native = Prometheus::start(&targets, &["--enable-feature=native-histograms"]);
    let url = format!("http://{}", edge.address);
    let load = ["load", "--scenario", "zipf", "--http", &url];
    let load = pond.start(
        &[&load[..], &["--messages", "60000", "--rate", "1000"]].concat(),
        &[],
    );

    let dashboard: Value = serde_json::from_str(&asset(&["grafana"])).unwrap();
    assert_eq!(
        (&dashboard["uid"], &dashboard["id"]),
        (&"millpond".into(), &Value::Null)
    );
    let queries = queries(&dashboard);
    println!("{} queries", queries.len());
    assert!(queries.len() > 40);
    let began = Instant::now();
    wait_for_data(&classic, queries.clone());
    println!("all have data after {:?}", began.elapsed());
    // Native histograms come without classic buckets, which only the heat map needs.
    let of_buckets = |(_, query): &(String, String)| query.starts_with("sum by (le)");
    wait_for_data(
        &native,
        queries
            .into_iter()
            .filter(|query| !of_buckets(query))
            .collect(),
    );
    for (name, selector, values) in [
        ("job", "millpond_build_info", 1),
        ("instance", "millpond_build_info", 2),
        ("shard", "millpond_shard_up", 2),
    ] {
        let path = format!("label/{name}/values");
        let found = classic.ask(&path, &[("match[]", selector)]).unwrap();
        assert_eq!(found.as_array().unwrap().len(), values, "{found}");
    }
    load.kill();
    pond.wait_for("everything is scraped", SOON, |pond| {
        let applied = pond.metric("millpond_apply_seconds_count");
        let scraped = |of: &Prometheus, query: &str| of.values(query).ok()?.first().copied();
        pond.metric("millpond_lag_messages") == Some(0.0)
            && applied == scraped(&classic, "millpond_apply_seconds_count")
            && applied == scraped(&native, "histogram_count(millpond_apply_seconds)")
    });
    // And once more, so that the edge's last answers are in both, too.
    std::thread::sleep(Duration::from_millis(2500));
    assert_native(&native, &classic);
    assert_alerts_evaluate(&classic);
    assert_alerts_evaluate(&native);
    edge.stop();
    assert!(consumer.terminate(SOON).status.success());
}
