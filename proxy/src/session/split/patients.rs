//! Patients whom rows of a COPY bring: registered when nothing but the commit is left to do.
//!
//! Until then only this COPY knows them, so that one which fails leaves nobody behind. Each takes some 50 bytes, and
//! there are so many of one COPY at most. They are registered in batches, so that nobody else waits long to register: a
//! batch that fails, by another session's contradiction or by the disk, leaves those before it registered.

use pgward_config::PatientRegion;
use pgward_router::PatientKey;

/// Of one COPY.
pub(super) const MAX: usize = 1_000_000;

/// Registered at once.
const BATCH: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct NewPatients {
    regions: Vec<PatientRegion>,
    patients: foldhash::HashMap<PatientKey, usize>,
}

impl NewPatients {
    pub(super) fn is_empty(&self) -> bool {
        self.patients.is_empty()
    }

    pub(super) fn too_many(&self) -> bool {
        self.patients.len() > MAX
    }

    pub(super) fn region(&self, key: &PatientKey) -> Option<PatientRegion> {
        self.regions.get(*self.patients.get(key)?).cloned()
    }

    pub(super) fn add(&mut self, key: PatientKey, region: PatientRegion) {
        let known = self.regions.iter().position(|known| *known == region);
        let place = known.unwrap_or_else(|| {
            self.regions.push(region);
            self.regions.len() - 1
        });
        self.patients.insert(key, place);
    }

    /// Registers all of them, a batch at a time.
    pub(super) fn register<N, E>(
        self,
        mut register: impl FnMut(&[(PatientKey, PatientRegion)]) -> Result<N, E>,
    ) -> Result<(), E> {
        let Self { regions, patients } = self;
        let mut patients = patients.into_iter();
        loop {
            let batch = patients.by_ref().take(BATCH);
            let with_region = |(key, place): (PatientKey, usize)| Some((key, regions.get(place)?.clone()));
            let batch: Vec<_> = batch.filter_map(with_region).collect();
            if batch.is_empty() {
                return Ok(());
            }
            register(&batch)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_kept_once() {
        let mut patients = NewPatients::default();
        assert!(patients.is_empty());
        for n in 0..6 {
            patients.add(PatientKey::Bigint(n), PatientRegion::new(["east", "west"][n as usize % 2]));
        }
        assert_eq!(patients.regions.len(), 2);
        assert_eq!(patients.region(&PatientKey::Bigint(3)), Some(PatientRegion::new("west")));
        assert_eq!(patients.region(&PatientKey::Bigint(9)), None);
    }

    #[test]
    fn all_are_registered_in_batches_until_one_fails() {
        let many = |count: usize| {
            let mut patients = NewPatients::default();
            (0..count).for_each(|n| patients.add(PatientKey::Bigint(n as i64), PatientRegion::new("east")));
            patients
        };
        let registered = |count: usize, fails: usize| {
            let mut batches = Vec::new();
            let outcome = many(count).register(|batch| {
                batches.push(batch.len());
                if batches.len() == fails { Err("full") } else { Ok(()) }
            });
            (batches, outcome)
        };
        assert_eq!(registered(0, 1), (vec![], Ok(())));
        assert_eq!(registered(BATCH, 2), (vec![BATCH], Ok(())));
        assert_eq!(registered(2 * BATCH + 1, 9), (vec![BATCH, BATCH, 1], Ok(())));
        assert_eq!(registered(2 * BATCH + 1, 2), (vec![BATCH, BATCH], Err("full")));
        let mut patients = many(MAX);
        assert!(!patients.too_many());
        patients.add(PatientKey::Bigint(-1), PatientRegion::new("east"));
        assert!(patients.too_many());
    }
}
