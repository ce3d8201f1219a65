//! `[pools.*]`: the figures of the four pools.

use std::time::Duration;

use crate::model::{Pool, PoolKind};
use crate::problem::Problem;
use crate::reader::{Placed, Reader};

/// Below this many slots the guaranteed shares of classes (5 % the smallest) are not whole connections.
const EXACT_SHARES: u32 = 20;

/// The figures of a pool that the TOML leaves open: those of the service levels for the prioritized pools.
///
/// The waits are ours: an emergency must be answered within 2 s, a patient query within 5 s, and a report may take its
/// time. Queues are bounded so that memory is; background work gives up first.
pub(crate) const fn default(kind: PoolKind) -> Pool {
    match kind {
        PoolKind::Emergency => pool(10, 50, [300, 3600, 30, 2], 10_000),
        PoolKind::General => pool(20, 200, [600, 7200, 60, 5], 10_000),
        PoolKind::Background => pool(5, 50, [1800, 14_400, 120, 30], 1000),
        PoolKind::ReadOnly => pool(10, 100, [900, 3600, 90, 5], 10_000),
    }
}

/// `seconds`: idle timeout, max lifetime, check interval, wait timeout.
const fn pool(min: u32, max: u32, seconds: [u64; 4], max_waiting: u32) -> Pool {
    Pool {
        min,
        max,
        idle_timeout: Duration::from_secs(seconds[0]),
        max_lifetime: Duration::from_secs(seconds[1]),
        check_interval: Duration::from_secs(seconds[2]),
        wait_timeout: Duration::from_secs(seconds[3]),
        max_waiting,
        max_pinned: half(max),
    }
}

/// A pool of one connection has to lend it to those who keep it, too.
const fn half(max: u32) -> u32 {
    if max > 1 { max / 2 } else { max }
}

pub(crate) fn pools<'a>(root: &Reader<'a>) -> [Placed<'a, Pool>; 4] {
    let pools = root.section("pools");
    let read = PoolKind::ALL.map(|kind| one(&pools, kind));
    pools.finish();
    read
}

fn one<'a>(pools: &Reader<'a>, kind: PoolKind) -> Placed<'a, Pool> {
    let reader = pools.section_of(kind.as_str(), &format!("[pools.{kind}]"));
    let default = default(kind);
    let max = reader.number_or("max", 1, default.max);
    // Who states only a maximum below the default minimum means a smaller pool, not a contradiction.
    let least = default.min.min(max);
    let item = Pool {
        min: reader.number_or("min", 0, least),
        max,
        idle_timeout: reader.duration_or("idle_timeout", default.idle_timeout),
        max_lifetime: reader.duration_or("max_lifetime", default.max_lifetime),
        check_interval: reader.duration_or("check_interval", default.check_interval),
        wait_timeout: reader.duration_or("wait_timeout", default.wait_timeout),
        max_waiting: reader.number_or("max_waiting", 0, default.max_waiting),
        max_pinned: reader.number_or("max_pinned", 0, half(max)),
    };
    reader.finish();
    if item.max_pinned > item.max {
        reader.push(
            Problem::error(reader.at("max_pinned"), format!("[pools.{kind}] lets sessions keep more than there is"))
                .label(format!("expected at most {}", item.max)),
        );
    }
    if item.min > item.max {
        reader.push(
            Problem::error(reader.at("min"), format!("[pools.{kind}] has a minimum above its maximum"))
                .label(format!("expected at most {}", item.max))
                .related(
                    reader.at("max"),
                    if reader.value("max").is_some() { "the maximum" } else { "the maximum is the default" },
                ),
        );
    }
    if kind == PoolKind::Emergency && item.min == 0 {
        reader.push(
            Problem::warning(reader.at("min"), "no emergency connection is kept open")
                .label("the first emergency statement waits for a connection to be opened"),
        );
    }
    if matches!(kind, PoolKind::General | PoolKind::ReadOnly) && item.max < EXACT_SHARES {
        reader.push(
            Problem::warning(
                reader.at("max"),
                format!("[pools.{kind}] is too small for the exact shares of the classes"),
            )
            .label(format!("below {EXACT_SHARES} connections a share of 5 % is less than one")),
        );
    }
    Placed { item, reader }
}
