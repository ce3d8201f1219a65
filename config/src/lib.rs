//! What operators write: `pgward.toml` → one validated [`Config`], or every mistake at once, each with its place.
//!
//! Text is parsed once; a [`Config`] that exists is consistent, so that nothing behind it checks again. This crate
//! also holds the words that every other room uses: classes, pools, regions, shards, nodes. It knows no sockets,
//! no clock and no runtime.

pub mod model;

pub use model::*;
