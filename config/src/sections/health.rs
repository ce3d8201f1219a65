//! `[health]`: how nodes are watched.

use std::time::Duration;

use crate::model::Health;
use crate::reader::Reader;

/// With three failures a dead node is out within 30 s, half of the recovery time objective.
const INTERVAL: Duration = Duration::from_secs(10);
/// A node that needs longer for an empty query is of no use to a patient query, which must be answered in 5 s.
const TIMEOUT: Duration = Duration::from_secs(5);
/// One lost packet is no failure.
const UNHEALTHY_AFTER: u32 = 3;
/// One lucky answer is no recovery.
const HEALTHY_AFTER: u32 = 2;
/// The service level for replicas that serve reads.
const MAX_REPLICA_LAG: Duration = Duration::from_secs(60);

pub(crate) fn health(root: &Reader<'_>) -> Health {
    let reader = root.section("health");
    let health = Health {
        interval: reader.duration_or("interval", INTERVAL),
        timeout: reader.duration_or("timeout", TIMEOUT),
        unhealthy_after: reader.number_or("unhealthy_after", 1, UNHEALTHY_AFTER),
        healthy_after: reader.number_or("healthy_after", 1, HEALTHY_AFTER),
        max_replica_lag: reader.duration_or("max_replica_lag", MAX_REPLICA_LAG),
    };
    reader.finish();
    health
}
