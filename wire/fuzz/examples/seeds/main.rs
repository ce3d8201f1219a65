//! Writes the inputs that fuzzing begins with: `seeds FOLDER`, a folder for each target in it. Those of the targets in
//! `fuzz/`, too: to build anything there takes minutes, since it brings PostgreSQL's grammar.

mod router;

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use pgward_wire::frame::put;
use pgward_wire::parsers::{PARSERS, Sender};

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("usage: seeds FOLDER"));
    for (n, parser) in PARSERS.iter().enumerate() {
        for (m, sample) in parser.samples.iter().enumerate() {
            let name = format!("seed-{n}-{m}");
            let selector = u8::try_from(n).expect("fewer than 256 parsers");
            write(&folder, "messages", &name, &[&[selector], *sample].concat())?;
            if parser.sender == Sender::Caller {
                let length = u32::try_from(sample.len() + 4).expect("samples are short").to_be_bytes();
                write(&folder, "startup", &name, &[&length, *sample].concat())?;
            }
        }
    }
    for (sender, selector) in [(Sender::Client, 8), (Sender::Server, 9)] {
        write(&folder, "framing", &format!("seed-{selector}"), &[&[selector], &stream(sender)[..]].concat())?;
    }
    for (n, requests) in LOGINS.iter().enumerate() {
        let mut stream = BytesMut::new();
        requests.iter().for_each(|(tag, body)| put(&mut stream, *tag, body));
        write(&folder, "login", &format!("seed-{n}"), &stream)?;
    }
    router::write_all(&folder)
}

/// What a server may say to a login.
const LOGINS: [&[(u8, &[u8])]; 4] = [
    &[(b'R', &[0; 4]), (b'S', b"TimeZone\0UTC\0"), (b'K', b"\0\0\0\x07key!"), (b'Z', b"I")],
    &[(b'R', b"\0\0\0\x03"), (b'R', &[0; 4]), (b'Z', b"I")],
    &[(b'R', b"\0\0\0\x05salt"), (b'E', b"SFATAL\0C28P01\0Mno\0\0")],
    &[
        (b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
        (b'R', b"\0\0\0\x0br=nonce,s=c2FsdA==,i=4096"),
        (b'R', b"\0\0\0\x0cv=c2lnbmF0dXJl"),
        (b'R', &[0; 4]),
    ],
];

/// A message of each sort, one behind the other.
fn stream(sender: Sender) -> BytesMut {
    let mut stream = BytesMut::new();
    for parser in PARSERS.iter().filter(|parser| parser.sender == sender) {
        parser.samples.iter().for_each(|sample| put(&mut stream, parser.tags[0], sample));
    }
    stream
}

fn write(folder: &Path, target: &str, name: &str, input: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder.join(target))?;
    std::fs::write(folder.join(target).join(name), input)
}
