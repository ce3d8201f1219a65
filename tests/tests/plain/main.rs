//! What clients see of a plain pooler. All tests share one, which has a listener for each way to come in.
#![allow(missing_docs, clippy::unwrap_used)]

mod session;
mod transaction;

use pgward_tests::PlainPooler;

async fn shared() -> &'static PlainPooler {
    PlainPooler::shared(env!("CARGO_BIN_EXE_pgward-under-test")).await
}
