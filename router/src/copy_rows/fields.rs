//! The columns of one row: `CopyReadAttributesText` and `CopyReadAttributesCSV`.

use std::sync::Arc;

use memchr::memchr2;

use crate::refusal::{Refusal, RefusalKind};
use crate::statement::CopyFormat;

/// How rows are written.
#[derive(Debug)]
pub(super) enum Dialect {
    Text { delimiter: u8, null: Arc<str> },
    Csv { delimiter: u8, quote: u8, escape: u8, null: Arc<str> },
}

/// A column's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Null,
    Value(&'a [u8]),
}

/// Why a row has no such column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    TooFew,
    Unterminated,
}

impl Dialect {
    /// The dialect of a format, and whether a header comes first; the binary format is none.
    pub(super) fn new(format: &CopyFormat) -> Result<Option<(Self, bool)>, Refusal> {
        match format {
            CopyFormat::Text { delimiter, null, header } => {
                Ok(Some((Self::Text { delimiter: *delimiter, null: Arc::clone(null) }, *header)))
            }
            // PostgreSQL would let a quote be a newline and then read it twice.
            CopyFormat::Csv { quote: b'\n' | b'\r' | b'\\', .. } => {
                let what = "this QUOTE of a COPY into a patient table is not supported";
                Err(Refusal::new(RefusalKind::Unsupported, what).hint("Use the QUOTE '\"'."))
            }
            CopyFormat::Csv { delimiter, quote, escape, null, header } => Ok(Some((
                Self::Csv { delimiter: *delimiter, quote: *quote, escape: *escape, null: Arc::clone(null) },
                *header,
            ))),
            CopyFormat::Binary => Ok(None),
        }
    }

    /// Quote and escape of CSV.
    pub(super) fn quoting(&self) -> Option<(u8, u8)> {
        match self {
            Self::Text { .. } => None,
            Self::Csv { quote, escape, .. } => Some((*quote, *escape)),
        }
    }

    /// Hands on the columns of a row in order, from 0 to `last`.
    pub(super) fn split(&self, row: &[u8], last: usize, mut field: impl FnMut(usize, Field<'_>)) -> Result<(), Bad> {
        let mut rest = Some(row);
        let mut value = Vec::new();
        for column in 0..=last {
            let row = rest.ok_or(Bad::TooFew)?;
            value.clear();
            let (raw, behind, may_be_null) = match self {
                Self::Text { delimiter, .. } => text(row, *delimiter, &mut value),
                Self::Csv { delimiter, quote, escape, .. } => csv(row, *delimiter, *quote, *escape, &mut value)?,
            };
            let (Self::Text { null, .. } | Self::Csv { null, .. }) = self;
            if may_be_null && raw == null.as_bytes() {
                field(column, Field::Null);
            } else {
                field(column, Field::Value(&value));
            }
            rest = behind;
        }
        Ok(())
    }
}

/// One column as written, and what stands behind its delimiter, if there is one; the value is put into `value`.
fn text<'a>(row: &'a [u8], delimiter: u8, value: &mut Vec<u8>) -> (&'a [u8], Option<&'a [u8]>, bool) {
    let mut at = 0;
    while let Some(found) = memchr2(delimiter, b'\\', &row[at..]) {
        value.extend_from_slice(&row[at..at + found]);
        at += found;
        if row[at] == delimiter {
            return (&row[..at], Some(&row[at + 1..]), true);
        }
        at += 1;
        at += unescape(&row[at..], value);
    }
    value.extend_from_slice(&row[at..]);
    (row, None, true)
}

/// Decodes what stands behind a backslash; returns its length.
fn unescape(behind: &[u8], value: &mut Vec<u8>) -> usize {
    let Some(&first) = behind.first() else { return 0 };
    let digits = |from: usize, most: usize, radix: u32| {
        let digit = |byte: &u8| char::from(*byte).to_digit(radix);
        let found = behind[from..].iter().take(most).map_while(digit);
        found.fold((0u32, from), |(number, length), digit| (number * radix + digit, length + 1))
    };
    let (byte, length) = match first {
        b'0'..=b'7' => {
            let (number, length) = digits(0, 3, 8);
            (number as u8, length)
        }
        b'x' => match digits(1, 2, 16) {
            (_, 1) => (b'x', 1),
            (number, length) => (number as u8, length),
        },
        b'b' => (0x08, 1),
        b'f' => (0x0C, 1),
        b'n' => (b'\n', 1),
        b'r' => (b'\r', 1),
        b't' => (b'\t', 1),
        b'v' => (0x0B, 1),
        other => (other, 1),
    };
    value.push(byte);
    length
}

type CsvField<'a> = (&'a [u8], Option<&'a [u8]>, bool);

fn csv<'a>(row: &'a [u8], delimiter: u8, quote: u8, escape: u8, value: &mut Vec<u8>) -> Result<CsvField<'a>, Bad> {
    let mut at = 0;
    let mut quoted = false;
    loop {
        let rest = &row[at..];
        let Some(found) = memchr2(delimiter, quote, rest) else {
            value.extend_from_slice(rest);
            return Ok((row, None, !quoted));
        };
        value.extend_from_slice(&rest[..found]);
        at += found;
        if row[at] == delimiter {
            return Ok((&row[..at], Some(&row[at + 1..]), !quoted));
        }
        quoted = true;
        at += 1 + quoted_part(&row[at + 1..], quote, escape, value)?;
    }
}

/// The part of a value behind an opening quote; returns its length with the closing one.
fn quoted_part(part: &[u8], quote: u8, escape: u8, value: &mut Vec<u8>) -> Result<usize, Bad> {
    let mut at = 0;
    loop {
        let found = memchr2(quote, escape, &part[at..]).ok_or(Bad::Unterminated)?;
        value.extend_from_slice(&part[at..at + found]);
        at += found;
        // An escape counts before a quote or an escape only.
        match part.get(at + 1) {
            Some(&next) if part[at] == escape && (next == quote || next == escape) => {
                value.push(next);
                at += 2;
            }
            _ if part[at] == quote => return Ok(at + 1),
            _ => {
                value.push(part[at]);
                at += 1;
            }
        }
    }
}
