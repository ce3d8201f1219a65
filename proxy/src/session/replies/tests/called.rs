//! Answers to PREPARE and EXECUTE of what the session keeps: those of the extended protocol, told as those of a Query.

use super::super::super::prepared::Prepared;
use super::*;

fn call(work: &mut Work, statement: &Arc<Prepared>) {
    let body = work.store(b"\0\0\0\0\0\0\0\0");
    let effects = Some([Effect::ResetAll].into());
    work.ops.push(Op::Call { statement: Arc::clone(statement), body, effects });
    work.ops.push(Op::Sync);
}

fn prepare(work: &mut Work, statement: &Arc<Prepared>) {
    work.ops.push(Op::Prepare { statement: Arc::clone(statement), name: b"q"[..].into(), before: 13 });
    work.ops.push(Op::Sync);
}

#[test]
fn an_execute_is_answered_as_a_query() {
    let statement = prepared("SELECT 1");
    let rows = [columns(), row("1"), complete("SELECT 1"), ready(b'T')].concat();
    let none = [complete("UPDATE 3"), ready(b'I')].concat();
    for (described, answer) in [(&b""[..], rows), (backend::NO_DATA, none)] {
        for ahead in [backend::PARSE_COMPLETE, b""] {
            let script = || {
                let mut played = Played::default();
                if ahead.is_empty() {
                    played.memory.prepare(statement.id);
                }
                call(&mut played.work, &statement);
                played.emit(Hold::UntilAnswered);
                played
            };
            let server = [ahead, backend::BIND_COMPLETE, described, &answer].concat();
            let played = play(script, &server);
            assert_settled(&played);
            assert_eq!(played.client, answer);
            assert_eq!(played.heard.events, [Event::Done(Effect::ResetAll)]);
            assert!(!played.heard.skip_to_sync);
        }
    }
}

#[test]
fn an_execute_fails_as_a_query() {
    let statement = prepared("SELECT 1");
    let answer = [error("no"), ready(b'E')].concat();
    for before in [&b""[..], &[backend::PARSE_COMPLETE, backend::BIND_COMPLETE, backend::NO_DATA].concat()] {
        let server = [before, &answer].concat();
        let mut played = play(|| Played::of(|work| call(work, &statement), Hold::UntilAnswered), &server);
        assert_settled(&played);
        assert_eq!(played.client, answer);
        assert_eq!(played.heard.events, [Event::Failed]);
        assert!(!played.heard.skip_to_sync, "no Sync of the client's is to come");
        assert_eq!(played.memory.has_prepared(statement.id), !before.is_empty());
    }
}

#[test]
fn a_prepare_is_answered_by_its_tag_and_leaves_no_name_where_it_fails() {
    let statement = prepared("SELECT 1");
    let script = || Played::of(|work| prepare(work, &statement), Hold::UntilAnswered);
    let mut played = play(script, &[backend::PARSE_COMPLETE, &ready(b'I')].concat());
    assert_settled(&played);
    assert_eq!(played.client, [complete("PREPARE"), ready(b'I')].concat());
    assert!(played.memory.has_prepared(statement.id) && played.heard.skipped.is_empty());

    let answer = [error("no"), ready(b'I')].concat();
    let mut played = play(script, &answer);
    assert_settled(&played);
    assert_eq!(played.client, answer);
    assert_eq!(played.unparsed(), [("q", statement.id)]);
    assert!(!played.memory.has_prepared(statement.id) && !played.heard.skip_to_sync);

    let at = |place: &str| {
        let fields = format!("SERROR\0VERROR\0C42703\0Mno\0P{place}\0Rrow\0\0");
        [message(tag::ERROR_RESPONSE, fields.as_bytes()), ready(b'I')].concat()
    };
    assert_eq!(play(script, &at("8")).client, at("21"), "its place in the client's text");

    // What the server has need not be said to it.
    let known = || {
        let mut played = Played::default();
        played.memory.prepare(statement.id);
        prepare(&mut played.work, &statement);
        played.emit(Hold::UntilAnswered);
        played
    };
    let played = play(known, &ready(b'I'));
    assert_settled(&played);
    assert_eq!(played.client, [complete("PREPARE"), ready(b'I')].concat());
}

#[test]
fn an_execute_that_finds_its_statement_stale_is_said_anew() {
    let statement = prepared("SELECT * FROM t");
    let stale = message(
        tag::ERROR_RESPONSE,
        b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0RRevalidateCachedQuery\0\0",
    );
    let script = || {
        let mut played = Played::default();
        played.memory.prepare(statement.id);
        played.work.allow_repair();
        call(&mut played.work, &statement);
        played.emit(Hold::UntilAnswered);
        played
    };
    let answer = [columns(), row("1"), complete("SELECT 1"), ready(b'I')].concat();
    let anew = [backend::CLOSE_COMPLETE, backend::PARSE_COMPLETE, backend::BIND_COMPLETE].concat();
    let played = play(script, &[stale, ready(b'I'), anew, answer.clone()].concat());
    assert_settled(&played);
    assert_eq!(played.client, answer);
    assert_eq!(played.heard.events, [Event::Done(Effect::ResetAll)]);
}
