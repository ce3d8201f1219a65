//! A whole deployment on one machine: real PostgreSQL clusters, made-up patients, and PgWard in front.
//!
//! `pgward demo`, the end-to-end tests and the benches all start their servers here, so that what a newcomer tries by
//! hand is what the tests hold. Nothing in here is on the way of a statement, and nothing in here is for production:
//! the clusters trade durability for a quick start.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`installation`] | finds PostgreSQL's programs, and the account that servers run as |
//! | [`ports`] | free ports that stay free |
//! | [`postgres`] | one server: start, stop, crash, pause |
//! | [`cluster`] | shards of a primary and its streaming replicas |
//! | [`guardian`] | stops the servers when the process that started them is gone |
//! | [`layout`] | the regions, shards, listeners and users of the demo |
//! | [`schema`] | tables, roles and reference codes, made on each primary |
//! | [`data`] | patients and their records, the same for the same seed |
//! | [`load`] | brings them in through PgWard |
//! | [`toml`] | writes the `pgward.toml` of a layout |
//! | [`instance`] | a running `pgward serve` |
//! | [`manifest`] | `demo.json`, for scripts |
//! | [`running`] | all of these, brought up in order |
//! | [`steps`] | tells how far that is |
//! | [`tour`] | what is printed then |

pub mod cluster;
pub mod data;
pub mod guardian;
pub mod installation;
pub mod instance;
pub mod layout;
pub mod load;
pub mod manifest;
pub mod ports;
pub mod postgres;
pub mod running;
pub mod schema;
pub mod steps;
pub mod toml;
pub mod tour;
