//! Figures of the fleet for metrics, readiness and the console.

use pgward_config::model::{NodeId, NodeRole, PoolKind, RegionId, ShardId};

use crate::standing::Standing;
use crate::watch::NodeState;

/// One node.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Its id.
    pub id: NodeId,
    /// Its shard.
    pub shard: ShardId,
    /// What it is configured to be.
    pub role: NodeRole,
    /// Where it stands.
    pub region: RegionId,
    /// Up, down, or not known yet.
    pub standing: Standing,
    /// What decisions see of it.
    pub state: NodeState,
    /// Its pools.
    pub pools: Vec<PoolStatus>,
}

/// One pool of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Which.
    pub kind: PoolKind,
    /// Servers lent to sessions.
    pub in_use: u32,
    /// Those of them that sessions keep beyond their transactions.
    pub pinned: u32,
    /// Servers that wait for work.
    pub idle: u32,
    /// Connections open or being opened.
    pub open: u32,
    /// Connections opened ahead.
    pub min: u32,
    /// Connections at most.
    pub max: u32,
    /// Statements that wait, by class, emergency first.
    pub waiting: [u32; 5],
}
