//! What operators write: `pgward.toml` → one validated [`Config`], or every mistake at once, each with its place.
//!
//! Text is parsed once; a [`Config`] that exists is consistent, so that nothing behind it checks again. This crate
//! also holds the words that every other room uses: classes, pools, regions, shards, nodes. It knows no sockets,
//! no clock and no runtime; environment, files and randomness come in as [`Sources`].
//!
//! | file | what is in it |
//! | --- | --- |
//! | [`model`] | the validated types |
//! | `reader` | typed access to a TOML table that notes every mistake instead of stopping at the first |
//! | `sections/` | one file for each table of the TOML: keys, defaults and their reasons |
//! | `rules/` | what must hold between tables: references, duplicates, sovereignty, ranges, capacity |
//! | [`report`] | mistakes as text, with the line and a caret |
//! | [`diff`] | what a reload changes, in words |
//! | [`moves()`] | whose rows a reload would look for elsewhere |

pub mod diff;
mod load;
pub mod model;
mod moves;
mod nearest;
mod problem;
mod reader;
pub mod report;
mod rules;
pub mod scram;
mod sections;
mod sources;
pub mod units;

pub use diff::{diff, needs_restart};
pub use load::{Loaded, control_socket, control_socket_of, load, parse, parse_with};
pub use model::*;
pub use moves::{moves, remembering};
pub use problem::{Problem, Severity};
pub use report::Report;
pub use sources::Sources;
