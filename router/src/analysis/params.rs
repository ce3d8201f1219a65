//! How a statement uses its parameters.
//!
//! The type of a parameter that the client leaves open is decided by the use that the server looks at first; all others
//! are cast from it. In `SELECT $1::float8 … WHERE key = $1` it is float8, and eight bytes that read as one number there
//! are another as a bigint. So a key in such a parameter is read only where all uses agree.

use std::collections::{HashMap, HashSet};

use pg_raw_parse::Node;
use pg_raw_parse::nodes::{ParamRef, TypeCast};
use pgward_config::KeyType;
use smallvec::SmallVec;

use super::constants::{Constants, number, type_oid};
use crate::evidence::{KeySource, Slot};
use crate::values::oid;

/// The parameters of a tree.
#[derive(Default)]
pub(super) struct Uses {
    /// Each with the byte at which it stands.
    found: Vec<(u16, i32)>,
    /// The types of those that are cast, by where they stand; 0 for a type that no key has.
    casts: HashMap<i32, u32>,
}

impl Uses {
    pub(super) fn used(&mut self, param: &ParamRef) {
        self.found.extend(number(param).map(|n| (n, param.location)));
    }

    pub(super) fn cast(&mut self, cast: &TypeCast) {
        if let Node::ParamRef(param) = cast.arg() {
            self.casts.insert(param.location, cast.type_name().and_then(type_oid).unwrap_or(0));
        }
    }

    /// The parameters among these regions (each with the byte at which it stands) that are used as something else than
    /// text, too.
    pub(super) fn mixed_regions(&self, regions: &HashSet<(u16, i32)>) -> SmallVec<[u16; 1]> {
        let mut mixed = SmallVec::new();
        let params: HashSet<u16> = regions.iter().map(|(n, _)| *n).collect();
        for (n, at) in self.found.iter().filter(|(n, _)| params.contains(n)) {
            let agrees = match self.casts.get(at) {
                Some(cast) => matches!(*cast, oid::TEXT | oid::VARCHAR),
                None => regions.contains(&(*n, *at)),
            };
            if !agrees && !mixed.contains(n) {
                mixed.push(*n);
            }
        }
        mixed
    }

    /// The parameters among these keys that are used in other ways, too.
    pub(super) fn mixed(&self, keys: &[KeySource], constants: &Constants<'_>) -> SmallVec<[u16; 1]> {
        let mut mixed = SmallVec::new();
        // No other type has bytes, or a text, that read as a uuid.
        if constants.key_type == KeyType::Uuid {
            return mixed;
        }
        let mut casts: HashMap<u16, SmallVec<[u32; 1]>> = HashMap::new();
        let mut places = HashSet::new();
        for key in keys {
            if let Slot::Param { n, cast } = key.key {
                casts.entry(n).or_default().push(cast);
                places.insert(key.at);
            }
        }
        let reads = |cast: u32| cast == 0 || constants.reads_as_key(cast);
        for (n, at) in &self.found {
            let Some(casts) = casts.get(n) else { continue };
            let agrees = match self.casts.get(at) {
                Some(&0) => false,
                Some(&other) => casts.iter().all(|cast| *cast == other || reads(*cast) && reads(other)),
                None => places.contains(at) && casts.iter().all(|cast| reads(*cast)),
            };
            if !agrees && !mixed.contains(n) {
                mixed.push(*n);
            }
        }
        mixed
    }
}
