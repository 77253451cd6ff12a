//! A worker's connection to its shard. r2d2 makes and replaces it, with a pool of one for each worker: their number changes while
//! running, and a pool's size can't. A pool that goes with its worker takes the connection along; and after an outage there are as
//! many connections as workers, where one large pool would make one for each try.

use super::connect::{ConnectError, connect_by, driver_now, judge, tls_connector};
use crate::config::checked::{PostgresAddress, Shard};
use parking_lot::Mutex;
use postgres::Client;
use postgres_openssl::MakeTlsConnector;
use r2d2::{CustomizeConnection, ManageConnection, PooledConnection};
use r2d2_postgres::PostgresConnectionManager;
use scheduled_thread_pool::ScheduledThreadPool;
use std::sync::Arc;
use std::time::Duration;

/// How r2d2 makes a connection: as `r2d2_postgres` does, with the password as it is then.
#[derive(Clone)]
pub struct Manager {
    address: PostgresAddress,
    /// For `pg_stat_activity`.
    name: String,
    tls: MakeTlsConnector,
}

/// How long a worker waits for a connection before it says that the shard is away, and tries again.
const CONNECT_WAIT: Duration = Duration::from_secs(6);

/// Connections of a shard and core group that are made at the same time.
const CONNECTING_MAX: usize = 3;

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

/// The connection of one worker, made when asked for.
pub struct ShardPool {
    pool: r2d2::Pool<Manager>,
    shown: String,
    last_error: LastError,
    maker: Maker,
}

/// What further pools of the same shard and core group are made from.
#[derive(Clone)]
struct Maker {
    manager: Manager,
    threads: Arc<ScheduledThreadPool>,
}

impl ManageConnection for Manager {
    type Connection = Client;
    type Error = ConnectError;

    fn connect(&self) -> Result<Client, ConnectError> {
        let mut driver = driver_now(&self.address)?;
        driver.application_name(&self.name);
        let manager = PostgresConnectionManager::new(driver, self.tls.clone());
        connect_by(&self.address, || manager.connect())
    }

    fn is_valid(&self, client: &mut Client) -> Result<(), ConnectError> {
        let answered = client.batch_execute("");
        answered.map_err(|error| judge(&self.address, &error))
    }

    fn has_broken(&self, client: &mut Client) -> bool {
        client.is_closed()
    }
}

#[derive(Debug)]
struct Session(PostgresAddress);

impl CustomizeConnection<Client, ConnectError> for Session {
    fn on_acquire(&self, client: &mut Client) -> Result<(), ConnectError> {
        let set = client.batch_execute(SESSION);
        set.map_err(|error| judge(&self.0, &error))
    }
}

/// Why the last connection could not be made, for the workers that wait for one to report. r2d2 tells only one of them, and
/// that in the driver's short form, which leaves the server's reason out.
#[derive(Clone, Debug, Default)]
struct LastError(Arc<Mutex<Option<ConnectError>>>);

impl r2d2::HandleError<ConnectError> for LastError {
    fn handle_error(&self, error: ConnectError) {
        *self.0.lock() = Some(error);
    }
}

impl ShardPool {
    /// The first pool of a shard in a core group. Connects when asked to. r2d2's threads, which all of them share, inherit the
    /// calling thread's cores.
    pub fn new(shard: &Shard, group: usize) -> Result<Self, ConnectError> {
        let threads = ScheduledThreadPool::builder()
            .num_threads(CONNECTING_MAX)
            .thread_name_pattern("r2d2-worker-{}")
            .build();
        let manager = Manager {
            tls: tls_connector(&shard.postgres)?,
            address: shard.postgres.clone(),
            name: format!("millpond/{group}"),
        };
        let maker = Maker {
            manager,
            threads: Arc::new(threads),
        };
        Ok(Self::made_by(maker))
    }

    /// One for another worker.
    pub fn another(&self) -> Self {
        Self::made_by(self.maker.clone())
    }

    fn made_by(maker: Maker) -> Self {
        let last_error = LastError::default();
        let address = &maker.manager.address;
        let pool = r2d2::Pool::builder()
            .max_size(1)
            .min_idle(Some(0))
            // The test would be a round trip without a time limit; workers see a dead connection when they use it.
            .test_on_check_out(false)
            .max_lifetime(None)
            .idle_timeout(None)
            .connection_timeout(CONNECT_WAIT)
            .connection_customizer(Box::new(Session(address.clone())))
            .error_handler(Box::new(last_error.clone()))
            .thread_pool(maker.threads.clone())
            .build_unchecked(maker.manager.clone());
        Self {
            pool,
            shown: address.shown.clone(),
            last_error,
            maker,
        }
    }

    /// A connection, within [`CONNECT_WAIT`]; else what is wrong, for people.
    pub fn connection(&self) -> Result<PooledConnection<Manager>, String> {
        let connection = self.pool.get();
        let mut said = self.last_error.0.lock();
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
