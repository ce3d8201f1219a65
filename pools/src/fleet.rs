//! All nodes of a configuration, and how they pass from one configuration to the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pgward_config::model::{self, Class, Config, NodeId, PoolKind, ServerRole, ShardId, User, Workload};
use tokio::runtime::Handle;

use crate::node::{Node, PoolRoles, Settings};
use crate::probe::ShardLog;
use crate::status::NodeStatus;
use crate::watch::Watch;

/// While waiting for the fleet to settle, this long between two looks.
const SETTLE_CHECK: Duration = Duration::from_millis(20);

/// The nodes of every shard.
#[derive(Debug)]
pub struct Fleet {
    shards: Vec<Vec<Arc<Node>>>,
    /// Nodes of the fleet before this one that are not carried over; retired when this one starts.
    leaving: Mutex<Vec<Leaving>>,
    drain_timeout: Duration,
}

#[derive(Debug)]
struct Leaving {
    node: Arc<Node>,
    /// The server is gone from the configuration, not only its pools' figures.
    removed: bool,
}

impl Fleet {
    /// The fleet of this configuration. Nodes of `previous` whose settings did not change are carried over with their
    /// connections; a node whose pools changed keeps what is known of its health and gets new pools. Nothing happens
    /// to `previous` before [`Fleet::start`].
    pub fn new(config: &Config, previous: Option<&Self>) -> Self {
        let mut old: HashMap<NodeId, Arc<Node>> =
            previous.into_iter().flat_map(Self::nodes).map(|node| (node.id.clone(), node.clone())).collect();
        let logs: HashMap<ShardId, Arc<ShardLog>> =
            old.values().map(|node| (node.shard.clone(), node.shard_log.clone())).collect();
        let mut leaving = Vec::new();
        let shards = config.shards.iter().map(|shard| {
            // Another primary may be another database cluster, whose positions mean something else.
            let same_primary = old.get(&shard.primary.id).is_some_and(|node| node.settings.node == shard.primary);
            let log = logs.get(&shard.id).filter(|_| same_primary).cloned().unwrap_or_default();
            let nodes: Vec<_> =
                shard.nodes().map(|node| settle(settings(config, shard, node), &log, &mut old, &mut leaving)).collect();
            nodes
        });
        let shards = shards.collect();
        leaving.extend(old.into_values().map(|node| Leaving { node, removed: true }));
        Self { shards, leaving: Mutex::new(leaving), drain_timeout: config.proxy.drain_timeout }
    }

    /// Starts probing, all nodes at once, and opening connections ahead; retires the nodes of the previous fleet that
    /// were not carried over: their idle servers are closed, those in use when they are given back, and those of
    /// removed nodes that are still in use after the drain timeout are declared gone.
    ///
    /// `data` is the runtime of the sessions, which owns the servers' sockets; `control` runs the probers.
    pub fn start(&self, data: &Handle, control: &Handle) {
        for node in self.nodes() {
            node.start(data, control);
        }
        // Closing a socket wants the reactor that it belongs to.
        let _data = data.enter();
        for Leaving { node, removed } in self.leaving.lock().drain(..) {
            node.retire();
            if removed {
                let drain_timeout = self.drain_timeout;
                data.spawn(async move {
                    tokio::time::sleep(drain_timeout).await;
                    node.watch.switches.kill_all();
                });
            }
        }
    }

    /// The nodes of the n-th shard of the configuration: the primary, then the replicas in their order.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn shard(&self, n: usize) -> &[Arc<Node>] {
        &self.shards[n]
    }

    /// All nodes, in the configuration's order.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.shards.iter().flatten()
    }

    /// Returns when every node was probed once and the pools of those that are up hold their minimum.
    pub async fn settled(&self) {
        while !self.is_settled() {
            tokio::time::sleep(SETTLE_CHECK).await;
        }
    }

    /// Whether every node was probed once and the pools of those that are up hold their minimum.
    pub fn is_settled(&self) -> bool {
        self.nodes().all(|node| node.is_settled())
    }

    /// Figures of every node.
    pub fn status(&self) -> Vec<NodeStatus> {
        self.nodes().map(|node| node.status()).collect()
    }
}

/// The node of these settings: the old one if nothing changed, or a new one that takes over what is known of the
/// server, or one of which nothing is known.
fn settle(
    settings: Settings,
    log: &Arc<ShardLog>,
    old: &mut HashMap<NodeId, Arc<Node>>,
    leaving: &mut Vec<Leaving>,
) -> Arc<Node> {
    let is_replica = settings.node.role == model::NodeRole::Replica;
    let watch = match old.remove(&settings.node.id) {
        Some(node) if node.settings == settings && Arc::ptr_eq(&node.shard_log, log) => return node,
        Some(node) if node.settings.is_same_server(&settings) => {
            let watch = node.watch.clone();
            watch.set_thresholds(&settings.health);
            leaving.push(Leaving { node, removed: false });
            watch
        }
        other => {
            leaving.extend(other.map(|node| Leaving { node, removed: true }));
            Watch::new(settings.node.id.clone(), &settings.health, is_replica)
        }
    };
    Arc::new(Node::new(settings, watch, log.clone()))
}

fn settings(config: &Config, shard: &model::Shard, node: &model::Node) -> Settings {
    Settings {
        shard: shard.id.clone(),
        node: node.clone(),
        pools: config.pools.clone(),
        roles: PoolKind::ALL.map(|kind| roles(config, kind)),
        prober: config.server_roles.first().cloned(),
        health: config.health.clone(),
        connect_timeout: config.proxy.connect_timeout,
    }
}

/// The server roles of a pool: those first whose users are sure to use it, for which connections are opened ahead. All
/// the others have their place as well, since a user's class and workload can lead anywhere.
fn roles(config: &Config, kind: PoolKind) -> PoolRoles {
    let uses = |user: &User| match kind {
        PoolKind::Emergency => user.ceiling == Class::Emergency,
        PoolKind::Background => user.workload == Workload::Analytics,
        PoolKind::General | PoolKind::ReadOnly => user.workload == Workload::Care,
    };
    let used = |role: &&ServerRole| config.users.iter().any(|user| user.server_role == role.name && uses(user));
    let mut roles: Vec<_> = config.server_roles.iter().filter(used).cloned().collect();
    let ahead = roles.len().max(1);
    roles.extend(config.server_roles.iter().filter(|role| !used(role)).cloned());
    PoolRoles { roles, ahead }
}
