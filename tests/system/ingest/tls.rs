//! The edge encrypted, as curl sees it.

use super::edge::{APP, Edge, ROW, SOON, contents, launch, player, pond};
use super::http::{Gone, put};
use crate::pond::Pond;
use crate::services;
use serde_json::json;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The head's ten seconds, and two.
const HANDSHAKE_BY: Duration = Duration::from_secs(12);
const QUIET: Duration = Duration::from_secs(20);

/// What the services' own servers show; it holds for localhost.
fn file(name: &str) -> String {
    let file = services::directory().join("tls").join(name);
    file.display().to_string()
}

fn encrypted(pond: &Pond) -> Edge {
    let certificate = format!("ingest.tls_certificate_file={}", file("server.pem"));
    let key = format!("ingest.tls_key_file={}", file("server.key"));
    Edge::start(pond, &[&certificate, &key])
}

/// One curl, which asks so often on one connection.
fn curl(edge: &Edge, arguments: &[&str], times: usize) -> Output {
    let url = format!("https://localhost:{}{}", edge.address.port(), player(ROW));
    let body = json!({"app_id": APP, "counts": {"n": 1}}).to_string();
    let common = "-sS --max-time 20 -4 --noproxy * -X PUT -H Content-Type:application/json -w %{http_code}/%{num_connects}; -d";
    let mut command = Command::new("curl");
    command.args(common.split(' ')).arg(body).args(arguments);
    command.args(std::iter::repeat_n(&url, times));
    command.output().unwrap()
}

#[test]
fn curl_is_served_through_tls_and_nobody_without_it() {
    let pond = pond("tls");
    let edge = encrypted(&pond);
    let root = file("ca.pem");
    let output = curl(&edge, &["--cacert", &root], 3);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let success = r#"{"success":true}"#;
    assert_eq!(
        said,
        format!("{success}200/1;{success}200/0;{success}200/0;")
    );
    for version in [
        ["--tlsv1.2", "--tls-max", "1.2"],
        ["--tlsv1.3", "--tls-max", "1.3"],
    ] {
        let output = curl(&edge, &[&["--cacert", &root], &version[..]].concat(), 1);
        assert!(output.status.success(), "{version:?}: {output:?}");
    }
    // Whoever does not know the root, or is of another time, is not served; 60: not trusted.
    assert_eq!(curl(&edge, &[], 1).status.code(), Some(60));
    let old = curl(
        &edge,
        &["--cacert", &root, "--tlsv1.0", "--tls-max", "1.1"],
        1,
    );
    assert!(!old.status.success(), "{old:?}");
    // Plain text finds nobody, and doesn't have to wait for that.
    let mut client = edge.client();
    let asked = Instant::now();
    let _ = client.send(&put(&player(ROW), &json!({"app_id": APP}).to_string()));
    let (answers, gone) = client.rest(QUIET);
    assert!(
        answers.iter().all(|answer| answer.status == 400),
        "{answers:?}"
    );
    assert!(matches!(gone, Gone::Closed | Gone::Reset), "{gone:?}");
    println!("plain text: {gone:?} after {:.1?}", asked.elapsed());
    edge.stop();
    assert_eq!(contents(&pond).len(), 5);
}

/// A handshake is a part of the head's time.
#[test]
fn a_handshake_that_never_ends_has_a_deadline_and_a_stop_does_not_wait_for_it() {
    let pond = pond("handshake");
    let edge = encrypted(&pond);
    let mut silent = edge.client();
    let mut half = edge.client();
    half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        .unwrap();
    let began = Instant::now();
    let gone = half.answer().unwrap_err();
    println!("half a handshake: {gone:?} after {:.1?}", began.elapsed());
    assert!(matches!(gone, Gone::Closed | Gone::Reset), "{gone:?}");
    assert!(began.elapsed() < HANDSHAKE_BY, "{:?}", began.elapsed());
    let told = Instant::now();
    edge.stop();
    assert!(told.elapsed() < SOON / 10, "{:?}", told.elapsed());
    assert_ne!(silent.answer().unwrap_err(), Gone::Silent);
}

#[test]
fn files_that_are_no_certificate_and_key_are_named() {
    let pond = pond("tls-files");
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let nowhere = file("nowhere.pem");
    for (certificate, key, named) in [
        (nowhere.as_str(), key.as_str(), "nowhere.pem"),
        (&certificate, &nowhere, "nowhere.pem"),
        (&certificate, &certificate, "tls_key_file"),
        (&key, &key, "tls_certificate_file"),
        (&certificate, "", "tls_key_file"),
        (&file("ca.pem"), &key, "tls_key_file"),
    ] {
        let certificate = format!("ingest.tls_certificate_file={certificate}");
        let key = format!("ingest.tls_key_file={key}");
        let ended = launch(&pond, &[&certificate, &key]).wait(SOON);
        assert!(
            matches!(ended.status.code(), Some(1 | 2)),
            "{certificate} {key}"
        );
        assert!(ended.stderr.contains(named), "{named}: {}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}
