//! A client during its login to PgWard, in its two messages: no panic, nothing said to whoever is
//! refused, and nobody comes in who did not prove a password.
#![no_main]

use std::sync::LazyLock;

use auth::ScramExchange;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

// No part of the proxy's interface, and in need of nothing of the proxy.
#[allow(dead_code, unreachable_pub)]
#[path = "../../proxy/src/auth.rs"]
mod auth;

static VERIFIER: LazyLock<String> =
    LazyLock::new(|| pgward_config::scram::verifier("secret", &[1; 16], pgward_config::scram::ITERATIONS));

fuzz_target!(|data: &[u8]| {
    let [choice, len, rest @ ..] = data else { return };
    let (initial, last) = rest.split_at(usize::from(*len).min(rest.len()));
    let verifier = (choice % 2 == 0).then(|| VERIFIER.as_str());
    let mut out = BytesMut::new();
    // Half of the inputs bring a well-formed first message, to come further.
    let well_formed = b"SCRAM-SHA-256\0\0\0\0\x0cn,,n=,r=abcd";
    let initial = if choice / 2 % 2 == 0 { initial } else { well_formed };
    let Ok(proof) = ScramExchange::new(verifier, "nurse", &[7; 32]).first(initial, &mut out) else {
        assert!(out.is_empty());
        return;
    };
    assert!(out.starts_with(b"R") && out[5..9] == [0, 0, 0, 11]);
    // The last message repeats the nonce, which no input knows: given where it asks for it.
    let nonce = out[9..].strip_prefix(b"r=").and_then(|said| said.split(|byte| *byte == b',').next()).unwrap().to_vec();
    let last = match last.iter().position(|byte| *byte == 0) {
        Some(place) => [&last[..place], &nonce, &last[place + 1..]].concat(),
        None => last.to_vec(),
    };
    out.clear();
    // A proof under a nonce of ours cannot be guessed.
    assert!(proof.last(&last, &mut out).is_err());
    assert!(out.is_empty(), "no signature for whoever does not come in");
});
