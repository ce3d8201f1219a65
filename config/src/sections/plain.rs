//! `[plain]`: a pooler of one server for any database and any user, which routes nothing.

use crate::model::{Plain, PoolMode};
use crate::problem::Problem;
use crate::reader::{Placed, Reader};
use crate::sections::POOL_MODES;

/// Pairs of database and user that share a server's connections; a server with more is not one application's.
const MAX_POOLS: u32 = 100;

/// What says whose the patients are, or who may come in: a plain pooler knows neither.
const FOREIGN: [(&str, &str); 6] = [
    ("peers", "the process ids that clients are given are the server's, and a key for cancelling names no instance"),
    ("users", "any user is served, who proves to the server who it is"),
    ("sharding", "there is one shard, which takes all"),
    ("directory", "no patient is looked up"),
    ("tables", "tables are not looked at, so that none would be protected"),
    ("functions", "functions are not looked at"),
];

pub(crate) fn plain<'a>(root: &Reader<'a>) -> Option<Placed<'a, Plain>> {
    let reader = root.section("plain");
    if !reader.is_present() {
        return None;
    }
    for (key, why) in FOREIGN {
        if root.value(key).is_some() {
            root.push(
                Problem::error(root.at(key), format!("`{key}` has no meaning in a plain pooler"))
                    .label(why)
                    .related(reader.place(), "makes it a plain pooler")
                    .help(format!("remove `{key}`, or [plain] where patients are to be routed")),
            );
        }
    }
    let item = Plain {
        pool_mode: reader.word("pool_mode", &POOL_MODES).unwrap_or(PoolMode::Transaction),
        max_pools: reader.number_or("max_pools", 1, MAX_POOLS),
    };
    reader.finish();
    Some(Placed { item, reader })
}
