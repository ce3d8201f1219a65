//! Decisions: what a statement touches, where it may go, where it should go, and why.
//!
//! Everything here is a value computed from values: no sockets, no files, no clock, no runtime. The same inputs give
//! the same [`Decision`] in production, in tests and in `pgward route`.

mod analyser;
mod analysis;
mod catalog;
pub mod copy_rows;
mod cursors;
pub mod decide;
pub mod decision;
pub mod directory;
pub mod evidence;
pub mod explain;
mod extensions;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod hash;
mod lexer;
mod permit;
pub mod placement;
pub mod refusal;
#[cfg(test)]
mod sample;
pub mod sql_prepared;
pub mod statement;
mod template;
mod values;

pub use analyser::Analyser;
pub use catalog::{Cascade, Catalog};
pub use copy_rows::{CopyRows, Of, Piece, Rows};
pub use cursors::{Cursor, Cursors};
pub use decide::{Ask, Part, Router};
pub use decision::{Candidate, Decision, Facts, Located, NodeView, PassedOver, Pin, Reason, Target, Transaction};
pub use directory::{DirectoryLookup, Entry, NoDirectory};
pub use evidence::{Evidence, Mention, NoParams, Params, PatientKey, Unknown, Whence};
pub use hash::{PatientHasher, hash_key};
pub use placement::Views;
pub use refusal::{Refusal, RefusalKind};
pub use statement::{
    Action, Analysed, CopyFormat, CopyFrom, Kind, SetConfig, SetConfigValue, Setting, Shape, Statement, TableUse, Value,
};
