//! Frames of a server: none may panic, and an error that is understood is one frame when it is said again.
//!
//! `cargo +nightly fuzz run backend` in `wire/`.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pgward_wire::frame::{HEADER_BYTES, header};
use pgward_wire::tag::backend as tag;
use pgward_wire::{PgError, backend};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some(header)) = header(rest) {
        if header.len > rest.len() {
            return;
        }
        one(header.tag, &rest[HEADER_BYTES..header.len]);
        rest = &rest[header.len..];
    }
});

fn one(tag: u8, body: &[u8]) {
    let mut out = BytesMut::new();
    match tag {
        tag::READY_FOR_QUERY => {
            let Ok(status) = backend::ready_for_query(body) else { return };
            backend::put_ready_for_query(&mut out, status);
            assert_eq!(&out[HEADER_BYTES..], body);
        }
        tag::PARAMETER_STATUS => {
            let Ok((name, value)) = backend::parameter_status(body) else { return };
            backend::put_parameter_status(&mut out, name, value);
            assert_eq!(&out[HEADER_BYTES..], body);
        }
        tag::BACKEND_KEY_DATA => drop(backend::backend_key_data(body)),
        tag::COMMAND_COMPLETE => drop(backend::command_tag(body)),
        tag::ERROR_RESPONSE | tag::NOTICE_RESPONSE => {
            let Ok(fields) = backend::error_fields(body) else { return };
            let error = PgError::from(fields);
            backend::put_error(&mut out, &error);
            let again = backend::error_fields(&out[HEADER_BYTES..]).map(PgError::from);
            assert_eq!(again.as_ref(), Ok(&error));
        }
        _ => {}
    }
}
