//! Scripts of ops and of a server's bytes, cut wherever a read can cut them: what reaches the client, what is left in
//! the queue and what the session learns may not depend on the cuts.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Buf;
use pgward_wire::{PgError, backend};

use super::super::emit::tests::{bind, describe_portal, execute, parse, prepared, query};
use super::super::emit::{Hold, emit};
use super::super::work::Op;
use super::*;

mod ahead;
mod called;
mod copy;
mod extended;
mod notices;
mod once;
mod random;
mod server;
mod simple;
mod stale;

/// A session's part in a script: its work, its server's memory, and what came of the server's bytes.
#[derive(Default)]
struct Played {
    work: Work,
    memory: ServerMemory,
    client: BytesMut,
    heard: Heard,
    broken: Option<String>,
    /// The statements of the script.
    statements: Vec<u64>,
}

impl Played {
    /// A script of ops, emitted.
    fn of(ops: impl FnOnce(&mut Work), hold: Hold) -> Self {
        let mut played = Self::default();
        ops(&mut played.work);
        played.emit(hold);
        played
    }

    fn emit(&mut self, hold: Hold) {
        self.statements.extend(self.work.ops.iter().filter_map(|op| match op {
            Op::Parse { statement, .. }
            | Op::Prepare { statement, .. }
            | Op::Call { statement, .. }
            | Op::Bind { statement, .. }
            | Op::Describe { statement, .. } => Some(statement.id),
            _ => None,
        }));
        emit(&mut self.work, &mut self.memory, &mut self.client, hold);
    }

    /// Takes in a chunk as the relay does. False: the server is given up.
    fn hear(&mut self, chunk: &[u8]) -> bool {
        let mut heard = Heard { verbatim: self.heard.verbatim, retry: self.heard.retry, ..Heard::default() };
        let mut kept = std::mem::take(&mut self.work.from_server);
        kept.extend_from_slice(chunk);
        match hear(&mut self.work, &mut self.memory, &kept, &mut self.client, &mut heard) {
            Ok(consumed) => {
                assert!(consumed.run.start <= consumed.run.end && consumed.run.end <= consumed.upto);
                self.client.extend_from_slice(&kept[consumed.run]);
                kept.advance(consumed.upto);
                self.work.from_server = kept;
            }
            Err(error) => self.broken = Some(error.to_string()),
        }
        self.note(heard);
        self.heard.retry &= !self.work.answered;
        self.broken.is_none() && self.heard.fatal.is_none() && self.heard.silent_failure.is_none()
    }

    fn note(&mut self, heard: Heard) {
        self.heard.status = heard.status.or(self.heard.status);
        self.heard.events.extend(heard.events);
        self.heard.skipped.extend(heard.skipped);
        self.heard.skip_to_sync |= heard.skip_to_sync;
        self.heard.copy_in = heard.copy_in.or(self.heard.copy_in);
        self.heard.silent_failure = self.heard.silent_failure.take().or(heard.silent_failure);
        self.heard.fatal = self.heard.fatal.take().or(heard.fatal);
    }

    /// Names whose Parse failed or was skipped, with their statements.
    fn unparsed<'a>(&'a self) -> Vec<(&'a str, u64)> {
        let text = |name: &'a Option<Box<[u8]>>| name.as_deref().map_or("", |name| str::from_utf8(name).unwrap());
        let of = |skipped: &'a Skipped| match skipped {
            Skipped::Parse { name, id } => Some((text(name), *id)),
            Skipped::Close { .. } => None,
        };
        self.heard.skipped.iter().filter_map(of).collect()
    }

    /// All that may not depend on where the server's bytes were cut. Of a server that is given up, only what has
    /// reached the client counts.
    fn outcome(&mut self) -> String {
        let Self { work, memory, client, heard, broken, statements } = self;
        if broken.is_some() {
            return "broken".to_owned();
        }
        if heard.fatal.is_some() || heard.silent_failure.is_some() {
            return format!("{client:?} {:?} {:?} {:?}", work.answered, heard.fatal, heard.silent_failure);
        }
        let known: Vec<u64> = statements.iter().copied().filter(|id| memory.has_prepared(*id)).collect();
        let rest = (work.passing, &work.from_server, &work.held, work.answered, known, memory.unnamed);
        format!("{client:?} {:?} {rest:?} {heard:?}", work.expects)
    }
}

/// Plays a script with the server's bytes in one read, in two reads cut at every offset, and byte by byte.
fn play(script: impl Fn() -> Played, server: &[u8]) -> Played {
    let mut whole = script();
    whole.hear(server);
    let outcome = whole.outcome();
    for cut in 1..server.len() {
        let mut parts = script();
        if parts.hear(&server[..cut]) {
            parts.hear(&server[cut..]);
        }
        assert_eq!(parts.outcome(), outcome, "cut at {cut}");
    }
    let mut bytes = script();
    let _ = server.chunks(1).all(|byte| bytes.hear(byte));
    assert_eq!(bytes.outcome(), outcome, "byte by byte");
    whole
}

/// A message of the server's.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put(&mut out, tag, body);
    out.to_vec()
}

fn row(value: &str) -> Vec<u8> {
    let mut out = BytesMut::new();
    backend::put_data_row(&mut out, &[Some(value)]);
    out.to_vec()
}

fn columns() -> Vec<u8> {
    let mut out = BytesMut::new();
    backend::put_row_description(&mut out, &["id"]);
    out.to_vec()
}

fn complete(command: &str) -> Vec<u8> {
    message(tag::COMMAND_COMPLETE, &[command.as_bytes(), b"\0"].concat())
}

fn ready(status: u8) -> Vec<u8> {
    message(tag::READY_FOR_QUERY, &[status])
}

fn error(message: &'static str) -> Vec<u8> {
    let mut out = BytesMut::new();
    backend::put_error(&mut out, &PgError::error("42601", message));
    out.to_vec()
}

fn own_error() -> Bytes {
    error("refused by the proxy").into()
}

fn parameter(name: &str, value: &str) -> Vec<u8> {
    let mut out = BytesMut::new();
    backend::put_parameter_status(&mut out, name, value);
    out.to_vec()
}

fn copy_in() -> Vec<u8> {
    message(tag::COPY_IN_RESPONSE, b"\0\0\x01\0\0")
}

/// Everything is said and everything answered.
fn assert_settled(played: &Played) {
    assert_eq!(played.broken, None);
    assert!(played.work.expects.is_empty(), "{:?}", played.work.expects);
    assert!(played.work.from_server.is_empty() && played.work.passing == 0);
}
