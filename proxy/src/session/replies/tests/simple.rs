//! Answers to a simple Query.

use super::*;

#[test]
fn the_answer_to_a_query_passes_unchanged() {
    let notice = message(tag::NOTICE_RESPONSE, b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0");
    let server = [columns(), row("1"), notice, row("2"), complete("SELECT 2"), ready(b'I')].concat();
    let played = play(|| Played::of(|work| query(work, "SELECT id FROM t"), Hold::UntilAnswered), &server);
    assert_settled(&played);
    assert_eq!(played.client, server);
    assert_eq!(played.heard.status, Some(TxStatus::Idle));
    assert!(played.heard.events.is_empty() && played.work.answered);
}

#[test]
fn statements_of_a_query_take_effect_one_by_one() {
    let effects = || Some([Effect::None, Effect::Savepoint("a".into()), Effect::RollbackTo("a".into())].into());
    let script = || {
        let ops = |work: &mut Work| {
            let text = work.store(b"SELECT 1; SAVEPOINT a; ROLLBACK TO a; COMMIT");
            work.ops.push(Op::Query { text, effects: effects() });
        };
        Played::of(ops, Hold::No)
    };
    let head = [columns(), row("1"), complete("SELECT 1"), complete("SAVEPOINT"), complete("ROLLBACK")].concat();
    let server = [&head[..], &complete("COMMIT"), &ready(b'I')].concat();
    let played = play(script, &server);
    assert_settled(&played);
    assert_eq!(played.client, server);
    let done = [Event::Done(Effect::Savepoint("a".into())), Event::Done(Effect::RollbackTo("a".into()))];
    assert_eq!(played.heard.events, done.into_iter().chain([Event::Commit]).collect::<Vec<_>>());
    let server = [&head[..], &error("deferred constraint"), &ready(b'I')].concat();
    let played = play(script, &server);
    assert_settled(&played);
    assert_eq!(played.client, server);
    assert_eq!(played.heard.events.last(), Some(&Event::Failed));
    assert!(!played.heard.skip_to_sync);
}

#[test]
fn rollback_is_told_from_rollback_to() {
    let script = || Played::of(|work| query(work, "ROLLBACK"), Hold::No);
    let played = play(script, &[complete("ROLLBACK"), ready(b'I')].concat());
    assert_eq!(played.heard.events, [Event::Rollback]);
}

#[test]
fn a_large_row_passes_in_parts() {
    let large = row(&"x".repeat(100_000));
    let mut played = Played::of(|work| query(work, "SELECT 1"), Hold::UntilAnswered);
    let mut sent = 0;
    for part in large.chunks(7_000) {
        assert!(played.hear(part));
        sent += part.len();
        assert_eq!(played.client.len(), sent, "nothing waits");
        assert_eq!((played.work.from_server.len(), played.work.passing), (0, large.len() - sent));
    }
    assert!(played.hear(&[complete("SELECT 1"), ready(b'I')].concat()));
    assert_settled(&played);
    assert_eq!(&played.client[..sent], large);
}
