//! A connection that breaks: after so many bytes sent, or received, and in one of three ways.

use std::time::Duration;

use pgward_wire::login::{Greeting, Login, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::chance::Chance;

/// Nobody waits for longer: what takes long is there to be left in the middle.
const PATIENCE: Duration = Duration::from_millis(500);

/// When the line breaks, if nothing else happens before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    Sent(usize),
    Received(usize),
    /// When all is said.
    AtEnd,
}

/// The line is broken: by its [`Cut`], by PgWard, or because nothing happens any more.
#[derive(Debug)]
pub(crate) struct Gone;

pub(crate) struct Line {
    stream: TcpStream,
    /// Bytes that may still be sent.
    to_send: usize,
    /// Bytes that may still be received.
    to_receive: usize,
    answers: Answers,
}

impl Line {
    pub(crate) async fn open(port: u16, cut: Cut) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("PgWard listens");
        stream.set_nodelay(true).expect("the connection is open");
        let (to_send, to_receive) = match cut {
            Cut::Sent(bytes) => (bytes, usize::MAX),
            Cut::Received(bytes) => (usize::MAX, bytes),
            Cut::AtEnd => (usize::MAX, usize::MAX),
        };
        Self { stream, to_send, to_receive, answers: Answers::default() }
    }

    /// Logs in.
    pub(crate) async fn login(&mut self, login: (Login, bytes::BytesMut)) -> Result<Greeting, Gone> {
        let (mut login, mut out) = login;
        loop {
            if !out.is_empty() {
                self.say(&out, false).await?;
                out.clear();
            }
            let mut header = [0; 5];
            self.receive(&mut header).await?;
            let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
            let mut body = vec![0; len as usize - 4];
            self.receive(&mut body).await?;
            // A refusal; which one is told by tests of the login.
            let step = login.frame(header[0], &body, &mut out).map_err(|_| Gone)?;
            if matches!(step, Step::Done) {
                return Ok(login.into_greeting());
            }
        }
    }

    /// Receives so many bytes, no more.
    async fn receive(&mut self, bytes: &mut [u8]) -> Result<(), Gone> {
        let allowed = bytes.len().min(self.to_receive);
        self.to_receive -= allowed;
        let read = self.stream.read_exact(&mut bytes[..allowed]);
        match tokio::time::timeout(10 * PATIENCE, read).await {
            Ok(Ok(_)) if allowed == bytes.len() => Ok(()),
            _ => Err(Gone),
        }
    }

    /// Says this, or as much of it as is allowed; what is answered meanwhile is heard unless it is `deaf`.
    pub(crate) async fn say(&mut self, bytes: &[u8], deaf: bool) -> Result<(), Gone> {
        let allowed = bytes.len().min(self.to_send);
        self.to_send -= allowed;
        let mut left = &bytes[..allowed];
        let mut heard = [0; 16 * 1024];
        let (mut read, mut write) = self.stream.split();
        while !left.is_empty() {
            let ear = heard.len().min(self.to_receive);
            tokio::select! {
                sent = write.write(left) => left = &left[sent.map_err(|_| Gone)?..],
                got = read.read(&mut heard[..ear]), if !deaf && ear > 0 => match got {
                    Ok(0) | Err(_) => return Err(Gone),
                    Ok(got) => {
                        self.to_receive -= got;
                        self.answers.hear(&heard[..got]);
                    }
                },
                () = tokio::time::sleep(PATIENCE) => return Err(Gone),
            }
            if self.to_receive == 0 {
                return Err(Gone);
            }
        }
        if allowed == bytes.len() { Ok(()) } else { Err(Gone) }
    }

    /// Hears until the next ReadyForQuery.
    pub(crate) async fn answered(&mut self) -> Result<(), Gone> {
        let ready = self.answers.ready;
        let mut heard = [0; 16 * 1024];
        while self.answers.ready == ready {
            let ear = heard.len().min(self.to_receive);
            match tokio::time::timeout(PATIENCE, self.stream.read(&mut heard[..ear])).await {
                // An ear of no bytes hears nothing.
                Ok(Ok(0) | Err(_)) => return Err(Gone),
                Ok(Ok(got)) => {
                    self.to_receive -= got;
                    self.answers.hear(&heard[..got]);
                }
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// The end: a reset, a FIN (or a reset where something was not read), or a FIN with an ear that stays for a while.
    pub(crate) async fn vanish(mut self, chance: &mut Chance) {
        match chance.below(3) {
            0 => rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))
                .expect("a socket can be told to linger"),
            1 => {}
            _ => {
                // Gone already, perhaps.
                if self.stream.shutdown().await.is_ok() {
                    let mut heard = vec![0; 64 * 1024];
                    let all = async { while matches!(self.stream.read(&mut heard).await, Ok(1..)) {} };
                    let _ends_or_not = tokio::time::timeout(PATIENCE, all).await;
                }
            }
        }
    }
}

/// Counts answers in a stream of messages that is otherwise thrown away.
#[derive(Default)]
struct Answers {
    ready: usize,
    header: [u8; 5],
    /// Bytes of the header that are there.
    have: usize,
    /// Bytes of the message that are to come.
    rest: usize,
}

impl Answers {
    fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let passed = bytes.len().min(if self.rest > 0 { self.rest } else { 5 - self.have });
            if self.rest > 0 {
                self.rest -= passed;
            } else {
                self.header[self.have..self.have + passed].copy_from_slice(&bytes[..passed]);
                self.have += passed;
            }
            bytes = &bytes[passed..];
            if self.have == 5 {
                let [tag, a, b, c, d] = self.header;
                (self.have, self.rest) = (0, u32::from_be_bytes([a, b, c, d]) as usize - 4);
                self.ready += usize::from(tag == b'Z');
            }
        }
    }
}

#[test]
fn answers_are_counted_however_they_are_cut() {
    let bytes = [&b"Z\0\0\0\x05I"[..], b"D\0\0\0\x09ZZZZZ", b"n\0\0\0\x04", b"Z\0\0\0\x05T"].concat();
    for piece in 1..=bytes.len() {
        let mut answers = Answers::default();
        bytes.chunks(piece).for_each(|piece| answers.hear(piece));
        assert_eq!(answers.ready, 2, "pieces of {piece}");
    }
}
