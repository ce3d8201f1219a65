//! What stands behind a checked COPY in the same pipeline.
//!
//! PostgreSQL undoes a COPY with whatever fails before the Sync. One whose rows may go to several shards is committed
//! with its rows, and could not be undone. So the end of the rows is taken when it is known what follows: the Sync, or
//! nothing of the COPY stays.

use pgward_wire::tag::frontend as tag;
use pgward_wire::{PgError, frame};

use super::{Session, Step, Tx};

/// Messages that change nothing are looked through so far.
const LOOK_MAX: usize = 8 * 1024;

const NOTHING_STAYS: &str = "Nothing of the COPY stays.";

/// What has become of a COPY whose client wants its answer before its Sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is committed.
    Stored,
    /// It is, with all before it in the pipeline, until the Sync.
    Open,
}

/// What follows the end of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Sync,
    /// The client wants the answer first.
    Flush,
    Goodbye,
    Other,
}

impl Session {
    /// The end of a COPY's rows has come, with `behind` behind it: `None` when it may be taken.
    pub(super) fn hold_copy_done(&mut self, behind: &[u8]) -> Option<Step> {
        let waits = self.guard.as_ref().is_some_and(|guard| !guard.simple);
        if !waits || self.denied.is_some() || !matches!(self.tx, Tx::Idle) {
            return None;
        }
        match first(behind) {
            None => return Some(Step::Wait),
            Some(Behind::Sync) => return None,
            Some(Behind::Goodbye) => return Some(Step::Leave),
            Some(Behind::Flush) => {
                self.behind_copy = Some(if self.split.is_some() { Ended::Stored } else { Ended::Open });
                return None;
            }
            Some(Behind::Other) => {}
        }
        self.end_copy(&statement_behind().with_detail(NOTHING_STAYS));
        Some(Step::Done)
    }

    /// Behind a COPY that has ended before its Sync, whether this message has to be refused.
    pub(super) fn is_too_late(&self, message: u8) -> bool {
        self.behind_copy.is_some()
            && matches!(message, tag::PARSE | tag::BIND | tag::DESCRIBE | tag::EXECUTE | tag::QUERY)
    }

    pub(super) fn refuse_too_late(&mut self, message: u8) -> Step {
        let detail = match self.behind_copy {
            Some(Ended::Stored) => "The COPY before it is not undone by this.",
            Some(Ended::Open) | None => NOTHING_STAYS,
        };
        let error = statement_behind().with_detail(detail);
        let simple = message == tag::QUERY;
        // Its answer ends the segment.
        self.behind_copy.take_if(|_| simple);
        self.refuse(&error, simple);
        Step::Done
    }
}

fn statement_behind() -> PgError {
    PgError::error("0A000", "a statement cannot stand behind a COPY into a patient table in the same pipeline")
        .with_hint("Send a Sync behind the COPY, or open a transaction block before it.")
}

/// The first message that decides; `None` when it is not here yet.
fn first(mut behind: &[u8]) -> Option<Behind> {
    let mut looked = 0;
    loop {
        let header = match frame::header(behind) {
            Ok(header) => header?,
            // The session ends when it comes to that message.
            Err(_) => return Some(Behind::Other),
        };
        match header.tag {
            tag::SYNC => return Some(Behind::Sync),
            tag::FLUSH => return Some(Behind::Flush),
            tag::TERMINATE => return Some(Behind::Goodbye),
            tag::CLOSE => {}
            _ => return Some(Behind::Other),
        }
        looked += header.len;
        if looked > LOOK_MAX {
            return Some(Behind::Other);
        }
        behind = behind.get(header.len..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_rows_waits_for_what_decides() {
        const CLOSE: &[u8] = b"C\0\0\0\x06P\0";
        const SYNC: &[u8] = b"S\0\0\0\x04";
        for (behind, expected) in [
            (&b""[..], None),
            (b"S\0\0\0", None),
            (CLOSE, None),
            (&CLOSE[..6], None),
            (SYNC, Some(Behind::Sync)),
            (&[CLOSE, CLOSE, SYNC].concat(), Some(Behind::Sync)),
            (b"H\0\0\0\x04S\0\0\0\x04", Some(Behind::Flush)),
            (b"X\0\0\0\x04", Some(Behind::Goodbye)),
            // Its header is enough.
            (b"P\0\0\x40\0", Some(Behind::Other)),
            (&[CLOSE, b"Q\0\0\0\x08"].concat(), Some(Behind::Other)),
            (b"S\0\0\0\0", Some(Behind::Other)),
            (&CLOSE.repeat(LOOK_MAX / CLOSE.len() + 1), Some(Behind::Other)),
            (b"C\0\x10\0\0", Some(Behind::Other)),
        ] {
            assert_eq!(first(behind), expected, "{behind:?}");
        }
    }
}
