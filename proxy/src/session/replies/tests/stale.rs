//! "cached plan must not change result type": the segment is said anew where nothing of it was answered.

use super::super::super::prepared::Prepared;
use super::*;

fn stale() -> Vec<u8> {
    message(
        tag::ERROR_RESPONSE,
        b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0RRevalidateCachedQuery\0\0",
    )
}

/// Parse of a statement that the server has, Describe, Bind, Execute, Sync.
fn described_and_run(statement: &Arc<Prepared>, transaction: bool) -> Played {
    let mut played = Played::default();
    played.memory.prepare(statement.id);
    if !transaction {
        played.work.allow_repair();
    }
    parse(&mut played.work, statement, "s");
    played.work.ops.push(Op::Describe { statement: Arc::clone(statement), named: true });
    bind(&mut played.work, statement, "s");
    execute(&mut played.work);
    played.work.ops.push(Op::Sync);
    played.emit(Hold::UntilAnswered);
    played.work.to_server.clear();
    played
}

fn tags(mut bytes: &[u8]) -> String {
    let mut tags = String::new();
    while let Some(header) = frame::header(bytes).unwrap() {
        tags.push(char::from(header.tag));
        bytes = &bytes[header.len..];
    }
    tags
}

/// What a server says that describes the statement and then finds it stale.
fn found_stale() -> Vec<u8> {
    [message(tag::PARAMETER_DESCRIPTION, b"\0\0"), stale(), ready(b'I')].concat()
}

fn answered() -> Vec<u8> {
    let types = message(tag::PARAMETER_DESCRIPTION, b"\0\0");
    [&types, &columns(), backend::BIND_COMPLETE, &row("1"), &complete("SELECT 1"), &ready(b'I')].concat()
}

#[test]
fn the_client_hears_of_the_second_answer_alone() {
    let statement = prepared("SELECT * FROM t");
    let anew = [backend::CLOSE_COMPLETE, backend::PARSE_COMPLETE].concat();
    let server = [found_stale(), anew, answered()].concat();
    let played = play(|| described_and_run(&statement, false), &server);
    assert_settled(&played);
    assert_eq!(played.client, [backend::PARSE_COMPLETE, &answered()].concat());
    assert_eq!(tags(&played.work.to_server), "CPDBES", "closed, prepared anew, and the client's own messages");
    assert_eq!((played.heard.events.len(), played.heard.skipped.len()), (0, 0));
    let mut memory = played.memory;
    assert!(memory.has_prepared(played.statements[0]));
}

#[test]
fn without_the_clients_sync_the_server_gets_one() {
    let statement = prepared("SELECT * FROM t");
    let mut played = Played::default();
    played.memory.prepare(statement.id);
    played.work.allow_repair();
    bind(&mut played.work, &statement, "s");
    execute(&mut played.work);
    played.work.ops.push(Op::Flush);
    played.emit(Hold::UntilAnswered);
    played.work.to_server.clear();
    assert!(played.hear(&stale()));
    assert_eq!(tags(&played.work.to_server), "SCPBEH");
    let rest =
        [backend::CLOSE_COMPLETE, backend::PARSE_COMPLETE, backend::BIND_COMPLETE, &complete("SELECT 0")].concat();
    assert!(played.hear(&[ready(b'I'), rest].concat()));
    assert_settled(&played);
    assert_eq!(played.client, [backend::BIND_COMPLETE, &complete("SELECT 0")].concat());
}

#[test]
fn a_second_time_the_client_is_told() {
    let statement = prepared("SELECT * FROM t");
    let server =
        [found_stale(), backend::CLOSE_COMPLETE.to_vec(), backend::PARSE_COMPLETE.to_vec(), found_stale()].concat();
    let played = play(|| described_and_run(&statement, false), &server);
    assert_settled(&played);
    assert_eq!(played.client, [backend::PARSE_COMPLETE, &found_stale()].concat());
    assert_eq!(played.heard.events, [Event::Failed]);
}

#[test]
fn in_a_transaction_the_client_is_told_and_the_statement_is_closed_at_its_next_use() {
    let statement = prepared("SELECT * FROM t");
    let mut played = play(|| described_and_run(&statement, true), &found_stale());
    assert_settled(&played);
    assert_eq!(played.client, [backend::PARSE_COMPLETE, &found_stale()].concat());
    assert_eq!(played.heard.events, [Event::Failed]);
    played.work.clear_segment();
    bind(&mut played.work, &statement, "s");
    played.emit(Hold::No);
    assert_eq!(tags(&played.work.to_server), "CPB");
}

#[test]
fn what_was_answered_is_not_said_anew() {
    let server = [backend::NO_DATA, &stale(), &ready(b'I')].concat();
    let (first, second) = (prepared("DELETE FROM t"), prepared("SELECT * FROM t"));
    let script = || {
        let mut played = Played::default();
        played.memory.prepare(first.id);
        played.memory.prepare(second.id);
        played.work.allow_repair();
        played.work.ops.push(Op::Describe { statement: Arc::clone(&first), named: true });
        bind(&mut played.work, &second, "s");
        played.work.ops.push(Op::Sync);
        played.emit(Hold::UntilAnswered);
        played
    };
    let played = play(script, &server);
    assert_settled(&played);
    assert_eq!(played.client, server);
}

#[test]
fn a_segment_that_is_not_kept_whole_is_not_said_anew() {
    let statement = prepared("UPDATE t SET a = 1");
    let mut played = Played::default();
    played.memory.prepare(statement.id);
    // As a session says writes, which go to no other server.
    for _ in 0..70 {
        played.work.allow_repair();
        for op in [bind, |work: &mut Work, _: &Arc<Prepared>, _: &str| execute(work)] {
            op(&mut played.work, &statement, "s");
            played.emit(Hold::No);
            if !played.work.may_repair() {
                played.work.forget_emitted();
            }
        }
    }
    played.work.ops.push(Op::Sync);
    played.emit(Hold::No);
    played.work.to_server.clear();
    let failed = [stale(), ready(b'I')].concat();
    assert!(played.hear(&failed));
    assert_settled(&played);
    assert_eq!(played.client, failed);
    assert!(played.work.to_server.is_empty(), "nothing of it may run without the rest");
}

#[test]
fn what_was_not_closed_takes_no_other_statement_s_place() {
    let (old, kept, new) = (prepared("SELECT 1"), prepared("SELECT 2"), prepared("SELECT 3"));
    let mut played = Played::default();
    played.memory.limit = 2;
    played.memory.prepare(old.id);
    played.memory.prepare(kept.id);
    bind(&mut played.work, &kept, "k");
    bind(&mut played.work, &new, "n");
    played.work.ops.push(Op::Sync);
    played.emit(Hold::No);
    assert!(played.hear(&[error("no"), ready(b'I')].concat()));
    assert_settled(&played);
    let memory = &mut played.memory;
    assert_eq!([old.id, kept.id, new.id].map(|id| memory.has_prepared(id)), [true, true, false]);
}

#[test]
fn a_flush_is_answered_though_the_statement_behind_it_may_be_stale() {
    let statement = prepared("SELECT * FROM t");
    let mut played = Played::default();
    played.memory.prepare(statement.id);
    played.work.expects.push_back(Expect::SilentQuery { opens: false });
    played.work.allow_repair();
    parse(&mut played.work, &statement, "s");
    played.work.ops.push(Op::Flush);
    played.work.ops.push(Op::Describe { statement: Arc::clone(&statement), named: true });
    played.emit(Hold::UntilAnswered);
    assert!(played.hear(&[complete("SET"), ready(b'I')].concat()));
    assert_eq!(played.client, backend::PARSE_COMPLETE);
}
