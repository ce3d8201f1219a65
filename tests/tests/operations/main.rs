//! What clients see of PgWard while operators change it, and when its pools are used up. Each test has a deployment of
//! its own.
#![allow(missing_docs, clippy::unwrap_used)]

mod asking;
mod cancels;
mod copy;
mod crowd;
mod describer;
mod guards;
mod held;
mod idle;
mod keys;
mod limits;
mod load;
mod lost;
mod peers;
mod pgbench;
mod pools;
mod reload;
mod stop;

use pgward::demo::layout::Layout;
use pgward_tests::{Deployment, Options};

async fn start(options: Options) -> Deployment {
    Deployment::start(env!("CARGO_BIN_EXE_pgward-under-test"), options).await.expect("the deployment starts")
}

/// Nodes are looked at often, so that tests need not wait for long.
fn watchful(layout: &mut Layout) {
    layout.health = "interval = \"200ms\"\ntimeout = \"300ms\"\nunhealthy_after = 2\nhealthy_after = 2\n".to_owned();
}
