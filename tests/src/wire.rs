//! A client that says exactly the bytes it is told to: for what no driver would do.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A message of the server side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its tag.
    pub tag: u8,
    /// Its body.
    pub body: Vec<u8>,
}

impl Frame {
    /// The field of an ErrorResponse, e.g. `C` for the SQLSTATE.
    pub fn field(&self, code: u8) -> Option<String> {
        let mut fields = self.body.split(|byte| *byte == 0);
        let field = fields.find(|field| field.first() == Some(&code))?;
        Some(String::from_utf8_lossy(&field[1..]).into_owned())
    }
}

/// A connection.
pub struct WireClient {
    stream: TcpStream,
    read: BytesMut,
}

impl WireClient {
    /// A connection that has said nothing yet.
    pub async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the port is open");
        Self { stream, read: BytesMut::new() }
    }

    /// A session that is ready for its first query. The user logs in by SCRAM-SHA-256.
    pub async fn login(port: u16, user: &str, password: &str) -> Self {
        Self::greeted(port, user, password, 0, &[]).await.0
    }

    /// The same in this minor version of the protocol, with these parameters; and what PgWard said up to and with its
    /// ReadyForQuery, or the error by which it refused.
    pub async fn greeted(
        port: u16,
        user: &str,
        password: &str,
        minor: u16,
        params: &[(&str, &str)],
    ) -> (Self, Vec<Frame>) {
        let mut client = Self::open(port).await;
        let (mut login, mut out) =
            pgward_wire::login::Login::new(user, Some(password), pgward::demo::cluster::DATABASE, params);
        out[6..8].copy_from_slice(&minor.to_be_bytes());
        client.send(&out).await;
        let mut said = Vec::new();
        loop {
            out.clear();
            let frame = client.frame().await.expect("PgWard answers a login");
            said.push(frame.clone());
            match frame.tag {
                // NegotiateProtocolVersion, which the login to a server never asks for.
                b'v' => continue,
                b'E' => return (client, said),
                _ => {}
            }
            let step = login.frame(frame.tag, &frame.body, &mut out).expect("the login is accepted");
            if !out.is_empty() {
                client.send(&out).await;
            }
            if matches!(step, pgward_wire::login::Step::Done) {
                return (client, said);
            }
        }
    }

    /// The address of this end, as the audit log names the client.
    pub fn address(&self) -> String {
        self.stream.local_addr().expect("the connection is open").to_string()
    }

    /// Sends these bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("PgWard takes the bytes");
    }

    /// Sends of these bytes what is taken before nothing more is for so long; how many those were.
    pub async fn send_in(&mut self, patience: Duration, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            match tokio::time::timeout(patience, self.stream.write(&bytes[sent..])).await {
                Ok(taken) => sent += taken.expect("PgWard takes the bytes"),
                Err(_) => break,
            }
        }
        sent
    }

    /// Closes this side: what is sent to it is still read.
    pub async fn close_side(&mut self) {
        self.stream.shutdown().await.expect("the connection is open");
    }

    /// Is gone, as when a machine loses its power: what was sent to it meets a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("the connection is open");
    }

    /// Sends a Query; what answers it, up to and with ReadyForQuery.
    pub async fn query(&mut self, sql: &str) -> Vec<Frame> {
        let mut query = BytesMut::new();
        pgward_wire::frontend::put_query(&mut query, sql.as_bytes());
        self.send(&query).await;
        self.until_ready().await
    }

    /// The next message; `None` when PgWard has closed the connection. Panics after ten seconds of silence.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if self.read.len() >= 5 {
                let len = u32::from_be_bytes([self.read[1], self.read[2], self.read[3], self.read[4]]) as usize;
                if self.read.len() > len {
                    let tag = self.read.get_u8();
                    self.read.advance(4);
                    return Some(Frame { tag, body: self.read.split_to(len - 4).to_vec() });
                }
            }
            let read = self.stream.read_buf(&mut self.read);
            let read = tokio::time::timeout(Duration::from_secs(10), read).await.expect("PgWard answers");
            if matches!(read, Ok(0) | Err(_)) {
                return None;
            }
        }
    }

    /// Messages up to and with ReadyForQuery, or to the end of the connection.
    pub async fn until_ready(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            let ready = frame.tag == b'Z';
            frames.push(frame);
            if ready {
                break;
            }
        }
        frames
    }
}
