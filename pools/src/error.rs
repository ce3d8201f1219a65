//! Why a statement got no server.

use std::sync::Arc;
use std::time::Duration;

use pgward_config::model::{Class, NodeId, PoolKind};
use thiserror::Error;

use crate::connect::ConnectError;
use crate::pool::Pool;
use crate::words;

/// Why a server could not be acquired.
#[derive(Clone, Debug, Error)]
pub enum AcquireError {
    /// The deadline of the pool passed while the statement waited.
    #[error("no server of the {pool} pool became free within {} for class {class}", words::duration(*.waited))]
    Timeout {
        /// The pool.
        pool: PoolKind,
        /// The statement's class.
        class: Class,
        /// The pool's `wait_timeout`.
        waited: Duration,
    },
    /// As many statements as the pool allows were waiting, none of them of a lower class.
    #[error("too many statements wait for the {pool} pool (class {class})")]
    QueueFull {
        /// The pool.
        pool: PoolKind,
        /// The statement's class.
        class: Class,
    },
    /// A connection had to be opened and could not be, or the node is down.
    #[error("{0}")]
    Connect(Arc<ConnectError>),
    /// The node does not open this pool: its role has no use for it.
    #[error("node {node} has no {pool} pool")]
    NoPool {
        /// The node.
        node: NodeId,
        /// The pool.
        pool: PoolKind,
    },
    /// A statement of another class asked for the emergency pool.
    #[error("the emergency pool serves class emergency only, not {0}")]
    NotEmergency(Class),
    /// The server role is not configured.
    #[error("no server role {0:?} is configured")]
    UnknownRole(Box<str>),
}

impl AcquireError {
    pub(crate) fn node_down() -> Self {
        Self::Connect(Arc::new(ConnectError::NodeDown))
    }

    pub(crate) fn timeout(pool: &Pool, class: Class) -> Self {
        Self::Timeout { pool: pool.kind, class, waited: pool.figures.wait_timeout }
    }

    /// The SQLSTATE for the client: 53300 when the pool is exhausted, 08006 when the node cannot be reached, and
    /// XX000 for what can only be our own mistake.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Timeout { .. } | Self::QueueFull { .. } => "53300",
            Self::Connect(error) if matches!(**error, ConnectError::PoolFull) => "53300",
            Self::Connect(_) => "08006",
            Self::NoPool { .. } | Self::NotEmergency(_) | Self::UnknownRole(_) => "XX000",
        }
    }

    /// Whether the same statement may be tried on another node at once.
    pub fn is_node_fault(&self) -> bool {
        matches!(self, Self::Connect(_))
    }

    /// When it makes sense to try again, for the HINT of a 53300.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Timeout { .. } | Self::QueueFull { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}
