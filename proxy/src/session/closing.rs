//! A client that has closed its side, or is gone: what it sent whole is done as a server would do it.
//!
//! Whoever has closed its side may still read, and is answered. Whom nothing reaches any more has its messages done all
//! the same, its writes above all; the answers are dropped. Only a read that nobody may be waiting for is not let run
//! for long.

use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use pgward_wire::frame;
use pgward_wire::tag::frontend as tag;

use super::relay::Wake;
use super::{Session, is_read};

/// For so long the last read of a client that has closed its side may run on. It looks as if it had vanished, but may
/// be waiting for the answer.
const LAST_READ: Duration = Duration::from_secs(2);

impl Session {
    /// Nothing reaches the client any more.
    pub(super) fn lose_client(&mut self) {
        self.client.gone = true;
        self.client.out.clear();
    }

    /// Nothing more comes from the client, and nothing can be done right now: whether it is all done.
    pub(super) fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if self.client.stalled {
            return Poll::Pending;
        }
        if !self.is_busy() {
            return Poll::Ready(Wake::ClientGone);
        }
        let reads = self.attached.as_ref().is_some_and(|attached| is_read(attached.kind));
        if !self.closed || !reads || has_more(&self.client.inbox) {
            return Poll::Pending;
        }
        if self.client.gone {
            return Poll::Ready(Wake::Abandoned);
        }
        let patience = self.client.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_READ)));
        patience.as_mut().poll(cx).map(|()| Wake::Abandoned)
    }

    /// The last read of a client that is gone is cancelled, and its server closed.
    pub(super) async fn abandon(&mut self) {
        let Some(attached) = &self.attached else { return };
        let target = attached.lease.cancel_target();
        self.drop_server();
        // Best effort: the server also notices when it writes to the closed connection.
        let _ = target.send().await;
    }

    /// The client is told what waits for it before its connection is closed.
    pub(super) async fn send_rest(&mut self) {
        std::future::poll_fn(|cx| {
            self.expect_harder_kill(cx);
            if self.handle.killed().is_some() {
                return Poll::Ready(());
            }
            match self.write_client(cx) {
                Poll::Ready(Ok(_)) if !self.client.out.is_empty() => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Ready(_) => Poll::Ready(()),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
    }
}

/// Whether there is a whole message that is not a goodbye.
fn has_more(inbox: &[u8]) -> bool {
    matches!(frame::header(inbox), Ok(Some(header)) if header.len <= inbox.len() && header.tag != tag::TERMINATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_message_and_a_goodbye_are_nothing_more() {
        for (inbox, more) in [
            (&b""[..], false),
            (b"Q\0\0\0\x08SEL", false),
            (b"X\0\0\0\x04", false),
            (b"Q\0\0\0\x06;\0", true),
            (b"S\0\0\0\x04X\0\0\0\x04", true),
        ] {
            assert_eq!(has_more(inbox), more, "{inbox:?}");
        }
    }
}
