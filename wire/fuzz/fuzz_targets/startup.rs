//! A connection's first packet: it may not panic, and strings that are taken hold no NUL.
//!
//! `cargo +nightly fuzz run startup` in `wire/`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_wire::frame::startup_len;
use pgward_wire::startup::FirstPacket;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(len)) = startup_len(bytes) else { return };
    let Some(body) = bytes.get(4..len) else { return };
    match FirstPacket::parse(body) {
        Ok(FirstPacket::Startup(startup)) => {
            let size: usize = startup.params.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
            assert_eq!(size + 5, body.len());
            assert!(
                startup.params.iter().all(|(name, value)| !name.is_empty() && !(name.clone() + value).contains('\0'))
            );
        }
        Ok(FirstPacket::Cancel { key, .. }) => assert_eq!(key.len() + 8, body.len()),
        Ok(FirstPacket::SslRequest | FirstPacket::GssEncRequest) => assert_eq!(body.len(), 4),
        Err(_) => {}
    }
});
