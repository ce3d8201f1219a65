//! A server that speaks unasked, says goodbye or breaks the protocol.

use super::*;

#[test]
fn a_goodbye_is_kept_from_the_client() {
    let mut goodbye = BytesMut::new();
    let error = PgError::error("57P01", "terminating connection due to administrator command").fatal();
    backend::put_error(&mut goodbye, &error);
    let played = play(|| Played::of(|work| query(work, "SELECT 1"), Hold::UntilAnswered), &goodbye);
    assert!(played.client.is_empty() && !played.work.answered);
    assert_eq!(played.heard.fatal.as_deref(), Some("terminating connection due to administrator command"));
    assert_eq!(played.work.expects.len(), 1, "the statement is unanswered");
    let idle = play(Played::default, &goodbye);
    assert!(idle.client.is_empty() && idle.heard.fatal.is_some());
}

#[test]
fn a_client_of_its_own_hears_all_that_a_server_says() {
    let own = || Played { heard: Heard { verbatim: true, ..Heard::default() }, ..Played::default() };
    let mut goodbye = BytesMut::new();
    backend::put_error(
        &mut goodbye,
        &PgError::error("57P05", "terminating connection due to idle-session timeout").fatal(),
    );
    let played = play(own, &goodbye);
    assert_eq!(played.client, goodbye);
    assert!(played.heard.fatal.is_some());
    let unasked = error("nothing was asked");
    assert_eq!(play(own, &unasked).client, unasked);
}

#[test]
fn a_function_call_is_answered_up_to_its_ready_for_query() {
    let called = || {
        let mut played = Played::default();
        played.work.expects.push_back(Expect::FunctionCall);
        played
    };
    let result = message(tag::FUNCTION_CALL_RESPONSE, b"\0\0\0\x04\0\0\0\x07");
    for answer in [&result, &error("function does not exist")] {
        let server = [&answer[..], &ready(b'T')].concat();
        let played = play(called, &server);
        assert_settled(&played);
        assert_eq!((&played.client[..], played.heard.status), (&server[..], Some(TxStatus::InTransaction)));
        assert!(!played.heard.skip_to_sync);
    }
    assert!(play(Played::default, &result).broken.is_some(), "nothing was called");
}

#[test]
fn what_nobody_asked_for() {
    let played = play(Played::default, &error("nothing was asked"));
    assert!(played.client.is_empty(), "an error would answer the client's next statement");
    let told = [parameter("TimeZone", "UTC"), message(tag::NOTIFICATION_RESPONSE, b"\0\0\0\x01c\0p\0")].concat();
    let played = play(Played::default, &told);
    assert_settled(&played);
    assert_eq!(played.client, told);
}

#[test]
fn a_server_that_begins_to_read_strings_otherwise_is_given_up() {
    for (name, value) in [("standard_conforming_strings", "off"), ("client_encoding", "LATIN1")] {
        let told = parameter(name, value);
        let played = play(|| Played::of(|work| query(work, "SELECT f()"), Hold::No), &told);
        assert!(played.broken.is_some(), "{name}");
        let own = || Played { heard: Heard { verbatim: true, ..Heard::default() }, ..Played::default() };
        assert_eq!(play(own, &told).client, told, "a plain pooler's client may");
    }
    let same = parameter("standard_conforming_strings", "on");
    assert_eq!(play(Played::default, &same).client, same);
}

#[test]
fn a_server_that_breaks_the_protocol_is_given_up() {
    let statement = prepared("SELECT 1");
    let pipeline = || {
        let ops = |work: &mut Work| {
            parse(work, &statement, "a");
            work.ops.push(Op::Sync);
        };
        Played::of(ops, Hold::No)
    };
    let mut oversized = vec![tag::ERROR_RESPONSE];
    oversized.extend((MAX_CONTROL_BYTES as u32 + 1).to_be_bytes());
    let cases = [
        ready(b'I'),
        ready(b'X'),
        message(tag::READY_FOR_QUERY, b"II"),
        message(tag::AUTHENTICATION, &[0; 4]),
        message(tag::COPY_BOTH_RESPONSE, b"\0\0\0"),
        message(tag::ERROR_RESPONSE, b"SERROR\0"),
        message(tag::PARAMETER_STATUS, b"one\0"),
        message(tag::COMMAND_COMPLETE, b"no end"),
        b"D\0\0\0\x03".to_vec(),
        oversized,
    ];
    for case in cases {
        let played = play(pipeline, &case);
        assert!(played.broken.is_some(), "{case:?}");
    }
    assert!(play(Played::default, &ready(b'I')).broken.is_some(), "nothing was asked");
}
