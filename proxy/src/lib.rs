//! PgWard: a sharding proxy for PostgreSQL that knows whose record a statement touches.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`serve`] | the process: runtimes, listeners, signals, reload, drain |
//! | `startup`, `auth`, `greeting` | from an accepted socket to a session |
//! | `plain` | the login of a plain pooler's client, at the server |
//! | `session` | one client's session: frames, decisions, servers, replies |
//! | `registry`, `cancel` | all sessions; requests to cancel what runs for one |
//! | `state` | everything that a decision needs, behind one pointer |
//! | [`directory`] | where patients are |
//! | [`catalog`] | what the servers' catalogs say |
//! | `descriptors` | how many files may be open |
//! | [`control`], [`http`], [`metrics`] | how operators reach and watch the process |
//! | [`cli`], [`demo`] | the commands of the binary |

mod accepted;
mod auth;
mod cancel;
pub mod catalog;
pub mod cli;
pub mod control;
pub mod demo;
mod descriptors;
pub mod directory;
mod greeting;
pub mod http;
pub mod metrics;
mod plain;
mod registry;
mod reload;
pub mod serve;
mod session;
mod startup;
mod state;
mod twophase;
