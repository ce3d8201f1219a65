//! Patients whom rows of a COPY bring: registered when nothing but the commit is left to do.
//!
//! Until then only this COPY knows them, so that one which fails leaves nobody behind. Each takes some 50 bytes.

use pgward_config::PatientRegion;
use pgward_router::PatientKey;

#[derive(Debug, Default)]
pub(super) struct NewPatients {
    regions: Vec<PatientRegion>,
    patients: foldhash::HashMap<PatientKey, usize>,
}

impl NewPatients {
    pub(super) fn is_empty(&self) -> bool {
        self.patients.is_empty()
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

    /// All of them, leaving none.
    pub(super) fn take(&mut self) -> Vec<(PatientKey, PatientRegion)> {
        let regions = std::mem::take(&mut self.regions);
        let with_region = |(key, place): (PatientKey, usize)| Some((key, regions.get(place)?.clone()));
        std::mem::take(&mut self.patients).into_iter().filter_map(with_region).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_kept_once() {
        let mut patients = NewPatients::default();
        for n in 0..6 {
            patients.add(PatientKey::Bigint(n), PatientRegion::new(["east", "west"][n as usize % 2]));
        }
        assert_eq!(patients.regions.len(), 2);
        assert_eq!(patients.region(&PatientKey::Bigint(3)), Some(PatientRegion::new("west")));
        assert_eq!(patients.region(&PatientKey::Bigint(9)), None);
        assert_eq!(patients.take().len(), 6);
        assert!(patients.is_empty() && patients.take().is_empty());
    }
}
