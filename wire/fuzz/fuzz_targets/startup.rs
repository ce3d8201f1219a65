//! A connection's first packet, and its length: no panic, and what is taken is all of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_wire::frame::{MAX_STARTUP_BYTES, startup_len};
use pgward_wire::parsers::{PARSERS, Sender};

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(len)) = startup_len(bytes) else { return };
    assert!((8..=MAX_STARTUP_BYTES).contains(&len));
    let Some(body) = bytes.get(4..len) else { return };
    for parser in PARSERS.iter().filter(|parser| parser.sender == Sender::Caller) {
        let _ = (parser.parse)(body);
    }
});
