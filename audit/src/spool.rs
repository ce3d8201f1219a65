//! Records of emergencies that wait in memory while the log cannot be written.

use std::collections::VecDeque;

/// Records without their sequence numbers, in order, bounded in bytes. Numbers are given when a record reaches the
/// file, so that the sequence there has no gap.
#[derive(Debug)]
pub(crate) struct Spool {
    records: VecDeque<Box<[u8]>>,
    bytes: usize,
    limit: usize,
}

/// How much of the spool a record may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// Emergencies: all of it.
    Whole,
    /// Events: a quarter, so that a flood of refused logins cannot push out an emergency.
    Quarter,
}

impl Spool {
    pub(crate) fn new(limit: usize) -> Self {
        Self { records: VecDeque::new(), bytes: 0, limit }
    }

    /// Takes a record (from behind its number, closing brace and newline excluded); false when there is no room.
    pub(crate) fn push(&mut self, body: &[u8], share: Share) -> bool {
        let fits = self.fits(body.len(), share);
        if fits {
            self.bytes += body.len();
            self.records.push_back(body.into());
        }
        fits
    }

    /// Puts records back that were taken for written, before all others. Returns how many found no room.
    pub(crate) fn push_front(&mut self, bodies: Vec<Box<[u8]>>) -> u64 {
        let mut lost = 0;
        for body in bodies.into_iter().rev() {
            if self.fits(body.len(), Share::Whole) {
                self.bytes += body.len();
                self.records.push_front(body);
            } else {
                lost += 1;
            }
        }
        lost
    }

    fn fits(&self, bytes: usize, share: Share) -> bool {
        let limit = match share {
            Share::Whole => self.limit,
            Share::Quarter => self.limit / 4,
        };
        self.bytes + bytes <= limit
    }

    /// The oldest records, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.records.iter().map(|body| &**body)
    }

    /// Forgets the `count` oldest: they are in the file.
    pub(crate) fn forget(&mut self, count: usize) {
        self.bytes -= self.records.drain(..count).map(|body| body.len()).sum::<usize>();
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
