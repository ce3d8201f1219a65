//! Pools that together exceed what the operator states that a server takes.

use super::Document;
use crate::model::{NodeRole, Plain, PoolKind};
use crate::problem::Problem;

pub(super) fn check(document: &Document<'_>) {
    for shard in &document.shards {
        let Some(limit) = shard.server_max_connections else { continue };
        let roles = [(NodeRole::Primary, true), (NodeRole::Replica, !shard.replicas.is_empty())];
        for (role, _) in roles.into_iter().filter(|(_, present)| *present) {
            let pools = match document.plain {
                Some(_) => Plain::POOLS,
                None => PoolKind::of(role),
            };
            let max = |kind: &PoolKind| document.pools[kind.index()].max;
            let sum: u64 = pools.iter().map(|kind| u64::from(max(kind))).sum();
            if sum <= u64::from(limit) {
                continue;
            }
            let terms = pools.iter().map(|kind| format!("{kind} {}", max(kind))).collect::<Vec<_>>().join(" + ");
            let reader = &shard.placed.reader;
            reader.push(
                Problem::error(
                    reader.at("server_max_connections"),
                    format!("the pools of a {} of shard `{}` exceed its server", role.as_str(), shard.id),
                )
                .label(format!("{terms} = {sum} connections"))
                .help("lower `max` of [pools.*], or raise max_connections of the servers and state it here"),
            );
        }
    }
}
