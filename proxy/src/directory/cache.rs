//! Patients seen lately, with what the hot path needs of each: where they are and how the audit names them.
//!
//! Without it each statement would pay two HMACs (one for the directory, one for the audit), about 300 ns. Only patients
//! that the directory knows are kept: an absent patient may be registered at any moment, by any session, and nothing
//! would have to be invalidated. A cache belongs to one configuration; a reload starts an empty one.

use std::sync::Arc;

use pgward_config::PatientRegion;
use pgward_router::{DirectoryLookup, Located, NoDirectory, PatientHasher, PatientKey, Router};
use quick_cache::sync::Cache;

use super::{EmbeddedDirectory, RegisterError};

/// Longer text keys are looked up each time, so that the cache's memory is bounded by its number of entries.
const KEY_MAX: usize = 128;

/// What is known of a patient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Where the patient is; `None` if the directory does not know the patient.
    pub entry: Option<Located>,
    /// The keyed hash that stands in audit records, 32 hexadecimal digits.
    pub audit_hash: [u8; 32],
}

/// The cache, on top of router, directory and audit key.
pub struct PatientCache {
    router: Arc<Router>,
    directory: Option<Arc<EmbeddedDirectory>>,
    hasher: PatientHasher,
    cache: Cache<PatientKey, Resolved>,
}

impl PatientCache {
    /// An empty cache for at most `patients` patients. `directory` is `None` under strategy `hash`; `audit_secret` is
    /// the key of `[audit]`.
    pub fn new(
        router: Arc<Router>,
        directory: Option<Arc<EmbeddedDirectory>>,
        audit_secret: &[u8],
        patients: usize,
    ) -> Self {
        Self { router, directory, hasher: PatientHasher::new(audit_secret), cache: Cache::new(patients) }
    }

    /// Where a patient is and how the audit names the patient.
    pub fn resolve(&self, key: &PatientKey) -> Resolved {
        if let Some(resolved) = self.cache.get(key) {
            return resolved;
        }
        let lookup: &dyn DirectoryLookup = match &self.directory {
            Some(directory) => &**directory,
            None => &NoDirectory,
        };
        let resolved = Resolved { entry: self.router.locate(key, lookup), audit_hash: self.hasher.hex(key) };
        let long = matches!(key, PatientKey::Text(text) if text.len() > KEY_MAX);
        if resolved.entry.is_some() && !long {
            self.cache.insert(key.clone(), resolved.clone());
        }
        resolved
    }

    /// Registers what a decision asks for, before its statement is forwarded.
    ///
    /// # Errors
    /// As [`EmbeddedDirectory::register`]. Under strategy `hash` there is nothing to register.
    pub fn register(&self, patients: &[(PatientKey, PatientRegion)]) -> Result<usize, RegisterError> {
        match &self.directory {
            Some(directory) if !patients.is_empty() => directory.register(patients),
            _ => Ok(0),
        }
    }
}
