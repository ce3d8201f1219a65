//! Frames of a client: none may panic, a Parse and a Bind that are taken must survive being written again.
//!
//! `cargo +nightly fuzz run frontend` in `wire/`.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pgward_wire::frame::{HEADER_BYTES, header};
use pgward_wire::frontend::{self, Bind, Close, Describe, Execute, Parse, SaslInitialResponse};
use pgward_wire::tag::frontend as tag;

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
        tag::QUERY => drop(frontend::query(body)),
        tag::PARSE => {
            let Ok(parse) = Parse::from_body(body) else { return };
            let types: Vec<u32> = parse.param_types().collect();
            frontend::put_parse(&mut out, parse.name, parse.text, &types);
            assert_eq!(&out[HEADER_BYTES..], body);
        }
        tag::BIND => {
            let Ok(bind) = Bind::from_body(body) else { return };
            for n in 0..=bind.len() + 1 {
                assert_eq!(bind.value(n).is_some(), (1..=bind.len()).contains(&n));
                bind.binary(n);
            }
            frontend::put_bind_renamed(&mut out, body, bind.statement);
            assert_eq!(&out[HEADER_BYTES..], body);
        }
        tag::DESCRIBE => drop(Describe::from_body(body)),
        tag::CLOSE => drop(Close::from_body(body)),
        tag::EXECUTE => drop(Execute::from_body(body)),
        tag::PASSWORD => drop(SaslInitialResponse::from_body(body)),
        _ => {}
    }
}
