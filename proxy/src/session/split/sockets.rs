//! The sockets of a split COPY: written and read in the session's one future, and what is heard handed to its course.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pgward_pools::Failure;
use pgward_wire::PgError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::course::Verdict;
use super::talk::Said;
use super::{Leg, Session, Split, errors, said};
use crate::session::errors::{internal, server_gone};
use crate::twophase::Decided;

/// Bytes read at once: servers say little in a COPY.
const SCRATCH: usize = 8 * 1024;
/// More than this may not wait for a client that does not read.
const CLIENT_OUT_MAX: usize = 64 * 1024;

/// What a poll has brought.
enum Event {
    Said(usize, Said),
    Lost(usize, String),
    Decided(Result<Decided, PgError>),
    /// What is not undone by now is left.
    Late,
}

impl Session {
    /// Speaks with all servers of a split COPY. True when the client has its answer.
    pub(in crate::session) fn poll_split(&mut self, cx: &mut Context<'_>) -> bool {
        match self.poll_receipts(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => {
                self.guard = None;
                self.receipts.clear();
                if let Some(split) = &mut self.split {
                    let acts = split.course.abandon(said(&error));
                    self.perform(acts);
                }
            }
            Poll::Pending => return false,
        }
        loop {
            let readable = self.client.out.len() < CLIENT_OUT_MAX;
            let Some(split) = &mut self.split else { return true };
            let mut events = Vec::new();
            self.sent_back += split.poll(cx, readable, &mut events);
            if events.is_empty() {
                return false;
            }
            for event in events {
                self.take_event(event);
            }
            self.aim_cancel();
        }
    }

    fn take_event(&mut self, event: Event) {
        let Some(split) = &mut self.split else { return };
        let acts = match event {
            // Rows that are sent to it now would be passed over.
            Event::Said(leg, Said::Copied(_)) if split.course.takes_rows() => {
                let node = split.legs[leg].node.id.as_str();
                let fault = said(&server_gone(node, "it ended the COPY by itself", false));
                split.course.lost(leg, fault)
            }
            Event::Said(leg, Said::Copied(rows)) => {
                split.course.copied(leg, rows);
                return;
            }
            Event::Said(leg, Said::Done(asked)) => split.course.done(leg, asked),
            Event::Said(leg, Said::RolledBack) => {
                let node = split.legs[leg].node.id.as_str();
                split.course.rolled_back(leg, || said(&server_gone(node, "it has rolled back", false)))
            }
            Event::Said(leg, Said::Failed(asked, body)) => {
                let fault = split.fault(leg, asked, &body);
                split.course.failed(leg, asked, fault)
            }
            Event::Said(leg, Said::Aside(tag, body)) => {
                if !self.client.gone {
                    split.put_message(leg, tag, &body, &mut self.client.out);
                }
                return;
            }
            Event::Said(leg, Said::Farewell(why)) | Event::Lost(leg, why) => {
                let unknown = split.course.is_committing();
                let node = &split.legs[leg].node;
                node.report_failure(Failure::Lost);
                let fault = said(&server_gone(node.id.as_str(), &why, unknown));
                split.course.lost(leg, fault)
            }
            Event::Decided(decided) => split.course.decided(match decided {
                Ok(Decided::Commit) => Verdict::Commit,
                Ok(Decided::Not(error)) => Verdict::Not(said(&errors::not_decided(&error))),
                Err(error) => Verdict::Not(said(&error)),
                Ok(Decided::InDoubt(error)) => Verdict::InDoubt(said(&errors::in_doubt(&error))),
            }),
            Event::Late => split.course.late(),
        };
        if split.course.is_undoing() {
            // Rows that are still to come are passed over.
            self.guard = None;
        }
        self.perform(acts);
    }
}

impl Split {
    /// Writes and reads what can be; how many bytes were read.
    fn poll(&mut self, cx: &mut Context<'_>, readable: bool, events: &mut Vec<Event>) -> u64 {
        let mut read = 0;
        for (n, leg) in self.legs.iter_mut().enumerate() {
            leg.write(cx);
            if readable {
                read += leg.read(cx, n, events);
            }
        }
        if let Some(deciding) = &mut self.deciding
            && let Poll::Ready(decided) = Pin::new(deciding).poll(cx)
        {
            self.deciding = None;
            let in_doubt = self.claim.is_some();
            let lost = |error: tokio::task::JoinError| match in_doubt {
                true => Ok(Decided::InDoubt(std::io::Error::other(error))),
                // Nothing but registering was left to it.
                false => Err(internal(&error.to_string())),
            };
            events.push(Event::Decided(decided.unwrap_or_else(lost)));
        }
        if let Some(patience) = &mut self.patience
            && patience.as_mut().poll(cx).is_ready()
        {
            self.patience = None;
            events.push(Event::Late);
        }
        read
    }
}

impl Leg {
    fn write(&mut self, cx: &mut Context<'_>) {
        let Some(lease) = &mut self.lease else { return };
        while !self.talk.out.is_empty() {
            match Pin::new(&mut lease.stream).poll_write(cx, &self.talk.out) {
                Poll::Ready(Ok(n)) => bytes::Buf::advance(&mut self.talk.out, n),
                // What the server said before it closed explains more than the failed write.
                Poll::Ready(Err(_)) => self.talk.out.clear(),
                Poll::Pending => return,
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, n: usize, events: &mut Vec<Event>) -> u64 {
        let mut read = 0;
        let mut scratch = [0; SCRATCH];
        loop {
            let Some(lease) = &mut self.lease else { return read };
            let mut buf = ReadBuf::new(&mut scratch);
            let why = match Pin::new(&mut lease.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if buf.filled().is_empty() => "it closed the connection".to_owned(),
                Poll::Ready(Ok(())) => {
                    read += buf.filled().len() as u64;
                    let mut said = Vec::new();
                    let heard = self.talk.hear(buf.filled(), &mut said);
                    events.extend(said.into_iter().map(|said| Event::Said(n, said)));
                    match heard {
                        Ok(()) => continue,
                        Err(error) => error.to_string(),
                    }
                }
                Poll::Ready(Err(error)) => error.to_string(),
                Poll::Pending if lease.poll_killed(cx) => "the node was declared down or removed".to_owned(),
                Poll::Pending => return read,
            };
            events.push(Event::Lost(n, why));
            return read;
        }
    }
}
