//! PostgreSQL's frontend/backend protocol 3 over bytes: framing, the messages that PgWard reads or says, logging in to
//! a server. No sockets, no clock, no runtime.
//!
//! Every body is parsed from a slice that ends where its length field says, and must be consumed exactly; counts are
//! checked against the bytes that are there. Bytes of a peer never panic and never make us reserve what they announce.

pub mod backend;
pub mod error;
pub mod frame;
pub mod frontend;
pub mod login;
#[cfg(any(test, feature = "parsers"))]
pub mod parsers;
pub mod passage;
pub mod startup;
pub mod status;
pub mod tag;

#[cfg(test)]
mod hostile;
mod read;
pub mod reading;

pub use error::{PgError, ProtocolError, Severity};
pub use frame::Header;
pub use status::TxStatus;
