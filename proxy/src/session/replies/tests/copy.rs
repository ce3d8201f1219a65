//! Answers to COPY, whose rows the client was told to send before the server was.

use super::*;

/// A COPY whose client was told to send rows, and its Sync where it did not come as a Query.
fn invited(simple: bool, error: Option<bytes::Bytes>) -> Played {
    let ops = |work: &mut Work| {
        let text = work.store(b"COPY t FROM STDIN");
        work.ops.push(Op::CopyRows { text, simple });
    };
    let mut played = Played::of(ops, Hold::No);
    if !simple {
        played.work.ops.push(Op::Sync);
        played.emit(Hold::No);
    }
    for expect in &mut played.work.expects {
        if let Expect::CopyRows { error: own, .. } = expect {
            own.clone_from(&error);
        }
    }
    played
}

/// What the server says before it takes rows.
fn ahead(simple: bool) -> Vec<u8> {
    if simple { Vec::new() } else { [backend::PARSE_COMPLETE, backend::BIND_COMPLETE].concat() }
}

#[test]
fn checked_rows_are_copied_without_a_second_invitation() {
    for simple in [true, false] {
        let mut played = invited(simple, None);
        assert!(played.hear(&[&ahead(simple)[..], &copy_in()].concat()));
        assert!(played.client.is_empty() && played.heard.copy_in.is_none());
        let server = [&ahead(simple)[..], &copy_in(), &complete("COPY 2"), &ready(b'I')].concat();
        let played = play(|| invited(simple, None), &server);
        assert_settled(&played);
        assert_eq!(played.client, [complete("COPY 2"), ready(b'I')].concat());
        assert_eq!((played.heard.status, played.heard.copy_in), (Some(TxStatus::Idle), Some(false)));

        let server = [&ahead(simple)[..], &copy_in(), &error("duplicate key"), &ready(b'E')].concat();
        let failed = play(|| invited(simple, None), &server);
        assert_settled(&failed);
        assert!(!failed.heard.skip_to_sync, "its Sync has come");
        assert_eq!(failed.client, [error("duplicate key"), ready(b'E')].concat());

        let played = play(|| invited(simple, Some(own_error())), &server);
        assert_settled(&played);
        assert_eq!(played.client, [&own_error()[..], &ready(b'E')].concat());
        assert_eq!(played.heard.events, [Event::Failed]);
    }
}

#[test]
fn what_is_sent_behind_a_copy_that_fails_is_skipped_to_the_sync() {
    let script = || {
        let ops = |work: &mut Work| {
            let text = work.store(b"COPY t FROM STDIN");
            work.ops.push(Op::CopyRows { text, simple: false });
        };
        Played::of(ops, Hold::No)
    };
    for server in [error("no such column"), [&ahead(false)[..], &copy_in(), &error("duplicate key")].concat()] {
        let failed = play(script, &server);
        assert!(failed.heard.skip_to_sync && failed.work.expects.is_empty());
        assert_eq!(failed.heard.copy_in, Some(false));
    }
}

/// The Execute of a COPY whose rows need no look.
fn execute_copy(work: &mut Work) {
    let frame = work.store(b"E\0\0\0\x09\0\0\0\0\0");
    work.ops.push(Op::Execute { frame, effects: Some(Box::new([Effect::CopyIn])) });
}

#[test]
fn what_is_behind_a_copy_waits_until_it_has_begun_or_failed() {
    let statement = prepared("COPY t FROM STDIN");
    let script = || {
        let ops = |work: &mut Work| {
            bind(work, &statement, "");
            execute_copy(work);
        };
        Played::of(ops, Hold::No)
    };
    assert!(script().work.copy_asked);
    let mut played = script();
    let head = [backend::PARSE_COMPLETE, backend::BIND_COMPLETE].concat();
    assert!(played.hear(&head) && played.work.copy_asked, "neither begun nor failed");
    assert!(played.hear(&copy_in()) && !played.work.copy_asked);
    assert_eq!(played.heard.copy_in, Some(true));

    let begun = play(script, &[&head, &copy_in()[..]].concat());
    assert!(!begun.work.copy_asked && begun.heard.copy_in == Some(true));
    assert_eq!(begun.client, [backend::BIND_COMPLETE, &copy_in()].concat());
    for failure in [error("at once"), [&head, &error("no such column")[..]].concat()] {
        let failed = play(script, &failure);
        assert!(!failed.work.copy_asked && failed.heard.skip_to_sync);
    }
    let odd = play(script, &[&head, &complete("COPY 0")[..]].concat());
    assert!(!odd.work.copy_asked, "nobody waits for a COPY that is over");
}

#[test]
fn the_end_of_one_copy_is_not_the_beginning_of_the_next() {
    let statement = prepared("COPY t FROM STDIN");
    let copy = |work: &mut Work| {
        bind(work, &statement, "");
        execute_copy(work);
    };
    let mut played = Played::of(copy, Hold::No);
    assert!(played.hear(&[backend::PARSE_COMPLETE, backend::BIND_COMPLETE, &copy_in()].concat()));
    copy(&mut played.work);
    played.emit(Hold::No);
    assert!(played.hear(&complete("COPY 1")) && played.work.copy_asked, "the second has not begun");
    assert!(played.hear(&[backend::BIND_COMPLETE, &copy_in()].concat()) && !played.work.copy_asked);
}

#[test]
fn rows_that_go_out_pass() {
    let out = message(tag::COPY_OUT_RESPONSE, b"\0\0\x01\0\0");
    let data = message(tag::COPY_DATA, &[b'x'; 300]);
    let server = [out, data, message(tag::COPY_DONE, b""), complete("COPY 1"), ready(b'I')].concat();
    let played = play(|| Played::of(|work| query(work, "COPY t TO STDOUT"), Hold::No), &server);
    assert_settled(&played);
    assert_eq!(played.client, server);
}
