//! A server during our login: no panic, and nobody is logged in who asked for SCRAM and did not prove the password.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pgward_wire::frame::{HEADER_BYTES, header};
use pgward_wire::login::{Login, Step};

fuzz_target!(|bytes: &[u8]| {
    let (mut login, _) = Login::new("pgward", Some("secret"), "postgres", &[]);
    let mut out = BytesMut::new();
    let mut scram = false;
    let mut rest = bytes;
    while let Ok(Some(header)) = header(rest) {
        if header.len > rest.len() {
            return;
        }
        let body = &rest[HEADER_BYTES..header.len];
        rest = &rest[header.len..];
        match login.frame(header.tag, body, &mut out) {
            Ok(Step::Continue) => scram |= header.tag == b'R' && body.starts_with(&[0, 0, 0, 10]),
            Ok(Step::Done) => {
                // A signature under a nonce of ours cannot be guessed.
                assert!(!scram);
                drop(login.into_greeting());
                return;
            }
            Err(_) => return,
        }
    }
});
