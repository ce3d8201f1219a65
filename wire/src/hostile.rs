//! What every parser of a body has to stand, in one place: tests only.

use std::fmt::Debug;

/// Parses the body whole, cut at every offset, with junk behind it, without any of its NULs, and with each of its bytes
/// changed. Only the whole body may be taken as what it is; a changed byte may give another message, never a panic.
pub(crate) fn exact<T: Debug>(body: &[u8], parse: impl Fn(&[u8]) -> Option<T>) {
    assert!(parse(body).is_some(), "the whole body");
    for cut in 0..body.len() {
        let taken = parse(&body[..cut]);
        assert!(taken.is_none(), "cut at {cut}: {taken:?}");
    }
    for junk in [&b"\0"[..], b"x", b"\0\0\0\0", b"Q\0\0\0\x05\0"] {
        let taken = parse(&[body, junk].concat());
        assert!(taken.is_none(), "with {junk:?} behind it: {taken:?}");
    }
    let no_nul: Vec<u8> = body.iter().map(|byte| if *byte == 0 { b'x' } else { *byte }).collect();
    if no_nul != body {
        let taken = parse(&no_nul);
        assert!(taken.is_none(), "without a NUL: {taken:?}");
    }
    for at in 0..body.len() {
        for lie in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = body.to_vec();
            changed[at] = lie;
            parse(&changed);
        }
    }
}
