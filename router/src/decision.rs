//! The decision for one statement: a value with its whole reason.

use std::sync::Arc;
use std::time::Duration;

use pgward_config::{Class, Listener, NodeId, NodeRole, PatientRegion, PoolKind, RegionId, ShardId, User};
use smallvec::SmallVec;

use crate::evidence::PatientKey;
use crate::statement::Kind;

/// Who asks, from where, with which class.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The listener that the session came in by; its origin is the session's origin.
    pub listener: &'a Listener,
    /// The authenticated user.
    pub user: &'a User,
    /// The class in force: the listener's, else what the session asked for, else the user's.
    pub class: Class,
    /// The open transaction, if any.
    pub transaction: Transaction,
}

/// The transaction that a statement runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Transaction {
    /// None: the statement is its own transaction.
    #[default]
    None,
    /// Opened, no server yet; `read_only` if BEGIN said so.
    Opening {
        /// BEGIN … READ ONLY
        read_only: bool,
    },
    /// A server is attached and stays.
    Pinned(Pin),
}

/// Where the open transaction (or pinned session) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Index of the shard in the configuration.
    pub shard: usize,
    /// Index of the node in the shard: 0 the primary, n the n-th replica.
    pub node: usize,
    /// The pool that the server came from.
    pub pool: PoolKind,
}

/// Where the directory says that a patient is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Home region.
    pub region: PatientRegion,
    /// Index of the shard in the configuration, `None` if no shard serves the region.
    pub shard: Option<usize>,
    /// Epoch of the directory entry.
    pub epoch: u64,
}

/// A node as placement sees it: a snapshot of its state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeView {
    /// Up by the health rules.
    pub up: bool,
    /// How far behind a replica is; `None` when unknown, which counts as too far. Zero for a primary.
    pub lag: Option<Duration>,
    /// Server connections in use.
    pub connections: u32,
    /// Response time in ms, smoothed.
    pub response_ms: f32,
    /// CPU utilization in percent, where a source is configured.
    pub cpu_percent: Option<f32>,
}

/// A node that was considered, with its score (lower is better) or why it was passed over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Index of the node in the shard.
    pub node: usize,
    /// `0.3 × connections + 0.4 × response ms + 0.3 × CPU %`.
    pub score: f32,
    /// `None` if it could have served.
    pub passed_over: Option<PassedOver>,
}

/// Why a candidate could not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassedOver {
    /// Down by the health rules.
    Down,
    /// Behind by more than the limit, or by an unknown amount.
    Lag,
    /// It failed this very statement a moment ago.
    Failed,
}

impl PassedOver {
    /// The words of audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Lag => "lag",
            Self::Failed => "failed",
        }
    }
}

/// The server to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Index of the shard in the configuration.
    pub shard: usize,
    /// Its id.
    pub shard_id: ShardId,
    /// Index of the node in the shard.
    pub node: usize,
    /// Its id.
    pub node_id: NodeId,
    /// What it is.
    pub role: NodeRole,
    /// Its region.
    pub region: RegionId,
    /// The pool to take a connection from.
    pub pool: PoolKind,
}

/// Why the target was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Emergency: always the primary.
    Emergency,
    /// A write: the primary.
    Write,
    /// A read: the replica with the best score.
    BestReplica,
    /// A read, but no replica could serve: the primary.
    NoReplica,
    /// The open transaction is there.
    Transaction,
    /// No patient in it: the origin's home shard.
    HomeShard,
    /// It opens a transaction that may write: the primary, whatever its first statement is.
    ReadWriteTransaction,
}

impl Reason {
    /// The words of audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Emergency => "emergency",
            Self::Write => "write",
            Self::BestReplica => "best replica",
            Self::NoReplica => "no replica",
            Self::Transaction => "transaction",
            Self::HomeShard => "home shard",
            Self::ReadWriteTransaction => "read-write transaction",
        }
    }

    /// The rule in a sentence, for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Emergency => "class emergency always uses the primary",
            Self::Write => "what is not proven to be a read uses the primary",
            Self::BestReplica => "a read uses the replica with the lowest score",
            Self::NoReplica => "a read, but no replica can serve, so the primary does",
            Self::Transaction => "the open transaction is there",
            Self::HomeShard => "no patient decides, so the origin's home shard does",
            Self::ReadWriteTransaction => "a transaction that may write begins on the primary",
        }
    }
}

/// One statement's way, with its whole reason.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Read, Analytics, Write or Emergency.
    pub kind: Kind,
    /// Class in force.
    pub class: Class,
    /// The server to use.
    pub target: Target,
    /// Home region of the patients, `None` when the statement touches none.
    pub home: Option<PatientRegion>,
    /// Epoch of the directory entry that decided, 0 without one.
    pub epoch: u64,
    /// The nodes that were considered, in the order of the configuration.
    pub candidates: SmallVec<[Candidate; 4]>,
    /// Why this target.
    pub reason: Reason,
    /// Why the origin may reach the patient's region, in words (e.g. `home region`, `access_from of eu-west-1`).
    pub permit: Arc<str>,
    /// A patient to be registered in the directory before the statement is forwarded.
    pub register: SmallVec<[(PatientKey, PatientRegion); 1]>,
}
