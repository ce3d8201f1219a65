//! How much a session holds for its client. Beyond that the client is not heard until it is less, as a backend that
//! cannot write its replies does not read either.

use pgward_wire::tag::frontend as tag;

use super::work::Op;
use super::{Need, Session, Step};

/// Bytes for the client that may wait.
const TO_CLIENT_MAX: usize = 64 * 1024;
/// Bytes for the server that may wait.
pub(super) const TO_SERVER_MAX: usize = 256 * 1024;

impl Session {
    /// Whether what more frames would bring is too much for one of the sockets.
    pub(super) fn is_full(&self) -> bool {
        self.client.out.len() >= TO_CLIENT_MAX || self.work.to_server.len() >= TO_SERVER_MAX
    }

    /// Whether what came of the frames before this one must be answered before it is taken: more is not held. Servers
    /// answer at a Sync or a Flush, and so they are told one; what waits for a server is sent to be described, as behind
    /// the client's own Flush. `None`: it is taken.
    pub(super) fn make_room(&mut self, next: u8) -> Option<Step> {
        // What ends a segment ends the holding, too.
        let adds = matches!(next, tag::PARSE | tag::BIND | tag::DESCRIBE | tag::EXECUTE | tag::CLOSE | tag::FLUSH);
        // A plain pooler's messages go on as they come: what waits is in the sockets.
        let goes_on = self.plain.is_some() || self.pending.is_some() || self.skip_to_sync;
        if !adds || goes_on {
            return None;
        }
        if self.attached.is_none() {
            // These get what is before them a server by themselves.
            if matches!(next, tag::BIND | tag::FLUSH) || !self.waits_for_server() {
                return None;
            }
            if let Some(error) = self.denied.take() {
                self.refuse(&error, false);
                return None;
            }
            return Some(Step::Attach(Need::Describe));
        }
        if !self.work.awaits_room {
            self.work.awaits_room = true;
            self.work.ops.push(Op::Flush);
            self.emit();
        }
        self.work.settle();
        self.work.awaits_room.then_some(Step::Wait)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::{Bytes, BytesMut};
    use pgward_pools::ServerMemory;

    use super::super::emit::tests::{parse, prepared, query};
    use super::super::emit::{Hold, emit};
    use super::super::replies::{Heard, hear};
    use super::super::work::Work;
    use super::*;

    /// Messages like this one behind a Query that is not answered, until no more are taken.
    fn until_heavy(len: usize, message: impl Fn(&mut Work)) -> Work {
        let (mut work, mut memory, mut out) = (Work::default(), ServerMemory::default(), BytesMut::new());
        query(&mut work, "SELECT pg_sleep(60)");
        while !work.is_heavy() {
            message(&mut work);
            emit(&mut work, &mut memory, &mut out, Hold::No);
            work.forget_emitted();
            work.weigh(len);
        }
        assert!(out.is_empty());
        work
    }

    #[test]
    fn what_is_unanswered_is_bounded_by_number_and_by_size() {
        let closes = until_heavy(7, |work| work.ops.push(Op::Fake(Bytes::from_static(b"3\0\0\0\x04"))));
        assert!((1000..10_000).contains(&closes.expects.len()), "{}", closes.expects.len());
        let statement = prepared(&"x".repeat(100_000));
        let parses = until_heavy(100_000, |work| parse(work, &statement, ""));
        assert!(parses.expects.len() < 10 && parses.to_server.len() < 1_000_000);
    }

    #[test]
    fn there_is_room_again_when_all_is_answered() {
        let mut work = until_heavy(7, |work| work.ops.push(Op::Fake(Bytes::from_static(b"3\0\0\0\x04"))));
        work.awaits_room = true;
        let (mut out, mut heard) = (BytesMut::new(), Heard::default());
        let mut told = |work: &mut Work, bytes: &[u8]| {
            hear(work, &mut ServerMemory::default(), bytes, &mut out, &mut heard).unwrap();
            work.settle();
        };
        told(&mut work, b"C\0\0\0\x0dSELECT 1\0");
        assert!(work.is_heavy() && work.awaits_room, "the Query is not answered");
        told(&mut work, b"Z\0\0\0\x05I");
        assert!(work.expects.is_empty() && !work.is_heavy() && !work.awaits_room);
    }

    #[test]
    fn what_is_answered_at_once_weighs_nothing() {
        let mut work = Work::default();
        for _ in 0..100_000 {
            work.weigh(1000);
        }
        assert!(!work.is_heavy());
    }
}
