//! Notices go on as they come, but for what may be the last words of a server whose statement another can answer.

use super::*;

/// What a server says in its crash's wake.
const CRASH: &[u8; 5] = b"57P02";
/// What it says when it is stopped at once.
const STOP: &[u8; 5] = b"57P01";
const NOTHING: &[u8; 5] = b"00000";

pub(super) fn notice(sqlstate: &[u8; 5], text: &str) -> Vec<u8> {
    let fields = [b"SWARNING\0VWARNING\0C", &sqlstate[..], b"\0M", text.as_bytes(), b"\0\0"].concat();
    message(tag::NOTICE_RESPONSE, &fields)
}

/// A Query that another server may be asked.
fn asked() -> Played {
    let mut played = Played::of(|work| query(work, "SELECT f()"), Hold::UntilAnswered);
    played.heard.retry = true;
    played
}

#[test]
fn last_words_leave_the_statement_unanswered() {
    for sqlstate in [CRASH, STOP] {
        let mut played = play(asked, &notice(sqlstate, "terminating connection"));
        assert!(played.client.is_empty() && !played.work.answered && !played.work.held.is_empty());
        played.work.begin_server();
        assert!(played.work.held.is_empty(), "nothing of it stands before what another server says");
    }
}

#[test]
fn a_goodbye_behind_last_words_takes_them_with_it() {
    let fatal = PgError::error("57P01", "terminating connection").fatal();
    let mut goodbye = BytesMut::new();
    backend::put_error(&mut goodbye, &fatal);
    let played = play(asked, &[notice(CRASH, "terminating connection"), goodbye.to_vec()].concat());
    assert!(played.client.is_empty() && !played.work.answered && played.heard.fatal.is_some());
}

#[test]
fn a_statement_that_says_the_same_is_heard_in_its_place() {
    let last = [notice(CRASH, "one"), notice(STOP, "two")].concat();
    for answer in [[columns(), row("1"), complete("SELECT 1")].concat(), error("no"), complete("DO")] {
        let server = [&last[..], &answer, &notice(CRASH, "three"), &ready(b'I')].concat();
        let played = play(asked, &server);
        assert_settled(&played);
        assert_eq!(played.client, server);
    }
    let told = [&last[..], &notice(NOTHING, "of another sort")].concat();
    assert_eq!(play(asked, &told).client, told, "a notice of another sort shows that the server goes on");
}

#[test]
fn what_a_server_had_collected_of_an_answer_goes_down_with_it() {
    let statement = prepared("SELECT 1");
    let extended = || {
        let mut played = Played::default();
        played.heard.retry = true;
        played.memory.prepare(statement.id);
        parse(&mut played.work, &statement, "s");
        bind(&mut played.work, &statement, "s");
        describe_portal(&mut played.work);
        execute(&mut played.work);
        played.work.ops.push(Op::Sync);
        played.emit(Hold::UntilAnswered);
        played
    };
    let begun = [columns(), row("1"), complete("SELECT 1")].concat();
    let bound = [backend::BIND_COMPLETE, &begun].concat();
    let last = notice(CRASH, "terminating connection");
    for told in [&begun, &[&begun[..], &last].concat()] {
        let played = play(asked, told);
        assert!(played.client.is_empty() && !played.work.answered);
        assert_eq!(&played.work.held, told);
    }
    for told in [&bound, &[&bound[..], &last].concat()] {
        let played = play(extended, told);
        assert!(played.client.is_empty() && !played.work.answered);
        assert_eq!(played.work.held, [backend::PARSE_COMPLETE, told].concat());
        let played = play(extended, &[told, &ready(b'I')[..]].concat());
        assert_settled(&played);
        assert_eq!(played.client, [backend::PARSE_COMPLETE, told, &ready(b'I')].concat());
    }
}

#[test]
fn replies_of_the_proxys_own_stand_behind_what_was_kept_back_before_them() {
    let (one, other) = (prepared("SELECT 1"), prepared("SELECT 2"));
    let script = || {
        let mut played = Played::default();
        played.heard.retry = true;
        played.memory.prepare(one.id);
        played.memory.prepare(other.id);
        bind(&mut played.work, &one, "s");
        execute(&mut played.work);
        parse(&mut played.work, &other, "t");
        played.work.ops.push(Op::Sync);
        played.emit(Hold::UntilAnswered);
        played
    };
    let (bound, ran) = (backend::BIND_COMPLETE, complete("SELECT 0"));
    let played = play(script, &[bound, &ran, &ready(b'I')].concat());
    assert_settled(&played);
    assert_eq!(played.client, [bound, &ran, backend::PARSE_COMPLETE, &ready(b'I')].concat());
}

#[test]
fn no_more_is_kept_back_than_a_server_would_collect() {
    let rows: Vec<u8> = (0..MAX_HELD_BYTES / 50).flat_map(|_| row(&"x".repeat(40))).collect();
    let played = play(asked, &rows);
    assert_eq!((played.client.len(), played.work.held.len()), (rows.len(), 0));
    let noticed = [columns(), notice(NOTHING, "step 1")].concat();
    assert_eq!(play(asked, &noticed).client, noticed, "what stands before a notice goes with it");
}

#[test]
fn a_flush_is_answered_at_once() {
    let statement = prepared("SELECT 1");
    let script = || {
        let mut played = Played::default();
        played.heard.retry = true;
        parse(&mut played.work, &statement, "s");
        played.work.ops.push(Op::Flush);
        played.emit(Hold::UntilAnswered);
        played
    };
    assert_eq!(play(script, backend::PARSE_COMPLETE).client, backend::PARSE_COMPLETE);
}

#[test]
fn other_notices_are_not_kept_waiting() {
    let long = "long ".repeat(MAX_HELD_BYTES / 4);
    for told in [notice(NOTHING, "step 1"), message(tag::NOTICE_RESPONSE, b"MMM\0\0"), notice(CRASH, &long)] {
        let played = play(asked, &told);
        assert_eq!(played.client, told);
        assert!(played.work.answered);
    }
    let mut part = asked();
    assert!(part.hear(&notice(NOTHING, &long)[..100]));
    assert_eq!(part.client.len(), 100, "a long one goes on in parts");
}

#[test]
fn where_no_other_server_can_be_asked_nothing_is_kept_back() {
    let told = notice(CRASH, "terminating connection");
    let only = || Played::of(|work| query(work, "DO 'long'"), Hold::No);
    assert_eq!(play(only, &told).client, told);
    let begun = [columns(), row(&"1".repeat(MAX_HELD_BYTES)), told.clone()].concat();
    assert_eq!(play(asked, &begun).client, begun, "part of its answer is out");
    let own = || {
        let mut played = Played { heard: Heard { verbatim: true, ..Heard::default() }, ..Played::default() };
        played.work.expects.push_back(Expect::Query { effects: None, done: 0 });
        played
    };
    let parts = &told[..20];
    let mut played = own();
    assert!(played.hear(parts));
    assert_eq!(played.client, parts, "a plain pooler's passes in parts");
    assert_eq!(play(own, &told).client, told);
}

#[test]
fn replies_of_the_proxys_own_stand_before_what_was_kept_back() {
    let statement = prepared("SELECT f()");
    let script = || {
        let mut played = Played::default();
        played.heard.retry = true;
        played.memory.prepare(statement.id);
        played.work.allow_repair();
        parse(&mut played.work, &statement, "s");
        bind(&mut played.work, &statement, "s");
        execute(&mut played.work);
        played.work.ops.push(Op::Sync);
        played.emit(Hold::UntilAnswered);
        played
    };
    let last = notice(CRASH, "terminating connection");
    assert!(play(script, &last).client.is_empty());
    let server = [&last, backend::BIND_COMPLETE, &complete("SELECT 0"), &ready(b'I')].concat();
    assert_eq!(play(script, &server).client, [backend::PARSE_COMPLETE, &server].concat());
}
