//! PgWard against real PostgreSQL: what the end-to-end tests stand on.
//!
//! A [`Deployment`] is a small reference deployment of its own: shards with streaming replicas, a `pgward serve`
//! process in front, patients loaded through it. Tests that only look share one of four shards
//! ([`Deployment::shared`]); tests that break things start their own. Everything is on free ports and in temporary
//! folders, and is gone when the test process is gone.

mod deployment;
mod records;
mod wire;

pub use deployment::{Deployment, Options};
pub use records::Records;
pub use wire::{Frame, WireClient};

/// The SQLSTATE of an error that a server or PgWard sent; panics on any other result.
#[track_caller]
pub fn sqlstate<T: std::fmt::Debug>(result: Result<T, tokio_postgres::Error>) -> String {
    let error = result.expect_err("an error was expected");
    error.code().unwrap_or_else(|| panic!("not an error of a server: {error:?}")).code().to_owned()
}
