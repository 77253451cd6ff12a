//! Opens a connection to one Postgres, with the encryption and the trust that its address asks for.
//!
//! The driver knows only "encrypted or not"; which certificate is believed is decided here, with libpq's meanings. It
//! waits for a dead peer as long as TCP does, which is hours, so limits are set where the address names none.

use crate::config::checked::{PostgresAddress, PostgresTls};
use openssl::{
    error::ErrorStack,
    ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVerifyMode},
};
use postgres::{NoTls, config::SslMode, error::SqlState};
use postgres_openssl::MakeTlsConnector;
use std::{
    error::Error,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

/// A blocking connection. Named here so that other rooms need not name the driver.
pub use postgres::Client;

/// How long one host may take to accept. Keeps a host that swallows packets from holding its lane for minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long sent bytes may stay unacknowledged. Keeps a cut cable from holding a statement for a quarter of an hour.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// What the driver has when the address says nothing.
const DRIVERS_KEEPALIVE_IDLE: Duration = Duration::from_secs(2 * 60 * 60);
/// Silence after which the peer is probed, and the time between probes. Finds a host that died while we wait for its
/// answer.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// Files that a connection opens: its socket, and what the driver's own runtime waits with.
pub const CONNECTION_FILES: usize = 6;

/// Where the systems keep their root certificates; OpenSSL is built in and does not know it.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there is no connection, by what the caller does next. No message holds a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Try again later: not reachable, starting, stopping or full.
    #[error("Postgres at {address} can't be reached: {reason}")]
    Away {
        /// `host:port/dbname`.
        address: String,
        /// What the driver or the server said.
        reason: String,
    },
    /// Stop until somebody changes something: the server knows us and says no.
    #[error(
        "Postgres at {address} refuses the connection: {reason}; check user, password and until when it is valid, database, and pg_hba.conf"
    )]
    Refused {
        /// `host:port/dbname`.
        address: String,
        /// What the server said.
        reason: String,
    },
    /// Try again later: the file with the password may be about to be replaced.
    #[error(
        "no password for Postgres at {address}: {file} can't be read: {reason}; check postgres_password_file"
    )]
    NoPassword {
        /// `host:port/dbname`.
        address: String,
        /// The file.
        file: String,
        /// What the system said.
        reason: String,
    },
    /// Stop until somebody changes something: encryption can't be agreed on, or the certificate is not believed.
    #[error(
        "no trusted connection to Postgres at {address}: {reason}; check sslmode, sslrootcert and the certificate"
    )]
    Untrusted {
        /// `host:port/dbname`.
        address: String,
        /// What OpenSSL or the server said.
        reason: String,
    },
}

/// Connects; returns when the server is ready for statements.
///
/// `application_name` is what `pg_stat_activity` shows, unless the address names another.
pub fn connect(address: &PostgresAddress, application_name: &str) -> Result<Client, ConnectError> {
    let mut driver = with_limits(&driver_now(address)?);
    if driver.get_application_name().is_none() {
        driver.application_name(application_name);
    }
    let tls = tls_connector(address)?;
    connect_by(address, || match address.tls {
        PostgresTls::Disable => driver.ssl_mode(SslMode::Disable).connect(NoTls),
        _ => driver.ssl_mode(SslMode::Require).connect(tls),
    })
}

/// Has the driver connect, if there is room for the files that it opens: without room it panics.
pub(super) fn connect_by(
    address: &PostgresAddress,
    connect: impl FnOnce() -> Result<Client, postgres::Error>,
) -> Result<Client, ConnectError> {
    let away = |reason: String| ConnectError::Away {
        address: address.shown.clone(),
        reason,
    };
    if let Err(error) = can_open(CONNECTION_FILES) {
        let limit = "raise the limit of open files (ulimit -n, LimitNOFILE)";
        return Err(away(format!("{error}; {limit}")));
    }
    // Another thread may have taken the room meanwhile.
    match catch_unwind(AssertUnwindSafe(connect)) {
        Ok(connected) => connected.map_err(|error| judge(address, &error)),
        Err(_) => Err(away("the driver panicked, see above".to_owned())),
    }
}

/// Whether so many files can be opened now, by opening them.
fn can_open(count: usize) -> std::io::Result<()> {
    let files = (0..count).map(|_| File::open("/dev/null"));
    files.collect::<std::io::Result<Vec<File>>>().map(drop)
}

/// What the driver needs, with the password as it is now.
pub(super) fn driver_now(address: &PostgresAddress) -> Result<postgres::Config, ConnectError> {
    address.driver_now().map_err(|error| {
        let file = address.password_file.as_deref().unwrap_or(Path::new(""));
        ConnectError::NoPassword {
            address: address.shown.clone(),
            file: file.display().to_string(),
            reason: error.to_string(),
        }
    })
}

/// What decides whose certificate is believed; for [`PostgresTls::Disable`] one that is never asked.
///
/// Fails only where root certificates can't be read.
pub fn tls_connector(address: &PostgresAddress) -> Result<MakeTlsConnector, ConnectError> {
    let untrusted = |reason: String| ConnectError::Untrusted {
        address: address.shown.clone(),
        reason,
    };
    let openssl = |error: ErrorStack| untrusted(error.to_string());

    let mut builder = SslConnector::builder(SslMethod::tls()).map_err(openssl)?;
    postgres_openssl::set_postgresql_alpn(&mut builder).map_err(openssl)?;
    let (verify_chain, verify_host) = match &address.tls {
        PostgresTls::Disable | PostgresTls::Require => (false, false),
        PostgresTls::VerifyCa(_) => (true, false),
        PostgresTls::VerifyFull(_) => (true, true),
    };
    match &address.tls {
        PostgresTls::VerifyCa(root) | PostgresTls::VerifyFull(root) => {
            trust(&mut builder, root.as_deref()).map_err(untrusted)?;
        }
        PostgresTls::Disable | PostgresTls::Require => {}
    }
    builder.set_verify(if verify_chain {
        SslVerifyMode::PEER
    } else {
        SslVerifyMode::NONE
    });

    let mut connector = MakeTlsConnector::new(builder.build());
    connector.set_callback(move |connection, _host| {
        connection.set_verify_hostname(verify_host);
        Ok(())
    });
    Ok(connector)
}

/// Believes the given root certificates, or the system's.
fn trust(builder: &mut SslConnectorBuilder, root: Option<&Path>) -> Result<(), String> {
    let file = match root {
        Some(file) => file.to_owned(),
        None => system_roots()
            .ok_or("no root certificates found on this system; name a file in sslrootcert")?,
    };
    builder.set_ca_file(&file).map_err(|error| {
        format!(
            "root certificates in {} not usable: {error}",
            file.display()
        )
    })
}

fn system_roots() -> Option<PathBuf> {
    SYSTEM_ROOTS
        .iter()
        .map(PathBuf::from)
        .find(|file| file.exists())
}

fn with_limits(driver: &postgres::Config) -> postgres::Config {
    let mut driver = driver.clone();
    if driver.get_connect_timeout().is_none() {
        driver.connect_timeout(CONNECT_TIMEOUT);
    }
    if driver.get_tcp_user_timeout().is_none() {
        driver.tcp_user_timeout(UNACKNOWLEDGED_MAX);
    }
    if driver.get_keepalives_idle() == DRIVERS_KEEPALIVE_IDLE {
        driver.keepalives_idle(KEEPALIVE_IDLE);
    }
    if driver.get_keepalives_interval().is_none() {
        driver.keepalives_interval(KEEPALIVE_INTERVAL);
    }
    if driver.get_keepalives_retries().is_none() {
        driver.keepalives_retries(KEEPALIVE_RETRIES);
    }
    driver
}

/// Sorts the driver's error by what the caller does next.
pub(super) fn judge(address: &PostgresAddress, error: &postgres::Error) -> ConnectError {
    let address = address.shown.clone();
    if let Some(said) = error.as_db_error() {
        let reason = format!("{} (SQLSTATE {})", said.message(), said.code().code());
        return match *said.code() {
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            | SqlState::INVALID_PASSWORD
            | SqlState::INVALID_CATALOG_NAME
            | SqlState::INSUFFICIENT_PRIVILEGE
            | SqlState::UNDEFINED_OBJECT => ConnectError::Refused { address, reason },
            _ => ConnectError::Away { address, reason },
        };
    }
    let reason = with_causes(error);
    // The driver keeps the kinds of its errors to itself, but not their words. A handshake that breaks off is no verdict.
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if says(&[
        "certificate verify failed",
        "server does not support TLS",
        "no hostname provided for TLS",
    ]) {
        ConnectError::Untrusted { address, reason }
    } else if says(&["authentication error", "invalid configuration"]) {
        ConnectError::Refused { address, reason }
    } else {
        ConnectError::Away { address, reason }
    }
}

/// The driver's errors say what was done; only their causes say what went wrong. Some say again what their causes say.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::net::TcpListener;

    fn address(driver: &str, tls: PostgresTls) -> PostgresAddress {
        PostgresAddress {
            driver: driver.parse().unwrap(),
            tls,
            shown: "db.example:5432/app".to_owned(),
            password_file: None,
        }
    }

    #[test]
    fn nobody_listening_is_away_and_the_message_names_the_address_but_no_password() {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = address(
            &format!("host=127.0.0.1 port={port} user=u password=hunter2"),
            PostgresTls::Disable,
        );
        let error = connect(&address, "test").err().unwrap();
        assert!(matches!(error, ConnectError::Away { .. }), "{error}");
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains("db.example:5432/app") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn a_password_file_is_read_for_each_connection() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        let mut address = address("host=127.0.0.1 user=u", PostgresTls::Disable);
        address.password_file = Some(file.clone());
        for password in ["first", "second"] {
            std::fs::write(&file, format!("{password}\n")).unwrap();
            let driver = driver_now(&address).unwrap();
            assert_eq!(driver.get_password(), Some(password.as_bytes()));
        }
        std::fs::remove_file(&file).unwrap();
        let said = connect(&address, "test").err().unwrap().to_string();
        assert!(said.contains(&file.display().to_string()), "{said}");
        assert!(said.contains("check postgres_password_file"), "{said}");
    }

    #[test]
    fn a_missing_root_certificate_is_said_before_anything_is_sent() {
        let address = address(
            "host=127.0.0.1 user=u",
            PostgresTls::VerifyFull(Some("no-such-file.pem".into())),
        );
        let error = connect(&address, "test").err().unwrap();
        assert!(matches!(&error, ConnectError::Untrusted { .. }), "{error}");
        assert!(error.to_string().contains("no-such-file.pem"), "{error}");
    }

    #[test]
    fn limits_of_the_address_are_kept_and_missing_ones_are_set() {
        let given = with_limits(
            &"host=h connect_timeout=3 keepalives_idle=60"
                .parse()
                .unwrap(),
        );
        assert_eq!(given.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(given.get_keepalives_idle(), Duration::from_secs(60));
        assert_eq!(given.get_tcp_user_timeout(), Some(&UNACKNOWLEDGED_MAX));
        assert_eq!(given.get_keepalives_retries(), Some(KEEPALIVE_RETRIES));
    }
}
