//! The record of every decision: one JSON line each, numbered without a gap, in the file before its statement is
//! forwarded.
//!
//! A [`Record`] borrows what the session already has and is encoded by hand into a reused buffer, so that a record
//! costs no allocation. What happens beside decisions (logins, reloads, starts, stops) is an [`Event`] in the same
//! sequence. [`AuditLog`] owns the file: its order, what it does when the disk fails, rotation and recovery. When the
//! file cannot be written everything is refused except emergencies, whose records wait in a bounded memory spool.
//!
//! No statement text and no patient key enters this crate: patients are keyed hashes ([`PatientHash`]), statements
//! are fingerprints. This crate knows no sockets and no async runtime; a [`Receipt`] is a plain future.

mod error;
mod file;
mod gather;
mod json;
mod log;
mod patient;
pub mod read;
mod receipt;
mod record;
mod recovery;
mod spool;
mod state;

pub use error::AuditError;
pub use log::{AuditLog, Status};
pub use patient::PatientHash;
pub use receipt::{Pending, Receipt};
pub use record::{Candidate, Event, EventKind, NodeName, Outcome, Place, Record, Who};
