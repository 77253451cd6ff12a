//! A shard's connections in one core group. r2d2 makes, counts and replaces them; each worker holds one for as long as it
//! works, so there is no check-out on the hot path.

use super::connect::{ConnectError, judge, tls_connector};
use crate::config::checked::{PostgresAddress, Shard};
use crate::lanes::WORKERS_MAX;
use parking_lot::Mutex;
use postgres_openssl::MakeTlsConnector;
use r2d2::{CustomizeConnection, PooledConnection};
use r2d2_postgres::PostgresConnectionManager;
use std::sync::Arc;
use std::time::Duration;

/// How r2d2 makes a connection.
pub type Manager = PostgresConnectionManager<MakeTlsConnector>;

/// How long a worker waits for a connection before it says that the shard is away, and tries again.
const CONNECT_WAIT: Duration = Duration::from_secs(6);

/// Settings of each session. Time limits keep a statement from holding a lane for ever; the planner's switches keep every
/// statement on the primary key, in the order of its sorted keys, whatever the statistics say of a young table.
const SESSION: &str = "
    SET statement_timeout = '30s';
    SET lock_timeout = '1s';
    SET idle_in_transaction_session_timeout = '10s';
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET jit = off;
    SET plan_cache_mode = force_generic_plan;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// The connections of one shard in one core group. Cheap to clone.
#[derive(Clone)]
pub struct ShardPool {
    pool: r2d2::Pool<Manager>,
    shown: String,
    last_error: LastError,
}

#[derive(Debug)]
struct Session;

impl CustomizeConnection<postgres::Client, postgres::Error> for Session {
    fn on_acquire(&self, client: &mut postgres::Client) -> Result<(), postgres::Error> {
        client.batch_execute(SESSION)
    }
}

/// Why the last connection could not be made, for the workers that wait for one to report. r2d2 tells only one of them, and
/// that in the driver's short form, which leaves the server's reason out.
#[derive(Clone, Debug)]
struct LastError {
    address: PostgresAddress,
    said: Arc<Mutex<Option<ConnectError>>>,
}

impl r2d2::HandleError<postgres::Error> for LastError {
    fn handle_error(&self, error: postgres::Error) {
        *self.said.lock() = Some(judge(&self.address, &error));
    }
}

impl ShardPool {
    /// A pool for as many workers as a shard may have, and one more, for what is asked beside them. Connects when asked to. r2d2's threads
    /// inherit the calling thread's cores.
    pub fn new(shard: &Shard, group: usize) -> Result<Self, ConnectError> {
        let PostgresAddress { driver, shown, .. } = &shard.postgres;
        let mut driver = driver.clone();
        driver.application_name(&format!("millpond/{group}"));
        let manager = Manager::new(driver, tls_connector(&shard.postgres)?);
        let last_error = LastError {
            address: shard.postgres.clone(),
            said: Arc::default(),
        };
        let pool = r2d2::Pool::builder()
            .max_size(u32::try_from(WORKERS_MAX + 1).expect("few"))
            .min_idle(Some(0))
            // The test would be a round trip without a time limit; workers see a dead connection when they use it.
            .test_on_check_out(false)
            .max_lifetime(None)
            .idle_timeout(None)
            .connection_timeout(CONNECT_WAIT)
            .connection_customizer(Box::new(Session))
            .error_handler(Box::new(last_error.clone()))
            .build_unchecked(manager);
        Ok(Self {
            pool,
            shown: shown.clone(),
            last_error,
        })
    }

    /// A connection, within [`CONNECT_WAIT`]; else what is wrong, for people.
    pub fn connection(&self) -> Result<PooledConnection<Manager>, String> {
        let connection = self.pool.get();
        let mut said = self.last_error.said.lock();
        match connection {
            Ok(connection) => {
                // What was wrong before is no reason for what may go wrong later.
                *said = None;
                Ok(connection)
            }
            Err(timeout) => Err(match &*said {
                Some(error) => error.to_string(),
                None => format!("{}: {timeout}", self.shown),
            }),
        }
    }

    /// `host:port/dbname`.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}
