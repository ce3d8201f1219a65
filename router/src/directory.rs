//! Where a patient's region is looked up. The backends live where files and sockets are; this is what a decision
//! needs of them.

use pgward_config::PatientRegion;

use crate::evidence::PatientKey;

/// What the directory says about a patient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Home region.
    pub region: PatientRegion,
    /// Rises by one each time the patient moves; 1 at registration.
    pub epoch: u64,
}

/// A directory of patients, answering at once and from memory.
pub trait DirectoryLookup: Send + Sync {
    /// The patient's entry, `None` for a patient that is not registered.
    fn get(&self, key: &PatientKey) -> Option<Entry>;
}

/// A directory that knows nobody: what strategy `hash` uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDirectory;

impl DirectoryLookup for NoDirectory {
    fn get(&self, _: &PatientKey) -> Option<Entry> {
        None
    }
}
