//! PgWard against real PostgreSQL: what the end-to-end tests stand on.
//!
//! A [`Deployment`] is a small reference deployment of its own: shards with streaming replicas, a `pgward serve`
//! process in front, patients loaded through it. Tests that only look share one of four shards
//! ([`Deployment::shared`]); tests that break things start their own. Everything is on free ports and in temporary
//! folders, and is gone when the test process is gone.

mod deployment;
mod plain;
mod query;
mod records;
mod wire;

pub use deployment::{Deployment, Options, SERVER_PASSWORD};
pub use plain::{PlainPooler, ROLE_PASSWORD};
pub use query::{answered_by, answers, one, sqlstate};
pub use records::Records;
pub use wire::{Frame, WireClient};
