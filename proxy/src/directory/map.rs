//! Patients in memory: 64 small maps, each behind its own lock, so that a look-up and a registration seldom meet.

use parking_lot::RwLock;

use super::log::Row;

/// A power of two.
const PARTS: usize = 64;
/// The epoch and the region's number share a word; an epoch rises by one with each move, so 48 bits last.
const EPOCH_BITS: u32 = 48;

type Part = foldhash::HashMap<[u8; 16], u64>;

/// All patients.
pub(super) struct Patients {
    parts: Box<[RwLock<Part>]>,
}

impl Default for Patients {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| RwLock::default()).collect() }
    }
}

impl Patients {
    fn part(&self, hash: &[u8; 16]) -> &RwLock<Part> {
        &self.parts[usize::from(hash[0]) % PARTS]
    }

    /// Number of the region and epoch.
    pub(super) fn get(&self, hash: &[u8; 16]) -> Option<(u16, u64)> {
        let word = *self.part(hash).read().get(hash)?;
        Some(((word >> EPOCH_BITS) as u16, word & ((1 << EPOCH_BITS) - 1)))
    }

    /// Puts a row in unless one of the same or a later epoch is there; false then, or for an impossible epoch.
    pub(super) fn insert(&self, row: Row) -> bool {
        if row.epoch == 0 || row.epoch >> EPOCH_BITS != 0 {
            return false;
        }
        let mut part = self.part(&row.hash).write();
        let word = u64::from(row.region) << EPOCH_BITS | row.epoch;
        match part.insert(row.hash, word) {
            Some(old) if old & ((1 << EPOCH_BITS) - 1) >= row.epoch => {
                part.insert(row.hash, old);
                false
            }
            _ => true,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.read().len()).sum()
    }
}
