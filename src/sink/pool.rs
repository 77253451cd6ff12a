//! A shard's connections in one core group. r2d2 makes, counts and replaces them; each worker holds one for as long as it
//! works, so there is no check-out on the hot path.

use super::connect::{ConnectError, tls_connector};
use crate::config::checked::{PostgresAddress, Shard};
use postgres_openssl::MakeTlsConnector;
use r2d2::{CustomizeConnection, PooledConnection};
use r2d2_postgres::PostgresConnectionManager;
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
}

#[derive(Debug)]
struct Session;

impl CustomizeConnection<postgres::Client, postgres::Error> for Session {
    fn on_acquire(&self, client: &mut postgres::Client) -> Result<(), postgres::Error> {
        client.batch_execute(SESSION)
    }
}

/// r2d2's own errors: the worker that waits for the connection gets and reports them.
#[derive(Debug)]
struct Quiet;

impl r2d2::HandleError<postgres::Error> for Quiet {
    fn handle_error(&self, error: postgres::Error) {
        tracing::debug!(error = %error, "a connection could not be made");
    }
}

impl ShardPool {
    /// A pool for a shard's workers and one more, for what is asked beside them. Connects when asked to. r2d2's threads
    /// inherit the calling thread's cores.
    pub fn new(shard: &Shard, group: usize) -> Result<Self, ConnectError> {
        let PostgresAddress { driver, shown, .. } = &shard.postgres;
        let mut driver = driver.clone();
        driver.application_name(&format!("millpond/{group}"));
        let manager = Manager::new(driver, tls_connector(&shard.postgres)?);
        let pool = r2d2::Pool::builder()
            .max_size(u32::try_from(shard.workers + 1).expect("at most 64 workers"))
            .min_idle(Some(0))
            // The test would be a round trip without a time limit; workers see a dead connection when they use it.
            .test_on_check_out(false)
            .max_lifetime(None)
            .idle_timeout(None)
            .connection_timeout(CONNECT_WAIT)
            .connection_customizer(Box::new(Session))
            .error_handler(Box::new(Quiet))
            .build_unchecked(manager);
        Ok(Self {
            pool,
            shown: shown.clone(),
        })
    }

    /// A connection, within [`CONNECT_WAIT`]; else what is wrong, for people.
    pub fn connection(&self) -> Result<PooledConnection<Manager>, String> {
        self.pool
            .get()
            .map_err(|error| format!("{}: {error}", self.shown))
    }

    /// `host:port/dbname`.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}
