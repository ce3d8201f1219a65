//! Connections of the pages that end by themselves. A peer that connects and says nothing, half of a request, or does
//! not take its answer would hold a descriptor for ever, and there are only so many for clients.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};

/// From the accept, or from what was last said to the peer, to the end of its next request. Longer than most scrapers
/// wait between two scrapes; others connect anew.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A listener whose connections have a [`Deadline`].
pub(super) struct Impatient {
    pub(super) listener: TcpListener,
    pub(super) patience: Duration,
}

impl Listener for Impatient {
    type Io = Deadline;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Deadline, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Deadline::new(stream, self.patience), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when nothing could be written to it for so long. What the peer sends does not count: it may
/// come byte by byte.
pub(super) struct Deadline {
    stream: TcpStream,
    patience: Duration,
    end: Pin<Box<Sleep>>,
}

impl Deadline {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, patience, end: Box::pin(tokio::time::sleep(patience)) }
    }

    /// What is not ready when the time is up has failed.
    fn within<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_pending() && self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl AsyncRead for Deadline {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, out);
        self.within(cx, read)
    }
}

impl AsyncWrite for Deadline {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(written, Poll::Ready(Ok(_))) {
            let end = Instant::now() + self.patience;
            self.end.as_mut().reset(end);
        }
        self.within(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.within(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What comes back for this, from a server that waits for a moment only; it ends because the server closes.
    async fn answer(said: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Impatient { listener, patience: Duration::from_millis(100) };
        let server =
            tokio::spawn(async { axum::serve(listener, Router::new().route("/", get(|| async { "page" }))).await });
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(said.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        server.abort();
        answer
    }

    #[tokio::test]
    async fn who_says_nothing_or_half_of_a_request_is_sent_away() {
        assert_eq!(answer("").await, "");
        assert_eq!(answer("GET / HTTP/1.1\r\nHost: local").await, "");
    }

    #[tokio::test]
    async fn who_was_answered_and_stays_is_sent_away() {
        let answer = answer("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("page"), "{answer}");
    }
}
