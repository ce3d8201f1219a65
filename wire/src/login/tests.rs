#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::frame::header;

/// Recorded from PostgreSQL 15.18 with `trust`.
const TRUST: &[u8] = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x16application_name\0\0S\0\0\0\x19client_encoding\0UTF8\0\
    S\0\0\0\x17DateStyle\0ISO, MDY\0S\0\0\0&default_transaction_read_only\0off\0S\0\0\0\x17in_hot_standby\0off\0\
    S\0\0\0\x19integer_datetimes\0on\0S\0\0\0\x1bIntervalStyle\0postgres\0S\0\0\0\x14is_superuser\0on\0\
    S\0\0\0\x19server_encoding\0UTF8\0S\0\0\x002server_version\x0015.18 (Debian 15.18-0+deb12u1)\0\
    S\0\0\0#session_authorization\0postgres\0S\0\0\0#standard_conforming_strings\0on\0S\0\0\0\x11TimeZone\0UTC\0\
    K\0\0\0\x0c\0\0\x0e\x88\xc7\x92#\x10Z\0\0\0\x05I";

/// Recorded from the same server: AuthenticationOk is no promise.
const REFUSED: &[u8] = b"R\0\0\0\x08\0\0\0\0E\0\0\0gSFATAL\0VFATAL\0C28000\0Mrole \"nobody_here\" does not exist\0\
    Fmiscinit.c\0L768\0RInitializeSessionUserId\0\0";

/// Recorded from the same server with `scram-sha-256`.
const SASL: &[u8] = b"R\0\0\0\x17\0\0\0\nSCRAM-SHA-256\0\0";

/// Feeds whole frames until the login is done, fails, or the bytes end.
fn feed(login: &mut Login, mut bytes: &[u8], out: &mut BytesMut) -> Result<Step, LoginError> {
    let mut step = Step::Continue;
    while let Some(header) = header(bytes)?.filter(|header| header.len <= bytes.len()) {
        step = login.frame(header.tag, &bytes[5..header.len], out)?;
        bytes = &bytes[header.len..];
    }
    Ok(step)
}

fn auth(method: u32, data: &[u8]) -> Vec<u8> {
    [&method.to_be_bytes(), data].concat()
}

fn login(password: Option<&str>) -> Login {
    Login::new("md5_user", password, "healthcare", &[]).0
}

#[test]
fn the_startup_packet_names_user_database_and_settings() {
    let (_, packet) = Login::new("app", None, "healthcare", &[("application_name", "pgward")]);
    let first = crate::startup::FirstPacket::parse(&packet[4..]).unwrap();
    let crate::startup::FirstPacket::Startup(startup) = first else { panic!("a startup") };
    assert_eq!((startup.minor, startup.user(), startup.database()), (0, Some("app"), Some("healthcare")));
    assert_eq!(startup.get("application_name"), Some("pgward"));
    assert_eq!(packet.len(), u32::from_be_bytes(packet[..4].try_into().unwrap()) as usize);
}

#[test]
fn a_trusting_server_is_greeted() {
    let (mut login, mut out) = (login(None), BytesMut::new());
    assert_eq!(feed(&mut login, TRUST, &mut out), Ok(Step::Done));
    assert!(out.is_empty());
    let greeting = login.into_greeting();
    assert_eq!((greeting.pid, &greeting.key[..]), (3720, &[0xc7, 0x92, b'#', 0x10][..]));
    assert_eq!(greeting.parameters.len(), 13);
    assert_eq!(greeting.parameters[12], ("TimeZone".to_owned(), "UTC".to_owned()));
    assert!(!format!("{greeting:?}").contains("199"), "the key stays out of logs");
}

#[test]
fn a_login_cut_anywhere_is_not_done() {
    for cut in 0..TRUST.len() {
        assert_ne!(feed(&mut login(None), &TRUST[..cut], &mut BytesMut::new()), Ok(Step::Done), "cut at {cut}");
    }
}

#[test]
fn a_refusal_is_told_in_the_servers_words() {
    let error = feed(&mut login(None), REFUSED, &mut BytesMut::new()).unwrap_err();
    let LoginError::Refused(error) = error else { panic!("{error:?}") };
    assert_eq!((error.sqlstate(), error.message()), ("28000", "role \"nobody_here\" does not exist"));
}

#[test]
fn a_login_that_has_ended_takes_nothing_more() {
    let mut failed = login(None);
    feed(&mut failed, REFUSED, &mut BytesMut::new()).unwrap_err();
    let mut done = login(None);
    feed(&mut done, TRUST, &mut BytesMut::new()).unwrap();
    for login in [&mut failed, &mut done] {
        for (tag, body) in [(b'Z', &b"I"[..]), (b'S', b"a\0b\0"), (b'R', &[0; 4]), (b'N', b"\0")] {
            assert!(login.frame(tag, body, &mut BytesMut::new()).is_err());
        }
    }
}

#[test]
fn md5_is_answered_with_the_salted_hash() {
    let (mut login, mut out) = (login(Some("password")), BytesMut::new());
    login.frame(b'R', &auth(5, &[0x2a, 0x3d, 0x8f, 0xe0]), &mut out).unwrap();
    assert_eq!(&out[..], b"p\0\0\0\x28md562af4dd09bbb41884907a838a3233294\0");
    assert_eq!(feed(&mut login, TRUST, &mut out), Ok(Step::Done));
}

#[test]
fn cleartext_is_answered_with_the_password() {
    let (mut login, mut out) = (login(Some("password")), BytesMut::new());
    login.frame(b'R', &auth(3, b""), &mut out).unwrap();
    assert_eq!(&out[..], b"p\0\0\0\x0dpassword\0");
    assert_eq!(feed(&mut login, TRUST, &mut out), Ok(Step::Done));
}

#[test]
fn a_missing_password_is_said_in_words() {
    let refused = |body: &[u8]| login(None).frame(b'R', body, &mut BytesMut::new()).unwrap_err();
    assert_eq!(refused(&auth(3, b"")), LoginError::NoPassword("cleartext"));
    assert_eq!(refused(&auth(5, b"salt")), LoginError::NoPassword("md5"));
    assert_eq!(refused(&auth(10, b"SCRAM-SHA-256\0\0")), LoginError::NoPassword("SCRAM-SHA-256"));
}

#[test]
fn methods_that_are_not_spoken_are_named() {
    let refused = |body: &[u8]| login(Some("x")).frame(b'R', body, &mut BytesMut::new()).unwrap_err().to_string();
    assert!(refused(&auth(7, b"")).contains("GSSAPI"));
    assert!(refused(&auth(10, b"SCRAM-SHA-512\0\0")).contains("SCRAM-SHA-256"));
}

/// The server's side of SCRAM, by pgwire: both sides must come to the same keys.
mod scram {
    use pgwire::api::auth::sasl::scram::{
        ScramSecret, ScramServerAuth, ScramServerAuthWaitingForClientFinal, gen_salted_password,
    };

    use super::*;

    fn begun(password: &str) -> (Login, ScramServerAuthWaitingForClientFinal, Vec<u8>) {
        let (mut login, mut out) = (login(Some(password)), BytesMut::new());
        assert_eq!(feed(&mut login, SASL, &mut out), Ok(Step::Continue));
        let initial = crate::frontend::SaslInitialResponse::from_body(&out[5..]).unwrap();
        assert_eq!(initial.mechanism, b"SCRAM-SHA-256");
        let salted = gen_salted_password("pencil", b"sixteen bytes ..", 4096);
        let secret = ScramSecret::verifier_from_salted_password(b"sixteen bytes ..".to_vec(), salted, 4096);
        let (first, waiting) =
            ScramServerAuth::new().on_client_first_message_with_secret(initial.data, secret).unwrap();
        (login, waiting, auth(11, first.as_bytes()))
    }

    #[test]
    fn both_sides_prove_the_password() {
        let (mut login, server, first) = begun("pencil");
        let mut out = BytesMut::new();
        login.frame(b'R', &first, &mut out).unwrap();
        let last = server.on_client_final_message(&out[5..]).unwrap();
        login.frame(b'R', &auth(12, last.as_bytes()), &mut out).unwrap();
        assert_eq!(feed(&mut login, TRUST, &mut out), Ok(Step::Done));
    }

    #[test]
    fn a_wrong_password_proves_nothing() {
        let (mut login, server, first) = begun("pen");
        let mut out = BytesMut::new();
        login.frame(b'R', &first, &mut out).unwrap();
        server.on_client_final_message(&out[5..]).unwrap_err();
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_refused() {
        let (mut login, _, first) = begun("pencil");
        login.frame(b'R', &first, &mut BytesMut::new()).unwrap();
        let last = auth(12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        assert!(matches!(login.frame(b'R', &last, &mut BytesMut::new()), Err(LoginError::Scram(_))));
    }

    #[test]
    fn a_server_cannot_skip_its_proof() {
        for steps in 0..2 {
            let (mut login, _, first) = begun("pencil");
            if steps == 1 {
                login.frame(b'R', &first, &mut BytesMut::new()).unwrap();
            }
            assert!(login.frame(b'R', &auth(0, b""), &mut BytesMut::new()).is_err());
            assert!(feed(&mut login, TRUST, &mut BytesMut::new()).is_err(), "it stays refused");
        }
    }

    #[test]
    fn a_server_cannot_ask_for_the_password_after_all() {
        for (method, data) in [(3, &b""[..]), (5, b"salt"), (10, b"SCRAM-SHA-256\0\0")] {
            let (mut login, _, _) = begun("pencil");
            let mut out = BytesMut::new();
            assert!(login.frame(b'R', &auth(method, data), &mut out).is_err());
            assert!(out.is_empty());
        }
    }

    #[test]
    fn messages_cut_short_or_with_junk_are_refused() {
        let (_, _, first) = begun("pencil");
        for cut in 4..first.len() - 4 {
            let (mut login, _, first) = begun("pencil");
            // A shorter number of iterations at the very end is another valid message.
            assert!(login.frame(b'R', &first[..cut], &mut BytesMut::new()).is_err(), "cut at {cut}");
        }
        let (mut login, _, first) = begun("pencil");
        assert!(login.frame(b'R', &[&first[..], b",x"].concat(), &mut BytesMut::new()).is_err());
        let (mut login, _, first) = begun("pencil");
        let endless = [&first[..first.len() - 4], b"2000000000"].concat();
        assert!(login.frame(b'R', &endless, &mut BytesMut::new()).is_err(), "iterations that would never end");
    }
}

proptest! {
    #[test]
    fn any_frames_are_a_step_or_an_error(frames in vec((any::<u8>(), vec(any::<u8>(), 0..60)), 0..8)) {
        let (mut login, mut out) = (login(Some("x")), BytesMut::new());
        for (tag, body) in &frames {
            if login.frame(*tag, body, &mut out).is_err() {
                break;
            }
        }
    }

    #[test]
    fn authentication_in_any_order_is_a_step_or_an_error(
        frames in vec((prop::sample::select(vec![0u32, 3, 5, 7, 10, 11, 12]), vec(any::<u8>(), 0..40)), 0..6),
    ) {
        let (mut login, mut out) = (login(Some("x")), BytesMut::new());
        for (method, data) in &frames {
            let _ = login.frame(b'R', &auth(*method, data), &mut out);
        }
    }
}
