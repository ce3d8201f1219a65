//! What a server's bytes did wrong to a session, once each.

use super::*;

#[test]
fn a_reply_of_the_proxys_own_waits_for_the_end_of_a_message_that_passes_in_parts() {
    let (known, described) = (prepared("SELECT 1"), prepared("SELECT id FROM t"));
    let script = || {
        let mut played = Played::default();
        played.memory.prepare(known.id);
        played.work.ops.push(Op::Describe { statement: Arc::clone(&described), named: true });
        parse(&mut played.work, &known, "k");
        played.work.ops.push(Op::Sync);
        played.emit(Hold::UntilAnswered);
        played
    };
    let types = message(tag::PARAMETER_DESCRIPTION, b"\0\0");
    let server = [backend::PARSE_COMPLETE, &types, &columns(), &ready(b'I')].concat();
    let played = play(script, &server);
    assert_settled(&played);
    assert_eq!(played.client, [&types, &columns(), backend::PARSE_COMPLETE, &ready(b'I')].concat());
}

#[test]
fn a_reply_that_comes_while_the_last_message_passes_waits_for_its_end() {
    let described = prepared("SELECT id FROM t");
    let mut played = Played::default();
    played.memory.prepare(described.id);
    played.work.ops.push(Op::Describe { statement: Arc::clone(&described), named: true });
    played.work.ops.push(Op::Flush);
    played.emit(Hold::No);
    let columns = columns();
    let (head, rest) = columns.split_at(9);
    assert!(played.hear(head));
    played.work.ops.push(Op::Fake(Bytes::from_static(backend::CLOSE_COMPLETE)));
    played.work.ops.push(Op::Flush);
    played.emit(Hold::No);
    assert_eq!(played.client, head);
    assert!(played.hear(rest));
    assert_eq!(played.client, [&columns[..], backend::CLOSE_COMPLETE].concat());
}

#[test]
fn nothing_passes_behind_a_failure_of_what_the_proxy_sent_ahead() {
    let script = || {
        let mut played = Played::default();
        played.work.expects.push_back(Expect::SilentQuery { opens: false });
        query(&mut played.work, "SELECT 1");
        played.emit(Hold::UntilAnswered);
        played
    };
    let answer = [columns(), row("1"), complete("SELECT 1"), ready(b'I')].concat();
    let played = play(script, &[error("no such parameter"), ready(b'I'), answer].concat());
    assert!(played.client.is_empty() && !played.work.answered, "the statement ran without the parameter");
}

#[test]
fn a_close_that_was_skipped_leaves_the_statement_prepared() {
    let old: Vec<_> = (0..500).map(|n| prepared(&format!("SELECT {n}"))).collect();
    let (bad, new) = (prepared("SELECT gone"), prepared("SELECT 2"));
    let script = || {
        let mut played = Played::default();
        played.memory.limit = old.len();
        for statement in &old {
            played.memory.prepare(statement.id);
        }
        parse(&mut played.work, &bad, "");
        bind(&mut played.work, &new, "n");
        played.work.ops.push(Op::Sync);
        played.emit(Hold::UntilAnswered);
        played
    };
    let mut played = script();
    assert!(!played.memory.has_prepared(old[0].id), "sent to be closed");
    played = play(script, &[error("gone"), ready(b'I')].concat());
    assert!(played.memory.has_prepared(old[0].id), "the server skipped the Close: a Parse of it fails with 42P05");
}

#[test]
fn a_parse_that_the_proxy_would_have_answered_is_skipped_with_the_others() {
    let (bad, known) = (prepared("SELECT gone"), prepared("SELECT 1"));
    let script = || {
        let mut played = Played::default();
        played.memory.prepare(known.id);
        parse(&mut played.work, &bad, "bad");
        parse(&mut played.work, &known, "known");
        played.work.ops.push(Op::Sync);
        played.emit(Hold::UntilAnswered);
        played
    };
    let mut played = play(script, &[error("gone"), ready(b'I')].concat());
    assert_eq!(played.client, [error("gone"), ready(b'I')].concat());
    assert!(played.memory.has_prepared(known.id), "the server has it all the same");
    let unparsed: Vec<_> = played.unparsed().iter().map(|(name, _)| *name).collect();
    assert_eq!(unparsed, ["bad", "known"], "else the client's next Parse of it fails with 42P05");
}
