//! The session's one loop, and the one future that polls both sockets.
//!
//! A round trip costs four socket calls: one read and one write in each direction. Reads go into a scratch of the
//! thread that is larger than most messages and borrowed only inside the poll, so that an idle client holds no buffer;
//! what must go together is written together.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use pgward_wire::{PgError, backend};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::replies::{Heard, hear};
use super::work::{Expect, give_buffer, take_buffer};
use super::{Attached, Client, Fatal, Flow, Need, Session, Tx, errors};
use crate::registry::Kill;

/// Bytes read at once.
const SCRATCH: usize = 64 * 1024;
/// A client's bytes that are held while its segment is under way; more stay in the socket.
const INBOX_WHILE_BUSY: usize = 64 * 1024;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Terminate.
    Terminated,
    /// The client closed its side or cannot be written to.
    Vanished,
    /// The proxy ended it.
    ByProxy,
}

/// Why the poll came back.
pub(super) enum Wake {
    /// There are frames to look at.
    Frames,
    /// The first of the frames at hand needs a server.
    Attach(Need),
    /// The client says goodbye.
    Leave,
    /// The client cannot be served any more.
    Fatal(Fatal),
    /// The segment is answered.
    Answered,
    /// The server is gone, with the reason.
    ServerGone(String),
    /// A step that the proxy sent ahead of the statement failed, with the server's error.
    StepFailed(PgError),
    /// The record of a decision is not durable, or its statement was cancelled meanwhile.
    NotRecorded(PgError),
    /// Nothing more comes from the client, and what it sent whole is done.
    ClientGone,
    /// The same, but for a read that runs for nobody.
    Abandoned,
    /// The session is to end.
    Kill(Kill),
}

impl Session {
    /// Serves the client until it leaves.
    pub(crate) async fn run(mut self) -> Ended {
        std::future::poll_fn(|cx| {
            self.handle.register(cx.waker());
            Poll::Ready(())
        })
        .await;
        let ended = match self.serve().await {
            Ok(ended) => ended,
            Err(Fatal(error)) => {
                self.say_goodbye(error).await;
                Ended::ByProxy
            }
        };
        self.leave().await;
        ended
    }

    async fn serve(&mut self) -> Result<Ended, Fatal> {
        loop {
            let wake = match wake_of(self.frames()) {
                Some(wake) => wake,
                None => std::future::poll_fn(|cx| self.poll_io(cx)).await,
            };
            match wake {
                Wake::Frames => {}
                Wake::Attach(need) => self.attach(need).await,
                Wake::Leave => {
                    self.leave().await;
                    self.send_rest().await;
                    return Ok(Ended::Terminated);
                }
                Wake::Fatal(fatal) => return Err(fatal),
                Wake::Answered => self.finish_segment(),
                Wake::ServerGone(why) => self.server_gone(&why).await?,
                Wake::StepFailed(error) => self.step_failed(error).await?,
                // The server is given up, and whatever it was sent with it.
                Wake::NotRecorded(error) => self.fail_segment(error)?,
                Wake::ClientGone => {
                    self.leave().await;
                    self.send_rest().await;
                    return Ok(Ended::Vanished);
                }
                Wake::Abandoned => {
                    self.abandon().await;
                    return Ok(Ended::Vanished);
                }
                Wake::Kill(kill) => return Err(Fatal(errors::killed(kill))),
            }
        }
    }

    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        self.expect_harder_kill(cx);
        if let Some(kill) = self.due_kill() {
            return Poll::Ready(Wake::Kill(kill));
        }
        loop {
            let mut progress = false;
            // A write alone makes nothing else possible that is not tried below anyway.
            if let Poll::Ready(Err(_)) = self.write_client(cx) {
                self.lose_client();
            }
            if self.attached.is_some() {
                match self.poll_server(cx) {
                    Poll::Ready(Some(Wake::Answered)) => {
                        self.finish_segment();
                        if let Some(kill) = self.due_kill() {
                            return Poll::Ready(Wake::Kill(kill));
                        }
                        if !self.client.inbox.is_empty() {
                            return Poll::Ready(Wake::Frames);
                        }
                        // A server that is kept may speak at any time, and must be able to wake the task then.
                        progress = self.attached.is_some();
                    }
                    Poll::Ready(Some(wake)) => return Poll::Ready(wake),
                    Poll::Ready(None) => progress = true,
                    Poll::Pending => {}
                }
            }
            if self.split.is_some() && self.poll_split(cx) {
                // What the client has sent behind it can be looked at, or the client can be let go.
                return Poll::Ready(Wake::Frames);
            }
            if !self.receipts.is_empty() {
                // The statement cannot go before its record is written, which comes next; then the client is looked at.
                return self.park(cx);
            }
            if self.client.stalled && !self.is_full() {
                self.client.stalled = false;
                return Poll::Ready(Wake::Frames);
            }
            match self.read_client(cx) {
                Poll::Ready(Some(wake)) => return Poll::Ready(wake),
                Poll::Ready(None) => progress = true,
                Poll::Pending => {}
            }
            if !progress {
                if self.client.ended
                    && let Poll::Ready(wake) = self.poll_closing(cx)
                {
                    return Poll::Ready(wake);
                }
                return self.park(cx);
            }
        }
    }

    /// A kill takes the waker that it wakes with: one that this session survives for now must not be the last it hears.
    pub(super) fn expect_harder_kill(&self, cx: &Context<'_>) {
        if self.handle.killed().is_some() {
            self.handle.register(cx.waker());
        }
    }

    /// Whether the session is to end, now that it is where it is.
    fn due_kill(&self) -> Option<Kill> {
        let kill = self.handle.killed()?;
        let unanswered = self.closed || self.takes_rows() || self.split.is_some();
        let pausing = self.attached.is_none() && matches!(self.tx, Tx::Idle) && !unanswered;
        (kill.is_immediate() || pausing).then_some(kill)
    }

    /// Nothing more can be done now; the server's kill switch must be able to wake the task too.
    fn park(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        match self.attached.as_mut().is_some_and(|attached| attached.lease.poll_killed(cx)) {
            true => Poll::Ready(Wake::ServerGone("the node was declared down or removed".to_owned())),
            false => Poll::Pending,
        }
    }

    /// Writes what waits for the client: true if something went.
    pub(super) fn write_client(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<bool>> {
        let Client { stream, out, gone, .. } = &mut self.client;
        if *gone {
            out.clear();
        }
        let mut wrote = false;
        while !out.is_empty() {
            let n = match Pin::new(&mut *stream).poll_write(cx, out) {
                Poll::Ready(n) => n?,
                Poll::Pending if wrote => return Poll::Ready(Ok(true)),
                Poll::Pending => return Poll::Pending,
            };
            out.advance(n);
            wrote = true;
        }
        if wrote {
            give_buffer(std::mem::take(out));
        }
        Poll::Ready(Ok(wrote))
    }

    /// Until the records that the bytes to servers wait for are durable, or the wait for them is cancelled.
    pub(super) fn poll_receipts(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PgError>> {
        // Each of them: a record may have failed though one after it is written.
        while let Some(receipt) = self.receipts.last_mut() {
            let Poll::Ready(durable) = Pin::new(receipt).poll(cx) else {
                return self.handle.waiting.poll_cancelled(cx).map(|()| Err(errors::cancelled()));
            };
            self.receipts.pop();
            if let Err(error) = durable {
                return Poll::Ready(Err(errors::audit(&error)));
            }
            if self.receipts.is_empty() && self.handle.waiting.end() {
                return Poll::Ready(Err(errors::cancelled()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes to the server what waits for it, and hears what it says. `Ready(None)`: there was progress.
    fn poll_server(&mut self, cx: &mut Context<'_>) -> Poll<Option<Wake>> {
        if let Err(error) = ready!(self.poll_receipts(cx)) {
            return Poll::Ready(Some(Wake::NotRecorded(error)));
        }
        while !self.work.to_server.is_empty() {
            let Some(attached) = &mut self.attached else { return Poll::Pending };
            match Pin::new(&mut attached.lease.stream).poll_write(cx, &self.work.to_server) {
                Poll::Ready(Ok(n)) => self.work.to_server.advance(n),
                // What the server said before it closed explains more than the failed write.
                Poll::Ready(Err(_)) => self.work.to_server.clear(),
                Poll::Pending => break,
            }
            // The answer may have come before all was written: COPY rows behind an error.
            if self.is_answered() {
                return Poll::Ready(Some(Wake::Answered));
            }
        }
        if self.client.out.is_empty() { self.read_server(cx) } else { Poll::Pending }
    }

    fn read_server(&mut self, cx: &mut Context<'_>) -> Poll<Option<Wake>> {
        READ.with_borrow_mut(|scratch| {
            let Some(attached) = &mut self.attached else { return Poll::Pending };
            let mut buf = ReadBuf::new(scratch);
            match ready!(Pin::new(&mut attached.lease.stream).poll_read(cx, &mut buf)) {
                Ok(()) if buf.filled().is_empty() => {
                    Poll::Ready(Some(Wake::ServerGone("it closed the connection".to_owned())))
                }
                Ok(()) => {
                    self.sent_back += buf.filled().len() as u64;
                    Poll::Ready(self.hear(cx, buf.filled()))
                }
                Err(error) => Poll::Ready(Some(Wake::ServerGone(error.to_string()))),
            }
        })
    }

    /// Takes in a chunk of the server's bytes.
    fn hear(&mut self, cx: &mut Context<'_>, chunk: &[u8]) -> Option<Wake> {
        let Some(attached) = &mut self.attached else { return None };
        if !attached.timed {
            attached.timed = true;
            attached.node.report_response(attached.sent.elapsed());
            self.handle.set_awaiting(0);
        }
        let mut heard = Heard { verbatim: self.plain.is_some(), retry: attached.retry, ..Heard::default() };
        // An incomplete message of before is completed first.
        let mut kept = std::mem::take(&mut self.work.from_server);
        let whole: &[u8] = if kept.is_empty() {
            chunk
        } else {
            kept.extend_from_slice(chunk);
            &kept
        };
        let memory = &mut attached.lease.memory;
        let consumed = match hear(&mut self.work, memory, whole, &mut self.client.out, &mut heard) {
            Ok(consumed) => consumed,
            Err(error) => return Some(Wake::ServerGone(error.to_string())),
        };
        let written = self.write_run(cx, &whole[consumed.run.clone()]);
        if consumed.upto < whole.len() {
            self.work.from_server.extend_from_slice(&whole[consumed.upto..]);
        }
        if self.work.answered {
            attached_mut(&mut self.attached).retry = false;
            self.sent = None;
            if !self.work.ops.is_empty() && self.work.emitted == self.work.ops.len() {
                self.work.forget_emitted();
            }
        }
        self.work.settle();
        let frames = heard.copy_in == Some(true) || heard.skip_to_sync;
        let failure = heard.fatal.take();
        if failure.is_some() {
            self.note_farewell();
        }
        let silent_failure = heard.silent_failure.take();
        if self.handle.has_steps_ahead() && !self.work.expects.iter().any(|e| matches!(e, Expect::SilentQuery { .. })) {
            self.handle.steps_answered();
        }
        self.apply(&mut heard);
        if written.is_err() {
            self.lose_client();
        }
        if let Some(failure) = failure {
            return Some(Wake::ServerGone(failure));
        }
        if let Some(error) = silent_failure {
            return Some(Wake::StepFailed(error));
        }
        if self.is_answered() {
            return Some(Wake::Answered);
        }
        let unfinished = self.attached.as_ref().is_some_and(|attached| attached.ready.is_none());
        if unfinished && self.work.expects.is_empty() && !self.closed {
            // Behind a Flush the client has the word, and its transaction is open.
            self.handle.set_idle_in_transaction(Some(self.shared.registry.now()));
        }
        ((frames || !self.closed) && !self.client.inbox.is_empty()).then_some(Wake::Frames)
    }

    /// The segment is complete, and so is its answer.
    fn is_answered(&self) -> bool {
        self.closed && self.work.expects.is_empty() && self.work.passing == 0 && self.work.to_server.is_empty()
    }

    /// Writes the last run of a chunk straight to the client; what the socket does not take now is copied.
    fn write_run(&mut self, cx: &mut Context<'_>, run: &[u8]) -> std::io::Result<()> {
        let Client { stream, out, gone, .. } = &mut self.client;
        if *gone {
            out.clear();
            return Ok(());
        }
        let mut rest = run;
        if !out.is_empty() {
            out.extend_from_slice(run);
            rest = &[];
            while !out.is_empty() {
                match Pin::new(&mut *stream).poll_write(cx, out) {
                    Poll::Ready(n) => out.advance(n?),
                    Poll::Pending => return Ok(()),
                }
            }
            give_buffer(std::mem::take(out));
        }
        while !rest.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, rest) {
                Poll::Ready(n) => rest = &rest[n?..],
                Poll::Pending => {
                    *out = take_buffer();
                    out.extend_from_slice(rest);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads from the client, unless what it sent before is still to be worked off.
    fn read_client(&mut self, cx: &mut Context<'_>) -> Poll<Option<Wake>> {
        let busy = self.is_busy();
        let full = self.is_full() || self.is_split_full();
        if self.client.ended || full || (busy && self.client.inbox.len() >= INBOX_WHILE_BUSY) {
            return Poll::Pending;
        }
        READ.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            match ready!(Pin::new(&mut self.client.stream).poll_read(cx, &mut buf)) {
                Ok(()) if buf.filled().is_empty() => {
                    self.client.ended = true;
                    Poll::Ready(None)
                }
                Err(_) => {
                    self.client.ended = true;
                    self.lose_client();
                    Poll::Ready(None)
                }
                Ok(()) => {
                    let bytes = buf.filled();
                    self.received += bytes.len() as u64;
                    self.handle.set_idle_in_transaction(None);
                    if !busy && self.client.inbox.is_empty() {
                        return Poll::Ready(self.take_frames(bytes));
                    }
                    self.keep(bytes);
                    Poll::Ready((!busy).then_some(Wake::Frames))
                }
            }
        })
    }

    /// Whether what the client sends now has to wait for the answer under way.
    pub(super) fn is_busy(&self) -> bool {
        let unanswered = self.closed || self.work.copy_asked || self.work.awaits_room;
        let takes_next = || self.early_sync && self.client.inbox.first().is_none_or(|tag| self.takes_now(*tag));
        (unanswered && !self.takes_rows() && !takes_next()) || self.is_split_ending()
    }

    /// Deals with frames where they were read; only what cannot be dealt with yet is copied.
    fn take_frames(&mut self, bytes: &[u8]) -> Option<Wake> {
        let (consumed, flow) = self.frames_of(bytes);
        if consumed < bytes.len() {
            self.keep(&bytes[consumed..]);
        }
        wake_of(flow)
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.client.inbox.capacity() == 0 {
            self.client.inbox = take_buffer();
        }
        self.client.inbox.extend_from_slice(bytes);
    }

    /// Tells the client why it is disconnected; what waits for it is sent first if it can be.
    async fn say_goodbye(&mut self, error: PgError) {
        self.drop_server();
        if !self.has_heard_farewell() {
            backend::put_error(&mut self.client.out, &error.fatal());
        }
        let write = std::future::poll_fn(|cx| match self.write_client(cx) {
            Poll::Ready(Ok(true)) if !self.client.out.is_empty() => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            other => other,
        });
        // A client that does not read is not waited for.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), write).await;
    }
}

/// What the frames at hand came to that the poll cannot do itself.
fn wake_of(flow: Result<Flow, Fatal>) -> Option<Wake> {
    match flow {
        Ok(Flow::Io) => None,
        Ok(Flow::Attach(need)) => Some(Wake::Attach(need)),
        Ok(Flow::Leave) => Some(Wake::Leave),
        Err(fatal) => Some(Wake::Fatal(fatal)),
    }
}

fn attached_mut(attached: &mut Option<Attached>) -> &mut Attached {
    attached.as_mut().expect("the server whose bytes are being heard is attached")
}
