//! Every parser of the list against everything that a hostile peer, or a network that cuts where it likes, can do.
#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::frame::{header, put, startup_len};
use crate::hostile;

/// Each parser with each of its samples.
fn samples() -> impl Iterator<Item = (&'static Parser, &'static [u8])> {
    PARSERS.iter().flat_map(|parser| parser.samples.iter().map(move |sample| (parser, *sample)))
}

/// What the parser makes of a body, without the words of its refusal.
fn taken(parser: &Parser, body: &[u8]) -> Option<String> {
    (parser.parse)(body).ok()
}

/// The message with this body.
fn framed(parser: &Parser, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    match parser.tags.first() {
        Some(tag) => put(&mut out, *tag, body),
        None => {
            out.extend((body.len() as u32 + 4).to_be_bytes());
            out.extend(body);
        }
    }
    out.to_vec()
}

/// What all parsers of a message make of it.
fn made(sender: Sender, tag: Option<u8>, body: &[u8]) -> String {
    let of_this = |parser: &&Parser| parser.sender == sender && tag.is_none_or(|tag| parser.tags.contains(&tag));
    let mut made: Vec<_> = PARSERS
        .iter()
        .filter(of_this)
        .map(|parser| format!("{}: {:?}", parser.function, (parser.parse)(body)))
        .collect();
    made.dedup();
    assert!(!made.is_empty(), "a message that has a parser");
    made.join(", ")
}

/// A connection's reading end: takes bytes as they come, and parses each message that is whole.
struct Connection {
    sender: Sender,
    unread: Vec<u8>,
    heard: Vec<String>,
}

impl Connection {
    fn new(sender: Sender) -> Self {
        Self { sender, unread: Vec::new(), heard: Vec::new() }
    }

    /// An error is heard, and nothing behind it.
    fn feed(&mut self, bytes: &[u8]) {
        self.unread.extend(bytes);
        loop {
            let first = self.sender == Sender::Caller;
            let next = if first {
                startup_len(&self.unread).map(|len| len.map(|len| (len, 0, 4)))
            } else {
                header(&self.unread).map(|header| header.map(|header| (header.len, header.tag, HEADER_BYTES)))
            };
            let Ok(next) = next else { return self.heard.push("no frame".to_owned()) };
            let Some((len, tag, start)) = next.filter(|(len, ..)| *len <= self.unread.len()) else { return };
            let frame: Vec<u8> = self.unread.drain(..len).collect();
            self.heard.push(made(self.sender, (!first).then_some(tag), &frame[start..]));
            if first {
                self.sender = Sender::Client;
            }
        }
    }
}

/// Whoever writes a parser has to name it in the list.
#[test]
fn no_parser_is_missing() {
    let sources = [
        ("frontend", include_str!("../frontend.rs")),
        ("backend", include_str!("../backend.rs")),
        ("login", include_str!("../login.rs")),
        ("passage", include_str!("../passage.rs")),
        ("startup", include_str!("../startup.rs")),
    ];
    for (module, source) in sources {
        let mut of = String::new();
        for line in source.lines() {
            if let Some(subject) = line.strip_prefix("impl") {
                let name = subject.trim_start_matches("<'a>").trim_start().split(['<', ' ']).next().unwrap();
                of = format!("{name}::");
            } else if line.starts_with('}') {
                of.clear();
            }
            let Some((name, arguments)) =
                line.trim_start().strip_prefix("pub fn ").and_then(|line| line.split_once('('))
            else {
                continue;
            };
            let name = name.trim_end_matches("<'a>");
            let parses = arguments.contains("body: &") && !name.starts_with("put_");
            let function = format!("{module}::{of}{name}");
            let known = PARSERS.iter().any(|parser| parser.function == function);
            assert_eq!(parses, known, "{function} is in the list, and is a parser");
        }
    }
}

#[test]
fn every_sample_is_taken_and_parsed_alike_each_time() {
    for (parser, sample) in samples() {
        let first = (parser.parse)(sample).unwrap_or_else(|error| panic!("{}: {error}", parser.function));
        assert_eq!(taken(parser, sample), Some(first), "{}", parser.function);
    }
}

#[test]
fn cut_anywhere_or_with_junk_behind_it_nothing_is_taken() {
    for (parser, sample) in samples().filter(|(parser, _)| !parser.open) {
        println!("{}: {sample:?}", parser.function);
        hostile::exact(sample, |body| taken(parser, body));
    }
}

/// A cut or longer body of these is another message, but never this one.
#[test]
fn what_takes_all_that_is_left_tells_lengths_apart() {
    for (parser, sample) in samples().filter(|(parser, _)| parser.open) {
        let whole = taken(parser, sample);
        for cut in 0..sample.len() {
            let part = taken(parser, &sample[..cut]);
            assert!(part.is_none() || part != whole, "{}: cut at {cut}", parser.function);
        }
        for junk in 1..=300 {
            let longer = taken(parser, &[sample, &vec![0; junk][..]].concat());
            assert!(longer.is_none() || longer != whole, "{}: {junk} bytes behind it", parser.function);
            assert!(longer.is_none() || sample.len() + junk <= 8 + 256, "{}: {junk} bytes behind it", parser.function);
        }
    }
}

/// A field that lies, of any width, wherever it may be.
#[test]
fn lengths_and_counts_that_lie_never_panic() {
    let lies = [0, 1, 2, 3, 4, 5, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000];
    for (parser, sample) in samples() {
        for lie in lies.into_iter().chain([0xffff_fffe, 0xffff_ffff_u32]) {
            let bytes = lie.to_be_bytes();
            for field in [&bytes[..], &bytes[2..], &bytes[3..]] {
                for at in 0..=sample.len().saturating_sub(field.len()) {
                    let mut body = sample.to_vec();
                    if let Some(place) = body.get_mut(at..at + field.len()) {
                        place.copy_from_slice(field);
                    }
                    // What is taken is checked by the parser's own entry.
                    let _ = taken(parser, &body);
                }
            }
        }
    }
}

/// A header that announces less or more than the message has: it is refused, or more is waited for.
#[test]
fn headers_that_lie_give_no_message() {
    for (parser, sample) in samples().filter(|(parser, _)| !parser.open) {
        let frame = framed(parser, sample);
        let at = frame.len() - sample.len() - 4;
        for len in 0..frame.len() as u32 + 40 {
            let mut lying = frame.clone();
            lying[at..at + 4].copy_from_slice(&len.to_be_bytes());
            let mut connection = Connection::new(parser.sender);
            connection.feed(&lying[..(at + len as usize).clamp(at + 4, lying.len())]);
            let right = len as usize == sample.len() + 4;
            let ok = connection.heard.iter().any(|heard| heard.contains("Ok("));
            assert_eq!(ok, right, "{}: {len} announced: {:?}", parser.function, connection.heard);
            assert!(connection.heard.len() <= 1, "{:?}", connection.heard);
        }
    }
}

/// Any two messages of one sender in one read, and cut between any two bytes, are the two messages that they are apart.
#[test]
fn two_messages_in_one_read_are_the_same_as_apart() {
    for (one, first) in samples() {
        let follows = |parser: &Parser| match one.sender {
            Sender::Caller => parser.sender == Sender::Client,
            sender => parser.sender == sender,
        };
        for (other, second) in samples().filter(|(parser, _)| follows(parser)) {
            let both = [framed(one, first), framed(other, second)].concat();
            let apart = [(one, first), (other, second)]
                .map(|(parser, body)| made(parser.sender, parser.tags.first().copied(), body));
            for cut in 0..=both.len() {
                let mut connection = Connection::new(one.sender);
                connection.feed(&both[..cut]);
                connection.feed(&both[cut..]);
                assert_eq!(connection.heard, apart, "cut at {cut}");
                assert!(connection.unread.is_empty());
            }
        }
    }
}

fn any_parser() -> impl Strategy<Value = Parser> {
    select(PARSERS)
}

proptest! {
    #[test]
    fn any_bytes_are_an_answer_or_an_error(parser in any_parser(), bytes in vec(any::<u8>(), 0..200)) {
        let _ = taken(&parser, &bytes);
    }

    /// Messages that are nearly right.
    #[test]
    fn a_changed_sample_is_an_answer_or_an_error(
        parser in any_parser(),
        which in any::<Index>(),
        edits in vec((any::<Index>(), 0..3, any::<u8>()), 1..6),
    ) {
        let mut body = parser.samples[which.index(parser.samples.len())].to_vec();
        for (at, edit, byte) in edits {
            let at = at.index(body.len() + 1);
            match edit {
                0 => body.insert(at, byte),
                1 if at < body.len() => drop(body.remove(at)),
                _ => body.iter_mut().skip(at).take(1).for_each(|place| *place = byte),
            }
        }
        let _ = taken(&parser, &body);
    }

    /// A stream of messages, cut into reads of any size.
    #[test]
    fn a_stream_is_heard_alike_however_it_is_cut(
        messages in vec((any::<Index>(), any::<Index>()), 1..8),
        sender in select(&[Sender::Client, Sender::Server][..]),
        reads in vec(1..40_usize, 1..30),
    ) {
        let parsers: Vec<&Parser> = PARSERS.iter().filter(|parser| parser.sender == sender).collect();
        let stream: Vec<u8> = messages.iter().flat_map(|(parser, sample)| {
            let parser = parsers[parser.index(parsers.len())];
            framed(parser, parser.samples[sample.index(parser.samples.len())])
        }).collect();
        let mut whole = Connection::new(sender);
        whole.feed(&stream);
        prop_assert_eq!(whole.heard.len(), messages.len());
        let mut cut = Connection::new(sender);
        let mut rest = &stream[..];
        for read in reads {
            let (bytes, behind) = rest.split_at(read.min(rest.len()));
            cut.feed(bytes);
            rest = behind;
        }
        cut.feed(rest);
        prop_assert_eq!(cut.heard, whole.heard);
    }
}
