//! Placement: given the shard, which of its nodes takes the statement, through which pool.
//!
//! Writes and emergencies have one place, the primary. Reads take the replica with the lowest score among those that
//! are up, close enough behind and have not just failed this very statement; only when there is none, the primary.

use std::time::Duration;

use pgward_config::{Node, NodeId, NodeRole, PoolKind, RegionId, Shard, ShardId, Workload};
use smallvec::SmallVec;

use crate::decision::{Candidate, NodeView, PassedOver, Target};
use crate::refusal::{Refusal, RefusalKind};

/// The states of a shard's nodes, in the order of the configuration: the primary, then the replicas.
pub type Views = SmallVec<[NodeView; 4]>;

/// Candidates, in the order of the configuration.
pub type Candidates = SmallVec<[Candidate; 4]>;

/// A shard as placement needs it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) id: ShardId,
    /// Index of its region in the configuration.
    pub(crate) region: usize,
    nodes: Vec<(NodeId, NodeRole, RegionId)>,
}

impl Place {
    pub(crate) fn new(shard: &Shard, region: usize) -> Self {
        let words = |node: &Node| (node.id.clone(), node.role, node.region.clone());
        Self { id: shard.id.clone(), region, nodes: shard.nodes().map(words).collect() }
    }

    /// The target that is node `node` of this shard, which is the `shard`-th; `None` if there is no such node.
    pub(crate) fn target(&self, shard: usize, node: usize, pool: PoolKind) -> Option<Target> {
        let (node_id, role, region) = self.nodes.get(node)?;
        Some(Target {
            shard,
            shard_id: self.id.clone(),
            node,
            node_id: node_id.clone(),
            role: *role,
            region: region.clone(),
            pool,
        })
    }

    /// The primary as the only candidate.
    pub(crate) fn primary(&self, rules: &Rules<'_>) -> Result<Candidates, Refusal> {
        let primary = rules.candidate(0);
        if primary.passed_over.is_some() {
            return Err(self.no_healthy_node(&[primary], rules));
        }
        Ok(SmallVec::from_slice(&[primary]))
    }

    /// The best node for a read: its index, and all that were considered.
    pub(crate) fn best_for_read(&self, rules: &Rules<'_>) -> Result<(usize, Candidates), Refusal> {
        let mut candidates: Candidates = (1..self.nodes.len()).map(|node| rules.candidate(node)).collect();
        let connections = |node: usize| rules.views.get(node).map_or(u32::MAX, |view| view.connections);
        let best = candidates
            .iter()
            .filter(|candidate| candidate.passed_over.is_none())
            .min_by(|a, b| a.score.total_cmp(&b.score).then_with(|| connections(a.node).cmp(&connections(b.node))));
        if let Some(best) = best {
            return Ok((best.node, candidates));
        }
        candidates.insert(0, rules.candidate(0));
        if candidates[0].passed_over.is_some() {
            return Err(self.no_healthy_node(&candidates, rules));
        }
        Ok((0, candidates))
    }

    fn no_healthy_node(&self, candidates: &[Candidate], rules: &Rules<'_>) -> Refusal {
        let mut detail = String::new();
        for candidate in candidates {
            let (Some((id, ..)), Some(why)) = (self.nodes.get(candidate.node), candidate.passed_over) else { continue };
            if !detail.is_empty() {
                detail.push_str("; ");
            }
            let why = match why {
                PassedOver::Down => "is down".to_owned(),
                PassedOver::Failed => "failed this very statement".to_owned(),
                PassedOver::Lag => match rules.views.get(candidate.node).and_then(|view| view.lag) {
                    Some(lag) => {
                        format!("is {:.1} s behind, more than the {:.0?} allowed", lag.as_secs_f64(), rules.max_lag)
                    }
                    None => "is behind by an unknown amount".to_owned(),
                },
            };
            detail.push_str(&format!("{id} {why}"));
        }
        let what = match candidates.len() {
            1 => "the primary takes this statement, and it is not available",
            _ => "no node of it is available for this read",
        };
        Refusal::new(RefusalKind::NoHealthyNode, format!("shard {}: {what}", self.id))
            .detail(format!("{detail}."))
            .hint("Nothing was executed. Retry in a few seconds; a node that is down is used again when its probes succeed.")
    }
}

/// What the nodes of one shard are measured by, for one statement.
pub(crate) struct Rules<'a> {
    /// State of each node.
    pub(crate) views: &'a [NodeView],
    /// Nodes that failed this very statement.
    pub(crate) failed: &'a [usize],
    /// A replica further behind serves no reads.
    pub(crate) max_lag: Duration,
}

impl Rules<'_> {
    fn candidate(&self, node: usize) -> Candidate {
        let Some(view) = self.views.get(node) else {
            return Candidate { node, score: f32::INFINITY, passed_over: Some(PassedOver::Down) };
        };
        let behind = node > 0 && view.lag.is_none_or(|lag| lag > self.max_lag);
        let passed_over = if self.failed.contains(&node) {
            Some(PassedOver::Failed)
        } else if !view.up {
            Some(PassedOver::Down)
        } else if behind {
            Some(PassedOver::Lag)
        } else {
            None
        };
        Candidate { node, score: score(view), passed_over }
    }
}

/// `0.3 × connections + 0.4 × response time (ms) + 0.3 × CPU utilization (%)`; lower is better. CPU counts as 0 where
/// nothing tells it.
pub fn score(view: &NodeView) -> f32 {
    0.3 * view.connections as f32 + 0.4 * view.response_ms + 0.3 * view.cpu_percent.unwrap_or(0.0)
}

/// The pool of a node's role that work of this kind uses; emergencies are not asked about here.
pub fn pool(role: NodeRole, workload: Workload) -> PoolKind {
    match (workload, role) {
        (Workload::Analytics, _) => PoolKind::Background,
        (Workload::Care, NodeRole::Primary) => PoolKind::General,
        (Workload::Care, NodeRole::Replica) => PoolKind::ReadOnly,
    }
}
