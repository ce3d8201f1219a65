//! Two-phase commit over shards: identifiers, who owns them, the [log] of decisions, and the [recovery] of what its
//! session has left behind.
//!
//! The rule is presumed abort. All shards prepare; then the decision is written and synced; then all are told to commit.
//! Whoever finds a prepared transaction of this proxy's that no session owns looks into the log: decided means commit,
//! not decided means roll back. A [`Claim`] stands for the session's ownership, until it is dropped, however that
//! happens.

mod log;
mod recovery;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;
use pgward_config::Config;
use uuid::Uuid;

use log::CommitLog;
pub(crate) use log::Decided;
pub(crate) use recovery::recover;

/// PostgreSQL's limit for an identifier is 199 bytes; the rest of ours takes 83 of them at most.
const INSTANCE_MAX: usize = 100;

/// How long a shard is looked at closely when something was left there, and how often then and otherwise.
const CLOSELY: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);
const REGULARLY: Duration = Duration::from_secs(30);

/// What the sessions of a process share.
#[derive(Debug)]
pub(crate) struct TwoPhase {
    log: CommitLog,
    /// What the identifiers of this instance begin with, and those of this log.
    instance_prefix: String,
    prefix: String,
    /// Transactions that a session owns.
    live: Mutex<HashSet<String>>,
    /// When each shard is looked at for transactions which nobody owns.
    due: Mutex<HashMap<String, Due>>,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    when: Instant,
    /// Something was left there a moment ago.
    closely_until: Instant,
}

impl TwoPhase {
    /// Opens the log that belongs to this configuration.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Self> {
        let path = config.commit_log();
        let name = Uuid::new_v4().simple().to_string();
        let log = CommitLog::open(&path, &name[..16])
            .with_context(|| format!("the commit log {} cannot be opened", path.display()))?;
        let instance_prefix = format!("pgward:{}:", instance_words(&config.proxy.instance));
        let prefix = format!("{instance_prefix}{}:", log.name());
        Ok(Self { log, instance_prefix, prefix, live: Mutex::default(), due: Mutex::default() })
    }

    /// An identifier for a transaction of this session over these shards.
    pub(crate) fn claim(self: &Arc<Self>, session: u64, shards: Vec<String>) -> Arc<Claim> {
        let gid = format!("{}{session}:{}", self.prefix, Uuid::new_v4().simple());
        self.live.lock().insert(gid.clone());
        Arc::new(Claim { gid, shards, owner: Arc::clone(self), settled: Mutex::new(false) })
    }

    /// Something may be left on this shard. It may come later still: a server that waits for a lock does not notice that
    /// its session has left, and goes on to prepare what it was sent.
    fn look_at(&self, shard: &str, when: Instant) {
        let closely_until = Instant::now() + CLOSELY;
        self.due.lock().insert(shard.to_owned(), Due { when, closely_until });
    }

    /// Whether this shard is to be looked at now. The next look is settled with it.
    fn is_due(&self, shard: &str, now: Instant) -> bool {
        let mut due = self.due.lock();
        // A shard that was never looked at may have what an earlier life of this process has left.
        let first = Due { when: now, closely_until: now + CLOSELY };
        let due = due.entry(shard.to_owned()).or_insert(first);
        if due.when > now {
            return false;
        }
        due.when = now + if now < due.closely_until { SOON } else { REGULARLY };
        true
    }
}

/// The ownership of one transaction's identifier. When it is dropped with anything unsettled, whatever the servers have
/// prepared is found and ended by the log.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The transaction's identifier on all its servers.
    pub(crate) gid: String,
    shards: Vec<String>,
    owner: Arc<TwoPhase>,
    settled: Mutex<bool>,
}

impl Claim {
    /// Decides that it is committed. All shards must have prepared it. Blocks until the decision is on disk.
    pub(crate) fn decide(&self) -> Decided {
        self.owner.log.decide(&self.gid, &self.shards)
    }

    /// These of its shards have committed it.
    pub(crate) fn committed(&self, shards: &[String]) {
        self.owner.log.committed(&self.gid, shards);
    }

    /// No server has it prepared any more.
    pub(crate) fn settle(&self) {
        *self.settled.lock() = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.owner.live.lock().remove(&self.gid);
        if !*self.settled.lock() {
            // A server takes a moment to notice that its session has left.
            let soon = Instant::now() + Duration::from_millis(200);
            self.shards.iter().for_each(|shard| self.owner.look_at(shard, soon));
        }
    }
}

/// An instance's name without what would have to be quoted.
fn instance_words(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    name.chars().take(INSTANCE_MAX).map(plain).collect()
}

/// An identifier of ours as SQL writes it: nothing in it needs to be escaped.
pub(crate) fn literal(gid: &str) -> String {
    format!("'{gid}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_looked_at_again_and_again_and_closely_for_a_while() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = CommitLog::open(&dir.path().join("commits"), "name").expect("a log");
        let (instance_prefix, prefix) = (String::new(), String::new());
        let all = TwoPhase { log, instance_prefix, prefix, live: Mutex::default(), due: Mutex::default() };
        let start = Instant::now();
        let looks = |from: u64, upto: u64| {
            (from..upto).filter(|second| all.is_due("east", start + Duration::from_secs(*second))).count()
        };
        assert_eq!((looks(0, 30), looks(30, 60), looks(60, 180)), (6, 6, 4));
        all.look_at("east", start + Duration::from_secs(190));
        assert_eq!((looks(180, 190), looks(190, 191)), (0, 1));
    }

    #[test]
    fn identifiers_are_plain_and_short_enough() {
        let name = instance_words(&"O'Hara's ward é ".repeat(40));
        assert!(name.starts_with("O_Hara_s_ward___") && name.len() == INSTANCE_MAX, "{name}");
        let longest = format!("pgward:{name}:{}:{}:{}", "0".repeat(16), u64::MAX, Uuid::nil().simple());
        assert!(longest.len() < 200, "{}", longest.len());
    }
}
