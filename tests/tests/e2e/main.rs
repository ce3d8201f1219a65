//! What clients see of PgWard, on a deployment of four regions that all these tests share.
#![allow(missing_docs, clippy::unwrap_used)]

mod audit;
mod cancels;
mod closing;
mod copying;
mod cursors;
mod emergency;
mod extended;
mod greeting;
mod hostile;
mod inserts;
mod kept;
mod parameters;
mod paths;
mod pipelined;
mod places;
mod portals;
mod refusals;
mod role;
mod room;
mod routing;
mod sessions;
mod splitting;
mod sql_prepared;
mod transactions;

use pgward_tests::{Deployment, Frame};

async fn shared() -> &'static Deployment {
    Deployment::shared(env!("CARGO_BIN_EXE_pgward-under-test")).await
}

/// The types of these messages. A server that another session had set otherwise reports what it is brought back to,
/// whenever that is (`S`).
fn tags(frames: &[Frame]) -> String {
    frames.iter().filter(|frame| frame.tag != b'S').map(|frame| char::from(frame.tag)).collect()
}

/// What one could tell a server's answer from another's by.
fn told(frame: &Frame) -> String {
    let body = match frame.tag {
        // What nobody expects is told in words.
        b'E' => match frame.field(b'C').unwrap() {
            code if code == "XX000" => format!("{code} {}", frame.field(b'M').unwrap()),
            code => code,
        },
        b'C' | b'Z' => String::from_utf8_lossy(&frame.body).into_owned(),
        _ => String::new(),
    };
    format!("{}{}", char::from(frame.tag), body.trim_end_matches('\0'))
}
