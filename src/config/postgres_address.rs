//! Postgres connection strings, in libpq's keyword and URL forms. The driver parses them, but for what it doesn't know
//! or means otherwise than libpq: the TLS keywords and `tcp_user_timeout` are taken out before and set after.

use super::checked::{PostgresAddress, PostgresTls};
use postgres::config::{Host, SslMode};
use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A server that does not answer is given up, so that a lane can say that its shard is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What was sent and not acknowledged in this time breaks the connection; a cut cable would hold a lane for 15 minutes.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
/// A lane that waits for an answer sends nothing, so only keepalives find out that the server is gone.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVES_RETRIES: u32 = 3;

/// Keywords that are not passed on to the driver.
const TAKEN_OUT: [&str; 3] = ["sslmode", "sslrootcert", "tcp_user_timeout"];

/// Takes a connection string apart. `Err` says what is wrong and what is allowed, and holds no part of a password.
pub fn parse(text: &str) -> Result<PostgresAddress, String> {
    let options = Options::split(text)?;
    let mut driver = postgres::Config::from_str(&options.rest).map_err(|error| {
        let cause = error
            .source()
            .map_or(error.to_string(), |cause| cause.to_string());
        match names_only_words(&cause) {
            true => format!("which is no connection string that the driver knows: {cause}"),
            false => "which is no connection string that the driver knows; allowed is host=… dbname=… user=…, or postgres://…".into(),
        }
    })?;
    if driver.get_hosts().is_empty() && driver.get_hostaddrs().is_empty() {
        return Err(
            "which has no host; add host=ADDRESS, or host=/DIRECTORY for a unix socket".into(),
        );
    }
    let tls = tls(&options, is_local(&driver))?;
    driver.ssl_mode(match tls {
        PostgresTls::Disable => SslMode::Disable,
        _ => SslMode::Require,
    });
    set_timeouts(&mut driver, &options)?;
    let shown = shown(&driver);
    Ok(PostgresAddress {
        driver,
        tls,
        shown,
        password_file: None,
    })
}

/// Whether all that a message quotes are words as options are called. Where a connection string is mistyped, anything may pass for
/// an option's name, the password too.
fn names_only_words(message: &str) -> bool {
    let mut quoted = message.split('`').skip(1).step_by(2);
    quoted.all(is_word)
}

fn is_word(text: &str) -> bool {
    let of_word = |c: char| c.is_ascii_lowercase() || c == '_';
    !text.is_empty() && text.chars().all(of_word)
}

/// The connection string as it may be shown.
pub(super) fn without_password(text: &str) -> String {
    match parse(text) {
        Ok(address) if address.driver.get_password().is_none() => text.to_owned(),
        Ok(address) => format!("{} (with a password, hidden)", address.shown),
        Err(_) => "(hidden)".to_owned(),
    }
}

/// Whether all hosts are this machine, so that nobody can listen in between.
fn is_local(driver: &postgres::Config) -> bool {
    let loopback_host = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
    };
    if driver.get_hostaddrs().is_empty() {
        driver.get_hosts().iter().all(loopback_host)
    } else {
        driver.get_hostaddrs().iter().all(IpAddr::is_loopback)
    }
}

fn tls(options: &Options, local: bool) -> Result<PostgresTls, String> {
    const ALLOWED: &str = "allowed are disable, require, verify-ca and verify-full";
    let root = match options.value("sslrootcert") {
        None | Some("system") => None,
        Some(path) if PathBuf::from(path).is_file() => Some(PathBuf::from(path)),
        Some(path) if path.contains('=') => return Err("whose sslrootcert names no file".into()),
        Some(path) => return Err(format!("whose sslrootcert names no file: {path}")),
    };
    let mode = options.value("sslmode");
    if options.value("sslrootcert").is_some() && !matches!(mode, Some("verify-ca" | "verify-full"))
    {
        return Err(
            "whose sslrootcert would not be used; add sslmode=verify-full (or verify-ca)".into(),
        );
    }
    match mode {
        None if local => Ok(PostgresTls::Disable),
        None | Some("require") => Ok(PostgresTls::Require),
        Some("disable") => Ok(PostgresTls::Disable),
        Some("verify-ca") => Ok(PostgresTls::VerifyCa(root)),
        Some("verify-full") => Ok(PostgresTls::VerifyFull(root)),
        Some(mode @ ("prefer" | "allow")) => Err(format!(
            "whose sslmode={mode} turns to plain text, silently, when anyone on the way refuses TLS; \
             {ALLOWED}"
        )),
        Some(mode) if is_word(mode) => Err(format!("whose sslmode is {mode}; {ALLOWED}")),
        Some(_) => Err(format!("whose sslmode is no word; {ALLOWED}")),
    }
}

fn set_timeouts(driver: &mut postgres::Config, options: &Options) -> Result<(), String> {
    let absent = |name: &str| options.value(name).is_none();
    if absent("connect_timeout") {
        driver.connect_timeout(CONNECT_TIMEOUT);
    }
    // The driver counts seconds here, libpq milliseconds.
    driver.tcp_user_timeout(match options.value("tcp_user_timeout") {
        None => TCP_USER_TIMEOUT,
        Some(text) => Duration::from_millis(
            text.parse()
                .map_err(|_| "whose tcp_user_timeout is no number of milliseconds".to_owned())?,
        ),
    });
    if absent("keepalives_idle") {
        driver.keepalives_idle(KEEPALIVES_IDLE);
    }
    if absent("keepalives_interval") {
        driver.keepalives_interval(KEEPALIVES_INTERVAL);
    }
    if absent("keepalives_retries") {
        driver.keepalives_retries(KEEPALIVES_RETRIES);
    }
    Ok(())
}

/// `host:port/dbname`, several hosts separated by commas.
fn shown(driver: &postgres::Config) -> String {
    let mut hosts: Vec<String> = driver
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(directory) => directory.display().to_string(),
        })
        .collect();
    if hosts.is_empty() {
        hosts.extend(driver.get_hostaddrs().iter().map(IpAddr::to_string));
    }
    let ports = driver.get_ports();
    let hosts: Vec<String> = hosts
        .iter()
        .enumerate()
        .map(|(index, host)| {
            let port = ports.get(index).or(ports.first()).unwrap_or(&5432);
            format!("{host}:{port}")
        })
        .collect();
    let database = driver.get_dbname().or(driver.get_user()).unwrap_or("");
    format!("{}/{database}", hosts.join(","))
}

/// A connection string's options, and what is left of it for the driver.
struct Options {
    given: Vec<(String, String)>,
    rest: String,
}

impl Options {
    fn split(text: &str) -> Result<Self, String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Ok(Self::split_url(text))
        } else {
            Self::split_keywords(text)
        }
    }

    /// The last one counts, as in libpq.
    fn value(&self, name: &str) -> Option<&str> {
        let given = self.given.iter().rev().find(|(given, _)| given == name);
        given.map(|(_, value)| value.as_str())
    }

    /// `scheme://user:password@host:port/dbname?name=value&name=value`; a `?` before the `@` is of the password.
    fn split_url(text: &str) -> Self {
        let credentials_end = text.find('@').unwrap_or(0);
        let Some(question) = text[credentials_end..].find('?') else {
            return Self {
                given: Vec::new(),
                rest: text.to_owned(),
            };
        };
        let (address, query) = text.split_at(credentials_end + question);
        let mut given = Vec::new();
        let mut rest = Vec::new();
        for pair in query[1..].split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            given.push((percent_decoded(name), percent_decoded(value)));
            if !TAKEN_OUT.contains(&name) {
                rest.push(pair);
            }
        }
        let separator = if rest.is_empty() { "" } else { "?" };
        Self {
            given,
            rest: format!("{address}{separator}{}", rest.join("&")),
        }
    }

    /// `name=value name='a value'`, with backslashes before `'` and `\`.
    fn split_keywords(text: &str) -> Result<Self, String> {
        let mut given = Vec::new();
        let mut rest = String::new();
        let mut remaining = text.trim_start();
        while !remaining.is_empty() {
            let (name, after) = remaining.split_once('=').ok_or(
                "which is no connection string; allowed is host=… dbname=… user=…, or postgres://…",
            )?;
            let is_apart = after.starts_with(char::is_whitespace);
            let (value, after) = keyword_value(after.trim_start())?;
            let name = name.trim_end();
            // The driver would end here, and leave out all that follows.
            if name.is_empty() {
                return Err("which has a = without a name before it".to_owned());
            }
            // `host= password=x` would be a host of that name, to libpq too, and be shown as one.
            if is_apart && value.contains('=') {
                let shown = if is_word(name) { name } else { "an option" };
                return Err(format!(
                    "where {shown} has no value; give it one, or leave it out"
                ));
            }
            if !TAKEN_OUT.contains(&name) {
                let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
                rest.push_str(&format!("{name}='{escaped}' "));
            }
            given.push((name.to_owned(), value));
            remaining = after.trim_start();
        }
        Ok(Self { given, rest })
    }
}

/// The value that the text begins with, and what follows it.
fn keyword_value(text: &str) -> Result<(String, &str), String> {
    let quoted = text.strip_prefix('\'');
    let mut value = String::new();
    let mut characters = quoted.unwrap_or(text).char_indices();
    while let Some((index, character)) = characters.next() {
        let end = match quoted {
            Some(_) => character == '\'',
            None => character.is_whitespace(),
        };
        if end {
            let after = &quoted.unwrap_or(text)[index..];
            return Ok((value, after.strip_prefix('\'').unwrap_or(after)));
        }
        if character == '\\' {
            value.extend(characters.next().map(|(_, escaped)| escaped));
        } else {
            value.push(character);
        }
    }
    match quoted {
        Some(_) => Err("which has a ' that is never closed".to_owned()),
        None => Ok((value, "")),
    }
}

/// Leaves alone what is no escape, as the driver does.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let escape = text
            .get(index + 1..index + 3)
            .filter(|_| bytes[index] == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(escape.unwrap_or(bytes[index]));
        index += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn tls_of(text: &str) -> PostgresTls {
        parse(text).unwrap().tls
    }

    #[test]
    fn the_keyword_form_is_parsed_with_quotes_and_escapes() {
        let address = parse(r"host=db.example port=5433 dbname='my db' user=o\'neil password='a\\b c' sslmode=require")
            .unwrap();
        assert_eq!(address.shown, "db.example:5433/my db");
        assert_eq!(address.driver.get_user(), Some("o'neil"));
        assert_eq!(address.driver.get_password(), Some(br"a\b c".as_slice()));
        assert_eq!(address.tls, PostgresTls::Require);
    }

    #[test]
    fn the_url_form_is_parsed_and_keeps_what_is_the_drivers() {
        let address = parse(
            "postgres://me:p%40ss?@db.example:5433/rows?sslmode=disable&connect_timeout=7\
                   &target_session_attrs=read-write",
        )
        .unwrap();
        assert_eq!(address.shown, "db.example:5433/rows");
        assert_eq!(address.driver.get_password(), Some(b"p@ss?".as_slice()));
        assert_eq!(address.tls, PostgresTls::Disable);
        assert_eq!(
            address.driver.get_connect_timeout(),
            Some(&Duration::from_secs(7))
        );
        assert_eq!(
            address.driver.get_target_session_attrs(),
            postgres::config::TargetSessionAttrs::ReadWrite
        );
    }

    #[test]
    fn without_sslmode_only_this_machine_is_spoken_to_in_plain_text() {
        for local in [
            "host=localhost",
            "host=127.0.0.1",
            "host=::1",
            "host=/run/postgresql",
            "host=db hostaddr=127.0.0.1",
            "postgres:///rows?host=/run/postgresql",
        ] {
            assert_eq!(tls_of(local), PostgresTls::Disable, "{local}");
        }
        for remote in [
            "host=db.example",
            "host=10.0.0.1",
            "host=localhost,db.example",
            "host=localhost hostaddr=10.0.0.1",
            "postgres://db.example/rows",
        ] {
            let address = parse(remote).unwrap();
            assert_eq!(address.tls, PostgresTls::Require, "{remote}");
            assert_eq!(address.driver.get_ssl_mode(), SslMode::Require, "{remote}");
        }
    }

    #[test]
    fn verify_full_believes_the_given_root() {
        let root = tempfile::NamedTempFile::new().unwrap();
        let path = root.path().to_str().unwrap();
        let expected = PostgresTls::VerifyFull(Some(root.path().to_owned()));
        let keywords = format!("host=db sslmode=verify-full sslrootcert='{path}'");
        assert_eq!(tls_of(&keywords), expected);
        let escaped = path.replace('/', "%2F");
        let url = format!("postgres://db/rows?sslmode=verify-full&sslrootcert={escaped}");
        assert_eq!(tls_of(&url), expected);
        assert_eq!(
            tls_of("host=db sslmode=verify-ca"),
            PostgresTls::VerifyCa(None)
        );
    }

    #[test]
    fn a_string_that_would_mislead_is_refused_with_the_reason() {
        for (text, reason) in [
            ("host=db sslmode=prefer", "turns to plain text"),
            ("host=db sslmode=allow", "turns to plain text"),
            ("host=db sslmode=full", "allowed are disable, require"),
            ("host=db sslrootcert=system", "would not be used"),
            (
                "host=db sslmode=verify-ca sslrootcert=/no/such",
                "names no file",
            ),
            ("host=db sslcert=/x", "unknown option `sslcert`"),
            ("host=db port=x", "invalid value for option `port`"),
            ("host=db tcp_user_timeout=x", "tcp_user_timeout"),
            ("dbname=rows", "has no host"),
            ("db.example", "is no connection string"),
            ("host=db password='x", "never closed"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_mistyped_string_does_not_show_its_password() {
        for text in [
            "postgre://u:hunter2@db/rows?sslmode=require",
            "host=db user=u password=my hunter2 dbname=rows",
            "host=db sslmode= password=hunter2",
            "host= password=hunter2",
            "host=db =5432 password=hunter2",
            "host=db sslrootcert= password=hunter2 sslmode=verify-ca",
            "postgres://u@db/rows?sslmode=requirepassword=hunter2",
            "postgres://u@db/rows?sslmode=verify-ca&sslrootcert=/x password=hunter2",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn a_dead_server_is_noticed_unless_told_otherwise() {
        let address = parse("host=localhost").unwrap();
        assert_eq!(address.driver.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
        assert_eq!(
            address.driver.get_tcp_user_timeout(),
            Some(&TCP_USER_TIMEOUT)
        );
        assert_eq!(address.driver.get_keepalives_idle(), KEEPALIVES_IDLE);
        let address =
            parse("host=localhost tcp_user_timeout=2500 keepalives_idle=60 application_name=mine")
                .unwrap();
        assert_eq!(
            address.driver.get_tcp_user_timeout(),
            Some(&Duration::from_millis(2500))
        );
        assert_eq!(
            address.driver.get_keepalives_idle(),
            Duration::from_secs(60)
        );
        assert_eq!(address.driver.get_application_name(), Some("mine"));
    }
}
