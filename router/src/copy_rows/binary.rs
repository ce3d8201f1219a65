//! Rows of the binary format: the header, tuples and trailer that `ReceiveCopyBinaryHeader` and `NextCopyFrom` read.
//!
//! A length is only ever compared with what is here and with the bound of a row; nothing is reserved for it. A row is
//! held back whole, as in the other formats: its patient may stand in its last column.

use super::fields::{Bad, Field};
use super::lines::Step;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of the extension.
const FIXED: usize = SIGNATURE.len() + 8;
/// Nobody has defined an extension of the header so far; servers skip it.
const EXTENSION_MAX: usize = 1024;

/// Finds the ends of tuples.
#[derive(Debug)]
pub(super) struct Tuples {
    /// Columns that the server expects.
    columns: usize,
    max_row: usize,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Header,
    /// Between two rows.
    Count,
    /// In a row: at its column `column`, whose length stands at `at` of the row.
    Columns {
        column: usize,
        at: usize,
    },
    Ended,
}

impl Tuples {
    pub(super) fn new(columns: usize, max_row: usize) -> Self {
        Self { columns, max_row, part: Part::Header }
    }

    /// Looks at `data`, which begins with the header, a row or the trailer, and holds all that came since; `last` if
    /// nothing will follow.
    pub(super) fn step(&mut self, data: &[u8], last: bool) -> Step {
        let step = match self.part {
            Part::Header => header(data),
            Part::Ended if data.is_empty() => return Step::More,
            Part::Ended => return Step::Bad("follows the trailer".into()),
            Part::Count | Part::Columns { .. } => self.tuple(data),
        };
        match step {
            Step::Header { .. } | Step::Row { .. } => self.part = Part::Count,
            Step::End { .. } => self.part = Part::Ended,
            Step::More if last && self.part == Part::Header => {
                return Step::BadHeader("ends within the header of the binary format");
            }
            // Servers overlook half a column count at the end; one who cuts a file off there means no good row.
            Step::More if last && !data.is_empty() => return Step::Bad("is not complete".into()),
            Step::More | Step::Bad(_) | Step::BadHeader(_) => {}
        }
        step
    }

    fn tuple(&mut self, data: &[u8]) -> Step {
        let (mut column, mut at) = match self.part {
            Part::Columns { column, at } => (column, at),
            _ => match self.count(data) {
                Ok(at) => (0, at),
                Err(step) => return step,
            },
        };
        while column < self.columns {
            self.part = Part::Columns { column, at };
            let Some(length) = int32(data, at) else { return Step::More };
            let length = match usize::try_from(length) {
                Ok(length) => length,
                Err(_) if length == -1 => 0,
                Err(_) => return Step::Bad(format!("has a column of {length} bytes").into()),
            };
            // Less than 4 GiB and the bound of a row: no overflow where a size has 64 bits, and none elsewhere either.
            at = at.saturating_add(4).saturating_add(length);
            if at > self.max_row {
                return Step::too_long(self.max_row);
            }
            if at > data.len() {
                return Step::More;
            }
            column += 1;
        }
        Step::Row { content: at, length: at }
    }

    /// The number of columns that a row begins with; -1 is the trailer.
    fn count(&self, data: &[u8]) -> Result<usize, Step> {
        let Some(&count) = data.first_chunk() else { return Err(Step::More) };
        match i16::from_be_bytes(count) {
            -1 => Err(Step::End { length: 2 }),
            count if usize::try_from(count) == Ok(self.columns) => Ok(2),
            count => {
                let expected = self.columns;
                Err(Step::Bad(format!("has {count} columns where the server expects {expected}").into()))
            }
        }
    }
}

/// Hands on the columns of a row that [`Tuples`] has found, in order, from 0 to `last`.
pub(super) fn split(row: &[u8], last: usize, mut field: impl FnMut(usize, Field<'_>)) -> Result<(), Bad> {
    let mut at = 2;
    for column in 0..=last {
        let length = int32(row, at).ok_or(Bad::TooFew)?;
        at += 4;
        match usize::try_from(length) {
            Ok(length) => {
                let value = row.get(at..).and_then(|rest| rest.get(..length)).ok_or(Bad::TooFew)?;
                field(column, Field::Value(value));
                at += length;
            }
            Err(_) => field(column, Field::Null),
        }
    }
    Ok(())
}

fn header(data: &[u8]) -> Step {
    let seen = data.len().min(SIGNATURE.len());
    if data[..seen] != SIGNATURE[..seen] {
        return Step::BadHeader("does not begin with the signature of the binary format");
    }
    let Some(flags) = int32(data, SIGNATURE.len()) else { return Step::More };
    // Bit 16 stood for OIDs, which are no more; servers take the other high bits for critical, too.
    if flags >> 16 != 0 {
        return Step::BadHeader("has a header with critical flags, which servers refuse");
    }
    let Some(extension) = int32(data, SIGNATURE.len() + 4) else { return Step::More };
    match usize::try_from(extension) {
        Ok(extension) if extension <= EXTENSION_MAX => match FIXED + extension {
            length if length <= data.len() => Step::Header { length },
            _ => Step::More,
        },
        Ok(_) => Step::BadHeader("has a header extension of more than 1024 bytes"),
        Err(_) => Step::BadHeader("has a header extension of a negative length"),
    }
}

fn int32(data: &[u8], at: usize) -> Option<i32> {
    data.get(at..)?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}
