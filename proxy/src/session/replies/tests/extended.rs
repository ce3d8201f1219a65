//! Answers to pipelines of the extended protocol.

use super::super::super::settings::Change;
use super::*;

#[test]
fn a_pipeline_is_answered_in_order() {
    let statement = prepared("SELECT 1");
    let script = || {
        let ops = |work: &mut Work| {
            for name in ["", "s"] {
                parse(work, &statement, name);
                work.ops.push(Op::Describe { statement: Arc::clone(&statement), named: !name.is_empty() });
                bind(work, &statement, name);
                describe_portal(work);
                execute(work);
            }
            work.ops.push(Op::Sync);
        };
        Played::of(ops, Hold::UntilAnswered)
    };
    let types = message(tag::PARAMETER_DESCRIPTION, b"\0\0");
    let parse = [backend::PARSE_COMPLETE, &types, &columns(), backend::BIND_COMPLETE, &columns()].concat();
    let rows = [&parse[..], &row("1"), &complete("SELECT 1")].concat();
    let none = [backend::PARSE_COMPLETE, &types, backend::NO_DATA, backend::BIND_COMPLETE, backend::NO_DATA].concat();
    let suspended = message(tag::PORTAL_SUSPENDED, b"");
    let server = [&rows[..], &none, &suspended, &ready(b'T')].concat();
    let played = play(script, &server);
    assert_settled(&played);
    assert_eq!(played.client, server);
    assert_eq!(played.heard.status, Some(TxStatus::InTransaction));
    let server = [&none[..], backend::EMPTY_QUERY_RESPONSE, &rows, &ready(b'I')].concat();
    let played = play(script, &server);
    assert_settled(&played);
    assert_eq!(played.client, server);
}

#[test]
fn an_error_skips_to_sync() {
    let (first, second) = (prepared("SELECT 1"), prepared("SELECT 2"));
    let ops = |work: &mut Work| {
        parse(work, &first, "a");
        bind(work, &first, "a");
        execute(work);
        parse(work, &second, "b");
        bind(work, &second, "b");
        execute(work);
        work.ops.push(Op::Sync);
    };
    let server = [backend::PARSE_COMPLETE, &error("no"), &ready(b'I')].concat();
    let mut played = play(|| Played::of(ops, Hold::UntilAnswered), &server);
    assert_settled(&played);
    assert_eq!(played.client, server);
    assert_eq!(played.unparsed(), [("b", second.id)]);
    assert!(played.memory.has_prepared(first.id) && !played.memory.has_prepared(second.id));
}

#[test]
fn an_error_before_the_clients_sync_is_told_to_the_session() {
    let statement = prepared("SELECT gone");
    let ops = |work: &mut Work| {
        parse(work, &statement, "a");
        work.ops.push(Op::Flush);
    };
    let mut played = play(|| Played::of(ops, Hold::UntilAnswered), &error("gone"));
    assert_settled(&played);
    assert_eq!(played.client, error("gone"));
    assert!(played.heard.skip_to_sync);
    assert_eq!((played.heard.status, &played.unparsed()[..]), (None, &[("a", statement.id)][..]));
    played.work.ops.push(Op::Sync);
    played.emit(Hold::No);
    assert!(played.hear(&ready(b'I')));
    assert_settled(&played);
    assert_eq!(played.client, [error("gone"), ready(b'I')].concat());
}

#[test]
fn the_error_of_a_refused_statement_is_the_proxys() {
    let simple = |work: &mut Work| work.ops.push(Op::Refuse { error: own_error(), simple: true });
    let server = [error("syntax error at or near \"PGWARD_REFUSED_THE_STATEMENT\""), ready(b'E')].concat();
    let played = play(|| Played::of(simple, Hold::No), &server);
    assert_settled(&played);
    assert_eq!(played.client, [&own_error()[..], &ready(b'E')].concat());
    assert_eq!((played.heard.status, &played.heard.events[..]), (Some(TxStatus::Failed), &[Event::Failed][..]));

    let statement = prepared("SELECT 1");
    let extended = |work: &mut Work| {
        bind(work, &statement, "s");
        execute(work);
        work.ops.push(Op::Refuse { error: own_error(), simple: false });
        work.ops.push(Op::Sync);
    };
    let before = [backend::BIND_COMPLETE, &row("1"), &complete("SELECT 1")].concat();
    let server = [backend::PARSE_COMPLETE, &before, &error("no pgward_refused"), &ready(b'E')].concat();
    let played = play(|| Played::of(extended, Hold::No), &server);
    assert_settled(&played);
    assert_eq!(played.client, [&before[..], &own_error(), &ready(b'E')].concat());

    let server = [backend::PARSE_COMPLETE, &error("an earlier one"), &ready(b'E')].concat();
    let played = play(|| Played::of(extended, Hold::No), &server);
    assert_settled(&played);
    assert_eq!(played.client, [error("an earlier one"), ready(b'E')].concat());
}

#[test]
fn replies_of_the_proxys_own_come_in_their_turn() {
    let (known, new) = (prepared("SELECT 1"), prepared("SELECT 2"));
    for hold in [Hold::UntilAnswered, Hold::No] {
        let script = || {
            let mut played = Played::default();
            played.memory.prepare(known.id);
            parse(&mut played.work, &known, "a");
            parse(&mut played.work, &new, "b");
            parse(&mut played.work, &known, "c");
            bind(&mut played.work, &new, "b");
            execute(&mut played.work);
            played.work.ops.push(Op::Fake(Bytes::from_static(backend::CLOSE_COMPLETE)));
            played.work.ops.push(Op::Sync);
            played.emit(hold);
            let first = if hold == Hold::No { backend::PARSE_COMPLETE } else { b"" };
            assert_eq!(&played.client[..], first, "{hold:?}");
            played
        };
        let done = complete("SELECT 0");
        let server = [backend::PARSE_COMPLETE, backend::BIND_COMPLETE, &done, &ready(b'I')].concat();
        let played = play(script, &server);
        assert_settled(&played);
        let parses = backend::PARSE_COMPLETE.repeat(3);
        let want = [&parses[..], backend::BIND_COMPLETE, &done, backend::CLOSE_COMPLETE, &ready(b'I')].concat();
        assert_eq!(played.client, want, "{hold:?}");
    }
}

#[test]
fn a_close_that_is_skipped_is_told_to_the_session() {
    let (kept, failing) = (prepared("SELECT 1"), prepared("SELECT gone"));
    let close = |work: &mut Work| {
        work.ops.push(Op::CloseStatement {
            name: Some(b"k"[..].into()),
            statement: Arc::clone(&kept),
            reply: backend::CLOSE_COMPLETE,
        });
    };
    let ops = |work: &mut Work| {
        parse(work, &failing, "f");
        close(work);
        work.ops.push(Op::Sync);
    };
    let failed = [error("no"), ready(b'I')].concat();
    let played = play(|| Played::of(ops, Hold::UntilAnswered), &failed);
    assert_settled(&played);
    assert_eq!(played.client, failed);
    assert!(
        matches!(&played.heard.skipped[..], [Skipped::Parse { .. }, Skipped::Close { statement, .. }] if statement.id == kept.id)
    );
    let done = [backend::PARSE_COMPLETE, &ready(b'I')].concat();
    let played = play(|| Played::of(ops, Hold::UntilAnswered), &done);
    assert_settled(&played);
    assert_eq!(played.client, [backend::PARSE_COMPLETE, backend::CLOSE_COMPLETE, &ready(b'I')].concat());
    assert!(played.heard.skipped.is_empty());
}

#[test]
fn what_a_suspended_portal_changed_is_told_to_the_session() {
    let statement = prepared("SELECT set_config('a', '1', false)");
    let set = || Effect::Set(vec![Change { name: "a".into(), value: Some("'1'".to_owned()) }]);
    let script = || {
        let ops = |work: &mut Work| {
            bind(work, &statement, "");
            let frame = work.store(b"E\0\0\0\x09\0\0\0\0\x01");
            work.ops.push(Op::Execute { frame, effects: Some([set()].into()) });
            execute(work);
            work.ops.push(Op::Sync);
        };
        Played::of(ops, Hold::No)
    };
    let head = [backend::PARSE_COMPLETE, backend::BIND_COMPLETE].concat();
    let suspended = message(tag::PORTAL_SUSPENDED, b"");
    let server = [&head[..], &row("1"), &suspended, &complete("SELECT 0"), &ready(b'I')].concat();
    let played = play(script, &server);
    assert_settled(&played);
    assert_eq!(played.heard.events, [Event::Uncertain, Event::Done(set())]);
    let server = [&head[..], backend::EMPTY_QUERY_RESPONSE, &suspended, &ready(b'I')].concat();
    let played = play(script, &server);
    assert_settled(&played);
    assert_eq!(played.heard.events[0], Event::Uncertain);
}
