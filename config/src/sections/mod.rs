//! One file for each part of the TOML: its keys, what they may be, and their defaults with the reason.
//!
//! A section looks only at itself. What must hold between sections is in `rules`.

pub(crate) mod audit;
pub(crate) mod directory;
pub(crate) mod health;
pub(crate) mod identifier;
pub(crate) mod listeners;
pub(crate) mod peers;
pub(crate) mod plain;
pub(crate) mod pools;
pub(crate) mod proxy;
pub(crate) mod regions;
pub(crate) mod sharding;
pub(crate) mod shards;
pub(crate) mod tables;
pub(crate) mod url;
pub(crate) mod users;

use std::net::SocketAddr;

use crate::model::{Class, PoolMode};

/// The words for classes.
pub(crate) const CLASSES: [(&str, Class); 5] = [
    ("emergency", Class::Emergency),
    ("critical", Class::Critical),
    ("high", Class::High),
    ("normal", Class::Normal),
    ("low", Class::Low),
];

/// The words for pool modes. PgBouncer's third, `statement`, is not offered: it forbids transactions.
pub(crate) const POOL_MODES: [(&str, PoolMode); 2] =
    [("transaction", PoolMode::Transaction), ("session", PoolMode::Session)];

/// What an address to listen on looks like.
pub(crate) const ADDRESS: &str = r#"an IP address with a port such as "0.0.0.0:5432" or "[::1]:5432""#;

/// Reads an address to listen on. Names are not looked up: what they mean would depend on when one asks.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address with a port"))
}
