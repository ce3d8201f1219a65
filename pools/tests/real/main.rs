//! The fleet against real PostgreSQL servers.
#![allow(clippy::unwrap_used)]

mod cluster;
mod fleet;
mod health;
mod leases;
