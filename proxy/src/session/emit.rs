//! Says ops to a server: names as this server knows them, what it lacks sent ahead, and what answers are to come.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pgward_pools::ServerMemory;
use pgward_wire::{backend, frontend};

use super::prepared::{Prepared, ServerName};
use super::work::{Answer, Effect, Effects, Expect, Op, Work};

/// A statement name that no server has: a Bind of it fails, and with it the transaction that a refused statement
/// stands in.
const REFUSED_STATEMENT: &[u8] = b"pgward_refused";
/// A Query that fails in the server's parser, for the same purpose.
const REFUSED_QUERY: &[u8] = b"PGWARD_REFUSED_THE_STATEMENT";

/// Writes the ops that this server has not been told yet into `work.to_server` and queues what answers them. Replies
/// that are due at once go to `to_client`.
pub(crate) fn emit(work: &mut Work, memory: &mut ServerMemory, to_client: &mut BytesMut, hold: Hold) {
    let ops = std::mem::take(&mut work.ops);
    for op in &ops[work.emitted..] {
        emit_one(work, memory, op, to_client, hold);
    }
    work.emitted = ops.len();
    work.ops = ops;
}

/// Whether replies of the proxy's own may go before the server has answered anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// They wait for the server's first reply, so that until then the segment can be said to another node.
    UntilAnswered,
    /// They go when their turn comes.
    No,
}

fn emit_one(work: &mut Work, memory: &mut ServerMemory, op: &Op, to_client: &mut BytesMut, hold: Hold) {
    match op {
        Op::Query { text, effects } => {
            memory.unnamed = None;
            frontend::put_query(&mut work.to_server, &work.arena[text.clone()]);
            work.expects.push_back(Expect::Query { effects: effects.clone(), done: 0 });
        }
        Op::CopyRows { text, simple } => copy_rows(work, memory, text, *simple),
        Op::Parse { statement, name } => parse(work, memory, statement, name, to_client, hold),
        Op::Prepare { statement, .. } if memory.has_prepared(statement.id) && is_due(work, hold) => {
            fake(work, Bytes::from_static(backend::PREPARED), to_client, hold);
        }
        Op::Prepare { statement, name, before } => sql_prepare(work, memory, statement, name, *before),
        Op::Call { statement, body, effects } => call(work, memory, statement, body, effects),
        Op::Bind { statement, named, body } => {
            let server_name = prepare(work, memory, statement, *named);
            let name = server_name.as_ref().map_or(&b""[..], ServerName::as_bytes);
            frontend::put_bind_renamed(&mut work.to_server, &work.arena[body.clone()], name);
            work.expects.push_back(Expect::Bind { id: statement.id });
        }
        Op::Describe { statement, named } => {
            let server_name = prepare(work, memory, statement, *named);
            let name = server_name.as_ref().map_or(&b""[..], ServerName::as_bytes);
            frontend::put_describe_statement(&mut work.to_server, name);
            work.expects.push_back(Expect::Describe { id: Some(statement.id) });
        }
        Op::Execute { frame, effects } => {
            work.to_server.extend_from_slice(&work.arena[frame.clone()]);
            work.copy_asked = effects.iter().flatten().any(|effect| *effect == Effect::CopyIn);
            work.unsynced = true;
            work.expects.push_back(Expect::Execute { effects: effects.clone() });
        }
        Op::Raw { frame, answer } => {
            work.to_server.extend_from_slice(&work.arena[frame.clone()]);
            match answer {
                Some(Answer::Describe) => work.expects.push_back(Expect::Describe { id: None }),
                Some(Answer::Close) => work.expects.push_back(Expect::Close),
                None => {}
            }
        }
        Op::Flush => {
            frontend::put_flush(&mut work.to_server);
            due_fakes(work, to_client);
            // What the client waits for now cannot be held back until the server says something.
            if work.expects.iter().any(Expect::is_fake) {
                work.give_up_repair();
            }
        }
        Op::Sync => sync(work, Expect::Sync),
        Op::SilentSync => sync(work, Expect::SilentSync),
        Op::ForeignSync { status } => sync(work, Expect::ForeignSync { status: *status }),
        Op::Fake(bytes) => fake(work, bytes.clone(), to_client, hold),
        Op::CloseStatement { reply, .. } if is_due(work, hold) => {
            fake(work, Bytes::from_static(reply), to_client, hold);
        }
        Op::CloseStatement { name, statement, reply } => {
            let (name, statement) = (name.clone(), Arc::clone(statement));
            work.expects.push_back(Expect::FakeClose { name, statement, reply });
        }
        Op::Refuse { error, simple: true } => {
            memory.unnamed = None;
            frontend::put_query(&mut work.to_server, REFUSED_QUERY);
            work.expects.push_back(Expect::RefusedQuery { error: Some(error.clone()) });
        }
        Op::Refuse { error, simple: false } => {
            // Bind: no parameters, no formats, of a statement that does not exist.
            frontend::put_bind_renamed(&mut work.to_server, b"\0\0\0\0\0\0\0\0", REFUSED_STATEMENT);
            work.expects.push_back(Expect::Refused { error: error.clone() });
        }
    }
}

fn sync(work: &mut Work, answer: Expect) {
    frontend::put_sync(&mut work.to_server);
    work.unsynced = false;
    work.expects.push_back(answer);
}

/// A COPY that did not come as a Query must not be said as one: behind an Execute without a Sync, servers of version 18
/// leave the transaction of a Query open and say that there is none.
fn copy_rows(work: &mut Work, memory: &mut ServerMemory, text: &Range<usize>, simple: bool) {
    memory.unnamed = None;
    let text = &work.arena[text.clone()];
    if simple {
        frontend::put_query(&mut work.to_server, text);
    } else {
        frontend::put_parse(&mut work.to_server, b"", text, &[]);
        frontend::put_bind_renamed(&mut work.to_server, b"\0\0\0\0\0\0\0\0", b"");
        frontend::put_execute(&mut work.to_server, b"");
        work.unsynced = true;
        work.expects.extend([Expect::CopyAhead, Expect::CopyAhead]);
    }
    work.expects.push_back(Expect::CopyRows { simple, error: None });
}

/// Queues a reply of the proxy's own, or sends it at once when nothing is outstanding.
pub(crate) fn fake(work: &mut Work, bytes: Bytes, to_client: &mut BytesMut, hold: Hold) {
    if is_due(work, hold) {
        to_client.extend_from_slice(&bytes);
        work.answered = true;
    } else {
        work.expects.push_back(Expect::Fake(bytes));
    }
}

/// Whether a reply can go at once: nothing of the server's stands before it, not even the rest of a message.
fn is_due(work: &Work, hold: Hold) -> bool {
    work.expects.is_empty() && work.passing == 0 && hold == Hold::No
}

/// Sends the replies of the proxy's own that nothing of the server's stands before.
fn due_fakes(work: &mut Work, to_client: &mut BytesMut) {
    while let Some(bytes) = work.pop_fake() {
        to_client.extend_from_slice(&bytes);
        work.answered = true;
    }
}

fn parse(
    work: &mut Work,
    memory: &mut ServerMemory,
    statement: &Arc<Prepared>,
    name: &Option<Box<[u8]>>,
    to_client: &mut BytesMut,
    hold: Hold,
) {
    if name.is_none() {
        memory.unnamed = Some(statement.id);
        frontend::put_parse(&mut work.to_server, b"", &statement.text, &statement.types);
    } else if memory.has_prepared(statement.id) {
        if is_due(work, hold) {
            return fake(work, Bytes::from_static(backend::PARSE_COMPLETE), to_client, hold);
        }
        return work.expects.push_back(Expect::FakeParse { id: statement.id, name: name.clone() });
    } else {
        note_prepared(work, memory, statement.id);
        let server_name = statement.server_name();
        frontend::put_parse(&mut work.to_server, server_name.as_bytes(), &statement.text, &statement.types);
    }
    work.expects.push_back(Expect::Parse { id: statement.id, name: name.clone() });
}

/// PREPARE: a Parse, unless the server has the statement already.
fn sql_prepare(work: &mut Work, memory: &mut ServerMemory, statement: &Prepared, name: &[u8], before: usize) {
    if memory.has_prepared(statement.id) {
        return work.expects.push_back(Expect::FakePrepare { id: statement.id, name: name.into() });
    }
    note_prepared(work, memory, statement.id);
    frontend::put_parse(&mut work.to_server, statement.server_name().as_bytes(), &statement.text, &statement.types);
    work.expects.push_back(Expect::Prepare { id: statement.id, name: name.into(), before });
}

/// EXECUTE: all of it but the Sync.
fn call(work: &mut Work, memory: &mut ServerMemory, statement: &Prepared, body: &Range<usize>, effects: &Effects) {
    let name = prepare(work, memory, statement, true);
    let name = name.as_ref().map_or(&b""[..], ServerName::as_bytes);
    frontend::put_bind_renamed(&mut work.to_server, &work.arena[body.clone()], name);
    frontend::put_describe_portal(&mut work.to_server, b"");
    frontend::put_execute(&mut work.to_server, b"");
    work.expects.extend([
        Expect::SilentBind { id: statement.id },
        Expect::Columns,
        Expect::Execute { effects: effects.clone() },
    ]);
}

/// Sees to it that the server has the statement, with a Parse sent ahead if it does not. Returns its name there,
/// `None` for the unnamed statement.
fn prepare(work: &mut Work, memory: &mut ServerMemory, statement: &Prepared, named: bool) -> Option<ServerName> {
    if !named {
        if memory.unnamed != Some(statement.id) {
            memory.unnamed = Some(statement.id);
            frontend::put_parse(&mut work.to_server, b"", &statement.text, &statement.types);
            work.expects.push_back(Expect::SilentParse { id: statement.id });
        }
        return None;
    }
    let name = statement.server_name();
    if !memory.has_prepared(statement.id) {
        note_prepared(work, memory, statement.id);
        frontend::put_parse(&mut work.to_server, name.as_bytes(), &statement.text, &statement.types);
        work.expects.push_back(Expect::SilentParse { id: statement.id });
    }
    Some(name)
}

/// Notes a statement as prepared, closing what stands in its place there, and the one unused for longest if the server
/// has too many.
fn note_prepared(work: &mut Work, memory: &mut ServerMemory, id: u64) {
    if memory.take_spoiled(id) {
        silent_close(work, id, true);
    }
    if let Some(evicted) = memory.prepare(id) {
        silent_close(work, evicted, false);
    }
}

fn silent_close(work: &mut Work, id: u64, spoiled: bool) {
    frontend::put_close_statement(&mut work.to_server, ServerName::new(id).as_bytes());
    work.expects.push_back(Expect::SilentClose { id, spoiled });
}

#[cfg(test)]
pub(crate) mod tests;
