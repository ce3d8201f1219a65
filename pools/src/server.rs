//! A server: one PostgreSQL connection, logged in, with what is known about it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::BytesMut;
use pgward_config::model::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};

use crate::budget::Permit;
use crate::kill::Registered;
use crate::memory::ServerMemory;

/// The Terminate message, whole.
const TERMINATE: [u8; 5] = *b"X\0\0\0\x04";

/// A PostgreSQL connection.
///
/// Dropping it closes the socket.
#[derive(Debug)]
pub struct Server {
    /// The socket, positioned between two messages whenever the server is idle.
    pub stream: TcpStream,
    /// What this connection has prepared and set.
    pub memory: ServerMemory,
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) pid: i32,
    pub(crate) key: Arc<[u8]>,
    pub(crate) switch: Registered,
    /// Set when it must not be used again; the pool closes it as soon as it comes back.
    pub(crate) broken: bool,
    /// Ticks of its pool's slow clock when it was last given back.
    pub(crate) idle_since: u32,
    /// Its place among the connections of its pool.
    pub(crate) _permit: Permit,
}

impl Server {
    /// The node that it is a connection to.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Process id of the PostgreSQL backend.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Where to send a CancelRequest for what runs here.
    pub fn cancel_target(&self) -> CancelTarget {
        CancelTarget { address: self.address, pid: self.pid, key: self.key.clone() }
    }

    /// True when the node was declared down or was removed: the session then treats this server as gone. Otherwise
    /// registers the task's waker for that event.
    pub fn poll_killed(&mut self, cx: &mut Context<'_>) -> bool {
        self.switch.poll_killed(cx)
    }

    /// Says Terminate, before an idle server is closed.
    pub(crate) fn farewell(&self) {
        // What cannot be sent at once is not worth waiting for: closing the socket says the same.
        let _ = self.stream.try_write(&TERMINATE);
    }

    /// Whether an idle server is still there: nothing unread, not closed by the other side, not told to go.
    ///
    /// PostgreSQL says nothing to an idle connection except farewell, so anything to read means that it is over. A
    /// system call happens only when the runtime saw something to read. Polling would do as well, but it puts a waker in
    /// the place of the session's, and says "nothing" without looking when the task has used up its turn.
    pub(crate) fn is_fit(&self) -> bool {
        let is_silent =
            || matches!(self.stream.try_read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        !self.broken && self.switch.is_reusable() && is_silent()
    }
}

/// Where and with which key a running statement can be cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelTarget {
    /// The node's address, as this connection reached it.
    pub address: SocketAddr,
    /// Process id of the backend.
    pub pid: i32,
    /// The backend's secret key.
    pub key: Arc<[u8]>,
}

impl CancelTarget {
    /// Sends a CancelRequest and waits until the server has closed the connection, at most 5 s: it does so when it has
    /// signalled the backend.
    ///
    /// # Errors
    /// When that is not seen to happen. Unless the node could not be reached at all, the signal may still come.
    pub async fn send(&self) -> std::io::Result<()> {
        send_cancel(self.address, self.pid, &self.key).await
    }
}

/// As [`CancelTarget::send`], to whatever understands a CancelRequest.
///
/// # Errors
/// As there.
pub async fn send_cancel(address: impl ToSocketAddrs, pid: i32, key: &[u8]) -> std::io::Result<()> {
    tokio::time::timeout(Duration::from_secs(5), deliver(address, pid, key)).await?
}

async fn deliver(address: impl ToSocketAddrs, pid: i32, key: &[u8]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let mut request = BytesMut::new();
    pgward_wire::frontend::put_cancel(&mut request, pid, key);
    stream.write_all(&request).await?;
    match stream.read(&mut [0; 1]).await? {
        0 => Ok(()),
        _ => Err(std::io::Error::new(ErrorKind::InvalidData, "a cancel request was answered, which no server does")),
    }
}
