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

#[test]
fn other_copies_pass_and_an_early_sync_is_noted() {
    let statement = prepared("COPY t FROM STDIN");
    let ops = |work: &mut Work| {
        bind(work, &statement, "");
        execute(work);
        work.ops.push(Op::Sync);
    };
    let head = [backend::BIND_COMPLETE, &copy_in()].concat();
    let mut played = Played::of(ops, Hold::No);
    assert!(played.hear(&[backend::PARSE_COMPLETE, &head].concat()));
    assert_eq!(played.client, head);
    assert!(played.heard.early_sync && played.heard.copy_in == Some(true));

    let out = message(tag::COPY_OUT_RESPONSE, b"\0\0\x01\0\0");
    let data = message(tag::COPY_DATA, &[b'x'; 300]);
    let server = [out, data, message(tag::COPY_DONE, b""), complete("COPY 1"), ready(b'I')].concat();
    let played = play(|| Played::of(|work| query(work, "COPY t TO STDOUT"), Hold::No), &server);
    assert_settled(&played);
    assert_eq!(played.client, server);
    assert!(!played.heard.early_sync);
}
