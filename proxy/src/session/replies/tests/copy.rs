//! Answers to COPY, whose rows the client was told to send before the server was.

use super::*;

#[test]
fn checked_rows_are_copied_without_a_second_invitation() {
    for simple in [true, false] {
        let script = || {
            let ops = |work: &mut Work| {
                let text = work.store(b"COPY t FROM STDIN");
                work.ops.push(Op::CopyRows { text, simple });
            };
            Played::of(ops, Hold::No)
        };
        let mut played = script();
        assert!(played.hear(&copy_in()));
        assert!(played.client.is_empty() && played.heard.copy_in.is_none());
        let played = play(script, &[copy_in(), complete("COPY 2"), ready(b'I')].concat());
        assert_settled(&played);
        let ready_seen = if simple { ready(b'I') } else { Vec::new() };
        assert_eq!(played.client, [complete("COPY 2"), ready_seen.clone()].concat());
        assert_eq!((played.heard.status, played.heard.copy_in), (Some(TxStatus::Idle), Some(false)));

        let server = [copy_in(), error("duplicate key"), ready(b'E')].concat();
        let failed = play(script, &server);
        assert_settled(&failed);
        assert_eq!(failed.heard.skip_to_sync, !simple);
        let ready_seen = if simple { ready(b'E') } else { Vec::new() };
        assert_eq!(failed.client, [error("duplicate key"), ready_seen.clone()].concat());

        let refused = || {
            let mut played = script();
            for expect in &mut played.work.expects {
                if let Expect::CopyRows { error, .. } = expect {
                    *error = Some(own_error());
                }
            }
            played
        };
        let played = play(refused, &server);
        assert_settled(&played);
        assert_eq!(played.client, [&own_error()[..], &ready_seen].concat());
        assert_eq!(played.heard.events, [Event::Failed]);
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
