//! What must hold between the tables of the TOML. Each rule notes all that breaks it and passes over stand-ins, whose
//! own mistake is noted already.

mod capacity;
mod duplicates;
mod hash_ranges;
pub(crate) mod paths;
mod patient_regions;
mod peers;
mod plain;
mod references;
mod sovereignty;

use crate::model::{Http, Listener, Peer, Plain, Pool, Proxy, RegionId, ServerRole, Table, User};
use crate::reader::Placed;
use crate::sections::regions::ReadRegion;
use crate::sections::sharding::ReadSharding;
use crate::sections::shards::ReadShard;

/// All that was read, with its places.
pub(crate) struct Document<'a> {
    pub(crate) proxy: Placed<'a, Proxy>,
    pub(crate) plain: Option<Placed<'a, Plain>>,
    pub(crate) listeners: Vec<Placed<'a, Listener>>,
    pub(crate) peers: Vec<Placed<'a, Peer>>,
    pub(crate) http: Option<Placed<'a, Http>>,
    pub(crate) users: Vec<Placed<'a, User>>,
    pub(crate) server_roles: Vec<Placed<'a, ServerRole>>,
    pub(crate) sharding: ReadSharding<'a>,
    pub(crate) tables: Vec<Placed<'a, Table>>,
    pub(crate) functions: Vec<Placed<'a, crate::model::Function>>,
    pub(crate) regions: Vec<ReadRegion<'a>>,
    pub(crate) shards: Vec<ReadShard<'a>>,
    pub(crate) pools: [Placed<'a, Pool>; 4],
}

impl Document<'_> {
    fn region(&self, id: &RegionId) -> Option<&ReadRegion<'_>> {
        self.regions.iter().find(|region| region.id == *id)
    }
}

/// Checks all rules.
pub(crate) fn check(document: &Document<'_>) {
    duplicates::check(document);
    references::check(document);
    plain::check(document);
    if document.plain.is_none() {
        peers::check(document);
        patient_regions::check(document);
        hash_ranges::check(document);
    }
    sovereignty::check(document);
    capacity::check(document);
}
