//! Answers to what the proxy sends ahead of the client's own: swallowed, unless they concern the client.

use pgward_wire::PgError;

use super::*;

#[test]
fn a_parse_that_was_sent_ahead_is_not_seen() {
    let (first, second) = (prepared("SELECT 1"), prepared("SELECT 2"));
    let script = || {
        let ops = |work: &mut Work| {
            for (statement, name) in [(&first, "s"), (&second, "")] {
                bind(work, statement, name);
                execute(work);
            }
            work.ops.push(Op::Sync);
        };
        Played::of(ops, Hold::UntilAnswered)
    };
    let answer = [backend::BIND_COMPLETE, &row("1"), &complete("SELECT 1")].concat();
    let server = [backend::PARSE_COMPLETE, &answer, backend::PARSE_COMPLETE, &answer, &ready(b'I')].concat();
    let mut played = play(script, &server);
    assert_settled(&played);
    assert_eq!(played.client, [&answer[..], &answer, &ready(b'I')].concat());
    assert!(played.memory.has_prepared(first.id) && !played.memory.has_prepared(second.id));
    assert_eq!(played.memory.unnamed, Some(second.id));
}

#[test]
fn a_parse_that_was_sent_ahead_fails_in_the_clients_face() {
    for name in ["s", ""] {
        let statement = prepared("SELECT gone");
        let ops = |work: &mut Work| {
            bind(work, &statement, name);
            execute(work);
            work.ops.push(Op::Sync);
        };
        let server = [error("column \"gone\" does not exist"), ready(b'E')].concat();
        let mut played = play(|| Played::of(ops, Hold::UntilAnswered), &server);
        assert_settled(&played);
        assert_eq!(played.client, server);
        assert!(!played.memory.has_prepared(statement.id) && played.memory.unnamed.is_none());
        assert_eq!(played.heard.events, [Event::Failed]);
        assert!(played.unparsed().is_empty(), "the client has prepared it, if elsewhere");
        assert!(!played.heard.skip_to_sync, "its Sync is here");
    }
}

#[test]
fn what_the_proxy_sent_ahead_is_swallowed_with_its_parameters() {
    let script = || {
        let mut played = Played::default();
        played.work.expects.push_back(Expect::SilentQuery { opens: false });
        played.work.expects.push_back(Expect::SilentQuery { opens: true });
        query(&mut played.work, "SELECT 1");
        played.emit(Hold::UntilAnswered);
        played
    };
    let set = [complete("RESET"), parameter("TimeZone", "UTC"), complete("SET"), ready(b'I')].concat();
    let begin = [complete("BEGIN"), complete("SAVEPOINT"), ready(b'T')].concat();
    let answer = [parameter("in_hot_standby", "on"), columns(), row("1"), complete("SELECT 1"), ready(b'T')].concat();
    let mut played = script();
    assert!(played.hear(&[&set[..], &begin].concat()));
    assert!(played.client.is_empty() && !played.work.answered, "another server could still answer");
    let played = play(script, &[set, begin, answer.clone()].concat());
    assert_settled(&played);
    assert_eq!(played.client, answer);
    assert_eq!(played.heard.status, Some(TxStatus::InTransaction));
    assert!(played.heard.events.is_empty());
}

#[test]
fn a_failure_of_what_the_proxy_sent_ahead_is_not_the_clients() {
    let script = || {
        let mut played = Played::default();
        played.work.expects.push_back(Expect::SilentQuery { opens: false });
        query(&mut played.work, "SELECT 1");
        played.emit(Hold::UntilAnswered);
        played
    };
    let played = play(script, &[error("no such parameter"), ready(b'I')].concat());
    assert_eq!(played.heard.silent_failure.as_ref().map(PgError::message), Some("no such parameter"));
    assert!(played.client.is_empty() && !played.work.answered);
}

#[test]
fn a_describers_sync_is_swallowed() {
    let statement = prepared("SELECT 1");
    let ops = |work: &mut Work| {
        parse(work, &statement, "a");
        work.ops.push(Op::SilentSync);
        work.ops.push(Op::Fake(ready(b'T').into()));
    };
    let played = play(|| Played::of(ops, Hold::UntilAnswered), &[backend::PARSE_COMPLETE, &ready(b'I')].concat());
    assert_settled(&played);
    assert_eq!(played.client, [backend::PARSE_COMPLETE, &ready(b'T')].concat());
    assert_eq!(played.heard.status, None, "the session's transaction is not the describer's");
    let played = play(|| Played::of(ops, Hold::UntilAnswered), &[error("gone"), ready(b'I')].concat());
    assert_settled(&played);
    assert_eq!(played.client, [error("gone"), ready(b'T')].concat());
    assert_eq!(played.unparsed().len(), 1);
}

#[test]
fn a_large_row_of_a_silent_query_is_dropped_in_parts() {
    let mut played = Played::default();
    played.work.expects.push_back(Expect::SilentQuery { opens: false });
    for part in row(&"x".repeat(100_000)).chunks(7_000) {
        assert!(played.hear(part));
        assert!(played.work.from_server.is_empty());
    }
    assert!(played.hear(&[complete("SELECT 1"), ready(b'I')].concat()));
    assert_settled(&played);
    assert!(played.client.is_empty());
}
