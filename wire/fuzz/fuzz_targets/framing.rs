//! A stream of frames, in reads of any size: each read gives the frames that one read of all gives, and each body that
//! is parsed holds together.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_wire::frame::{HEADER_BYTES, header};
use pgward_wire::parsers::{Sender, of};

/// What is heard of a stream whose reads have this size, and how many bytes make no whole frame.
fn heard(sender: Sender, stream: &[u8], read: usize) -> (Vec<String>, Option<usize>) {
    let (mut unread, mut heard) = (Vec::new(), Vec::new());
    for bytes in stream.chunks(read) {
        unread.extend_from_slice(bytes);
        loop {
            let Ok(next) = header(&unread) else { return (heard, None) };
            let Some(next) = next.filter(|next| next.len <= unread.len()) else { break };
            assert!(next.len >= HEADER_BYTES);
            let frame: Vec<u8> = unread.drain(..next.len).collect();
            let parse = |parser: &pgward_wire::parsers::Parser| format!("{:?}", (parser.parse)(&frame[HEADER_BYTES..]));
            heard.extend(of(sender, next.tag).map(parse));
        }
    }
    (heard, Some(unread.len()))
}

fuzz_target!(|data: &[u8]| {
    let [read, stream @ ..] = data else { return };
    let sender = if read % 2 == 0 { Sender::Client } else { Sender::Server };
    let whole = heard(sender, stream, stream.len().max(1));
    assert_eq!(heard(sender, stream, usize::from(read / 2) + 1), whole);
});
