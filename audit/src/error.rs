//! Why the log could not take a record.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The audit log cannot be written (or, when opened, not be continued). The statement that asked must be refused with
/// 58030 (io_error). It can be cloned because one failed `fdatasync` answers a whole group of sessions.
#[derive(Clone, Debug)]
pub struct AuditError {
    path: Arc<PathBuf>,
    doing: &'static str,
    cause: Arc<io::Error>,
}

impl AuditError {
    pub(crate) fn new(path: &Path, doing: &'static str, cause: io::Error) -> Self {
        Self { path: Arc::new(path.to_owned()), doing, cause: Arc::new(cause) }
    }

    /// SQLSTATE of the refusal: io_error.
    pub const SQLSTATE: &'static str = "58030";

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the system said, without the path: fit for a client's DETAIL.
    pub fn cause(&self) -> &io::Error {
        &self.cause
    }
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} the audit log {}: {}", self.doing, self.path.display(), self.cause)
    }
}

/// Without a source: the message says the cause, and whoever prints the chain would say it twice.
impl std::error::Error for AuditError {}
