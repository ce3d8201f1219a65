//! Streams that no server would send: nothing may panic, and no cut may change what comes of them.

use super::*;
use crate::session::chance::Random;

impl Random {
    fn expect(&mut self) -> Expect {
        let id = self.next(4) as u64;
        match self.next(19) {
            0 => Expect::Fake(Bytes::from_static(backend::CLOSE_COMPLETE)),
            1 => Expect::SilentQuery { opens: self.next(2) == 0 },
            2 => Expect::SilentParse { id },
            3 => Expect::SilentClose { id: 7, spoiled: false },
            4 => Expect::SilentSync,
            5 => Expect::Query { effects: Some([Effect::Savepoint("a".into())].into()), done: 0 },
            6 => Expect::Parse { id, name: Some(b"s"[..].into()) },
            7 => Expect::Bind { id: 1 },
            8 | 9 => Expect::Describe { id: None },
            10 => Expect::Execute { effects: None },
            11 => Expect::CopyRows { simple: self.next(2) == 0, error: Some(own_error()) },
            12 => Expect::Close,
            13 => Expect::Refused { error: own_error() },
            14 => Expect::Prepare { id, name: b"q"[..].into(), before: 3 },
            15 => Expect::SilentBind { id: 1 },
            16 => Expect::Columns,
            17 => Expect::CopyAhead,
            _ => Expect::Sync,
        }
    }

    fn message(&mut self) -> Vec<u8> {
        match self.next(21) {
            0 => columns(),
            1 => row("some value"),
            2 => complete("SELECT 1"),
            3 => complete("ROLLBACK"),
            4 | 5 => ready(b"ITE"[self.next(3)]),
            6 => error("no"),
            7 => parameter("a", "b"),
            8 => copy_in(),
            9 => message(tag::NOTICE_RESPONSE, b"MMM\0\0"),
            10 => message(tag::PORTAL_SUSPENDED, b""),
            11 => message(tag::PARAMETER_DESCRIPTION, b"\0\0"),
            12 => backend::NO_DATA.to_vec(),
            13 | 14 => backend::PARSE_COMPLETE.to_vec(),
            15 | 16 => backend::BIND_COMPLETE.to_vec(),
            17 => backend::CLOSE_COMPLETE.to_vec(),
            18 => backend::EMPTY_QUERY_RESPONSE.to_vec(),
            19 => notices::notice([b"57P01", b"57P02", b"00000"][self.next(3)], "a notice"),
            _ => {
                let tag = b"123AGHINSTVWZdcnstRE"[self.next(20)];
                let body: Vec<u8> = (0..self.next(12)).map(|_| self.next(256) as u8).collect();
                message(tag, &body)
            }
        }
    }

    fn script(&mut self) -> (u64, Vec<u8>) {
        let mut server: Vec<u8> = (0..1 + self.next(8)).flat_map(|_| self.message()).collect();
        for _ in 0..self.next(4) / 3 * 3 {
            let at = self.next(server.len());
            server[at] = self.next(256) as u8;
        }
        (self.next(usize::MAX) as u64 | 1, server)
    }
}

/// A queue of replies to come, the same for the same seed.
fn queue(seed: u64) -> Played {
    let mut random = Random(seed);
    let mut played = Played::default();
    played.heard.retry = random.next(2) == 0;
    for _ in 0..random.next(10) {
        let expect = random.expect();
        played.work.expects.push_back(expect);
    }
    played
}

#[test]
fn no_stream_panics() {
    let mut random = Random(0xbad5eed);
    for round in 0..20_000 {
        let (seed, messages) = random.script();
        let noise = (0..random.next(60)).map(|_| random.next(256) as u8).collect();
        let bytes: Vec<u8> = if round % 2 == 0 { messages } else { noise };
        let mut played = queue(seed);
        let size = 1 + random.next(20);
        let _ = bytes.chunks(size).all(|chunk| played.hear(chunk));
    }
}

#[test]
fn no_cut_changes_what_comes_of_a_stream() {
    let mut random = Random(0x5eed);
    for _ in 0..3_000 {
        let (seed, server) = random.script();
        play(|| queue(seed), &server);
    }
}
