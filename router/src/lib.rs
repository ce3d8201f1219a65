//! Decisions: what a statement touches, where it may go, where it should go, and why.
//!
//! Everything here is a value computed from values: no sockets, no files, no clock, no runtime. The same inputs give
//! the same [`Decision`] in production, in tests and in `pgward route`.

pub mod decision;
pub mod evidence;
pub mod refusal;
pub mod statement;

pub use decision::{Candidate, Decision, Facts, Located, NodeView, Pin, Reason, Target};
pub use evidence::{Evidence, Mention, Params, PatientKey, Whence};
pub use refusal::{Refusal, RefusalKind};
pub use statement::{Action, Analysed, Kind, Shape, Statement, TableUse};
