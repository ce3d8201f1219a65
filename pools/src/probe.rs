//! Asking a node how it is: one prober for each node, on the control plane, with a connection of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use parking_lot::Mutex;
use pgward_config::model::{self, NodeRole, ServerRole};
use tokio_postgres::{NoTls, SimpleQueryMessage, SimpleQueryRow, error::SqlState};

use crate::cpu;
use crate::staleness::{Lsn, Position, Sightings};
use crate::watch::{Failure, Watch};

/// Probes that sessions ask for follow each other at this distance at least.
const MIN_GAP: Duration = Duration::from_millis(100);

/// One row: in recovery, position (written or replayed), received, age of the last replayed commit.
const QUESTION: &str = "SELECT pg_is_in_recovery(), \
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, \
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() END, \
    CASE WHEN pg_is_in_recovery() THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END";

const IDENTITY: &str = "SELECT system_identifier FROM pg_control_system()";

/// What the nodes of one shard have in common: where the primary was seen, and which database cluster it is.
#[derive(Debug, Default)]
pub(crate) struct ShardLog {
    primary: Mutex<Sightings>,
    identity: Mutex<Option<u64>>,
}

/// Probes one node for as long as it runs.
#[derive(Debug)]
pub(crate) struct Prober {
    pub(crate) node: model::Node,
    pub(crate) role: ServerRole,
    pub(crate) health: model::Health,
    pub(crate) watch: Arc<Watch>,
    pub(crate) shard: Arc<ShardLog>,
}

type Failed = (Failure, String);

impl Prober {
    /// Probes at once, then at the interval, sooner when something looks wrong or a session reports a failure. Runs
    /// until it is dropped.
    pub(crate) async fn run(self) {
        let mut pool = self.pool();
        let mut told = None;
        loop {
            let outcome = match tokio::time::timeout(self.health.timeout, self.probe(&pool)).await {
                Ok(outcome) => outcome,
                Err(_) => Err((Failure::Timeout, "the probe was not answered in time".to_owned())),
            };
            match &outcome {
                Ok(_) => told = None,
                Err((failure, detail)) => {
                    // A connection that failed once, or still waits for an answer, is not asked again.
                    pool = self.pool();
                    if matches!(failure, Failure::WrongRole | Failure::Foreign) && told != Some(*failure) {
                        told = Some(*failure);
                        tracing::error!(node = %self.node.id, %detail, "node is not what the configuration says");
                    }
                }
            }
            let pause = self.watch.probed(outcome, self.health.interval);
            self.ask_cpu().await;
            tokio::time::sleep(MIN_GAP.min(pause)).await;
            tokio::select! {
                () = tokio::time::sleep(pause.saturating_sub(MIN_GAP)) => {}
                () = self.watch.suspected.notified() => {}
            }
        }
    }

    /// How long the node took to answer.
    async fn probe(&self, pool: &Pool) -> Result<Duration, Failed> {
        let client = pool.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(error) => failed(&error, Failure::Refused),
            other => (Failure::Reset, other.to_string()),
        })?;
        let asked = Instant::now();
        let answer = client.simple_query(QUESTION).await.map_err(|error| failed(&error, Failure::Reset))?;
        let response = asked.elapsed();
        let row = first_row(&answer).ok_or((Failure::Answer, "the probe had no row".to_owned()))?;
        let answer = Answer::read(row).ok_or((Failure::Answer, "the probe's row makes no sense".to_owned()))?;
        self.check_role(answer.in_recovery)?;
        match client.simple_query(IDENTITY).await {
            Ok(rows) => {
                let identity = first_row(&rows).and_then(|row| row.get(0)).and_then(|text| text.parse().ok());
                self.check_identity(identity)?;
            }
            // Not every role may ask.
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {}
            Err(error) => return Err(failed(&error, Failure::Reset)),
        }
        self.note(asked, &answer);
        Ok(response)
    }

    fn check_role(&self, in_recovery: bool) -> Result<(), Failed> {
        match (self.node.role, in_recovery) {
            (NodeRole::Primary, true) => {
                Err((Failure::WrongRole, "configured as the primary, but it is in recovery (a standby)".to_owned()))
            }
            (NodeRole::Replica, false) => {
                Err((Failure::WrongRole, "configured as a replica, but it is not in recovery".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// The primary's first answer says which database cluster the shard is; everyone else must be of the same.
    fn check_identity(&self, identity: Option<u64>) -> Result<(), Failed> {
        let Some(identity) = identity else { return Ok(()) };
        let mut known = self.shard.identity.lock();
        match (*known, self.node.role) {
            (Some(known), _) if known != identity => {
                let detail = format!("its system identifier is {identity}, the shard's primary has {known}");
                Err((Failure::Foreign, detail))
            }
            (None, NodeRole::Primary) => {
                *known = Some(identity);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn note(&self, asked: Instant, answer: &Answer) {
        let mut primary = self.shard.primary.lock();
        match self.node.role {
            NodeRole::Primary => primary.saw(asked, answer.position.replayed),
            NodeRole::Replica => self.watch.set_lag(primary.staleness(Instant::now(), &answer.position)),
        }
    }

    async fn ask_cpu(&self) {
        let Some(url) = &self.node.cpu_source else { return };
        let percent = match tokio::time::timeout(self.health.timeout, cpu::percent(url)).await {
            Ok(Ok(percent)) => Some(percent),
            Ok(Err(error)) => {
                tracing::debug!(node = %self.node.id, %error, "the CPU source does not answer");
                None
            }
            Err(_) => None,
        };
        self.watch.set_cpu(percent);
    }

    fn pool(&self) -> Pool {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&*self.node.host)
            .port(self.node.port)
            .dbname(&*self.node.dbname)
            .user(&*self.role.name)
            .application_name("pgward probe")
            .connect_timeout(self.health.timeout)
            .options("-c statement_timeout=60s");
        if let Some(password) = &self.role.password {
            config.password(password.expose());
        }
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, NoTls, manager_config);
        Pool::builder(manager).max_size(1).build().expect("a pool without timeouts needs no runtime")
    }
}

fn failed(error: &tokio_postgres::Error, otherwise: Failure) -> Failed {
    if let Some(said) = error.as_db_error() {
        let failure = match said.code().code() {
            // Shutting down, starting up, crashed; or too many connections: what it says is "not now".
            code if code.starts_with("57P") || code.starts_with("53") => Failure::Refused,
            code if code.starts_with("28") => Failure::Login,
            _ => Failure::Answer,
        };
        return (failure, format!("{} ({})", said.message(), said.code().code()));
    }
    let mut detail = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        detail = format!("{detail}: {source}");
    }
    (otherwise, detail)
}

fn first_row(messages: &[SimpleQueryMessage]) -> Option<&SimpleQueryRow> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

#[derive(Debug)]
struct Answer {
    in_recovery: bool,
    position: Position,
}

impl Answer {
    fn read(row: &SimpleQueryRow) -> Option<Self> {
        let in_recovery = row.get(0)? == "t";
        let replayed = row.get(1).map_or(Some(Lsn(0)), Lsn::parse)?;
        let received = row.get(2).and_then(Lsn::parse);
        let commit_age = row.get(3).and_then(|age| age.parse::<f64>().ok());
        // Clocks of two machines differ: an age below zero is as good as none at all.
        let commit_age = commit_age.and_then(|age| Duration::try_from_secs_f64(age.max(0.0)).ok());
        Some(Self { in_recovery, position: Position { replayed, received, commit_age } })
    }
}
