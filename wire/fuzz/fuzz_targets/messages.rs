//! The body of any message that is parsed: no panic, and what is taken says the same body when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_wire::parsers::PARSERS;

fuzz_target!(|data: &[u8]| {
    let [which, body @ ..] = data else { return };
    let parser = &PARSERS[usize::from(*which) % PARSERS.len()];
    assert_eq!((parser.parse)(body), (parser.parse)(body), "{}", parser.function);
});
