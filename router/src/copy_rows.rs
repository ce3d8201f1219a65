//! The rows of a `COPY … FROM STDIN`: cut out of the stream exactly where the server will cut them, so that each row's
//! patient is known before the row is let through.
//!
//! It follows PostgreSQL's own two steps (`copyfromparse.c`): `CopyReadLineText` finds where a row ends, then
//! `CopyReadAttributesText` or `…CSV` splits it; in the binary format, lengths say both. Where a server would refuse the
//! data, or where its versions differ (data behind an end marker) and are not known, this refuses it too: a row that is
//! seen here as one must never be two over there. The rules hold for encodings in which no byte of a longer character
//! looks like ASCII; UTF-8 and all server encodings are such.
//!
//! It does no I/O and holds nothing but the row that is not yet complete.

use std::collections::hash_map::Entry;

use pgward_config::{KeyType, PatientRegion};

use crate::evidence::{Evidence, Mention, PatientKey, Unknown, Whence};
use crate::refusal::{Refusal, RefusalKind};
use crate::statement::CopyFrom;
use crate::values::{key_from_copy, key_from_text};
use binary::Tuples;
use fields::{Bad, Dialect, Field};
pub use lines::CsvEnd;
use lines::{Lines, Step};

mod binary;
mod fields;
mod lines;

/// Longer names are no regions.
const REGION_MAX: usize = 240;

/// Cuts the CopyData of one COPY into rows.
#[derive(Debug)]
pub struct CopyRows {
    format: Format,
    key: usize,
    region: Option<usize>,
    key_type: KeyType,
    max_row: usize,
    /// The first line is a header and has not been seen yet.
    header: bool,
    /// Rows so far.
    rows: u64,
    /// The beginning of a row that is not complete.
    held: Vec<u8>,
}

/// How rows are found and split.
#[derive(Debug)]
enum Format {
    Lines { dialect: Dialect, lines: Lines },
    Binary(Tuples),
}

/// What a piece of the stream completed.
#[derive(Debug, Default)]
pub struct Rows {
    /// So many bytes of what was fed and not yet released, oldest first, are complete rows.
    pub release: usize,
    /// So many rows are in them.
    pub rows: u64,
    /// The patients of these rows, each once, where first seen.
    pub evidence: Evidence,
    /// What was released, cut where another patient's rows begin, and behind each row of several lines: all of it, in
    /// order.
    pub pieces: Vec<Piece>,
}

/// Neighbouring bytes of the stream that are of the same patient, or of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Bytes.
    pub length: usize,
    /// Rows; a header line and an end marker are such, too.
    pub rows: u64,
    /// Lines of text and CSV, as editors count them; rows of the binary format.
    pub lines: u64,
    /// What servers count in their messages: lines of CSV, but rows of text, whatever newlines are in them.
    pub counted: u64,
    /// Whose.
    pub of: Of,
}

/// Whose bytes these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// A header, the end marker or the trailer: of the stream as such.
    Stream,
    /// Of the patient at this place of the evidence.
    Patient(usize),
}

impl Rows {
    fn add(&mut self, piece: Piece) {
        self.release += piece.length;
        match self.pieces.last_mut() {
            Some(last) if last.of == piece.of && last.lines == last.rows => {
                last.length += piece.length;
                last.rows += piece.rows;
                last.lines += piece.lines;
                last.counted += piece.counted;
            }
            _ => self.pieces.push(piece),
        }
    }
}

impl CopyRows {
    /// A cutter for this COPY into a patient table. A row may be at most `max_row` bytes long.
    ///
    /// # Errors
    /// A table or column list in which the patient key has no known place, and a QUOTE that servers read in two ways.
    pub fn new(copy: &CopyFrom, key_type: KeyType, max_row: usize) -> Result<Self, Refusal> {
        let Some(key) = copy.key else {
            return Err(Refusal::new(
                RefusalKind::NoPatient,
                format!("COPY {} does not say where the patient key stands", copy.table),
            )
            .hint("List the columns in the COPY, the patient key among them."));
        };
        let (format, header) = Format::new(copy, max_row)?;
        Ok(Self { format, key, region: copy.region, key_type, max_row, header, rows: 0, held: Vec::new() })
    }

    /// The rows go to servers that read `\.` in CSV so.
    #[must_use]
    pub fn read_by(mut self, end: CsvEnd) -> Self {
        if let Format::Lines { lines, .. } = &mut self.format {
            lines.set_csv_end(end);
        }
        self
    }

    /// Takes the payload of a CopyData message.
    ///
    /// # Errors
    /// A row that is malformed, too long, or has no decodable patient key; the COPY must end then.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<Rows, Refusal> {
        if self.held.is_empty() {
            let rows = self.cut(chunk, false)?;
            self.held.extend_from_slice(&chunk[rows.release..]);
            return self.bounded(rows);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(chunk);
        let rows = self.cut(&held, false)?;
        held.drain(..rows.release);
        self.held = held;
        self.bounded(rows)
    }

    /// The client said CopyDone: what is held is the last row, though no newline ended it.
    ///
    /// # Errors
    /// As for [`feed`](Self::feed).
    pub fn finish(&mut self) -> Result<Rows, Refusal> {
        let held = std::mem::take(&mut self.held);
        self.cut(&held, true)
    }

    fn bounded(&self, rows: Rows) -> Result<Rows, Refusal> {
        if self.held.len() <= self.max_row {
            return Ok(rows);
        }
        Err(self.refuse(self.at(), format!("is longer than {} bytes", self.max_row)))
    }

    /// Where the row at hand begins, as people find it in what they send.
    fn at(&self) -> Whence {
        match &self.format {
            Format::Lines { lines, .. } => Whence::CopyLine(lines.line()),
            Format::Binary(_) => Whence::CopyRow(self.rows + 1),
        }
    }

    /// The row that begins there and ends before the one at hand.
    fn piece(&self, length: usize, at: Whence, of: Of) -> Piece {
        let lines = match (at, self.at()) {
            (Whence::CopyLine(from), Whence::CopyLine(upto)) => upto.saturating_sub(from),
            _ => 1,
        };
        let csv = matches!(&self.format, Format::Lines { dialect, .. } if dialect.quoting().is_some());
        Piece { length, rows: 1, lines, counted: if csv { lines } else { 1 }, of }
    }

    /// Cuts rows from `data`, which begins with a row.
    fn cut(&mut self, data: &[u8], last: bool) -> Result<Rows, Refusal> {
        let mut rows = Rows::default();
        let mut patients = Patients::default();
        loop {
            let rest = &data[rows.release..];
            let at = self.at();
            match self.format.step(rest, last) {
                Step::More => break,
                Step::Header { length } => rows.add(Piece { length, rows: 0, lines: 0, counted: 0, of: Of::Stream }),
                Step::End { length } => {
                    let Piece { lines, .. } = self.piece(length, at, Of::Stream);
                    rows.add(Piece { length, rows: lines, lines, counted: lines, of: Of::Stream });
                }
                Step::BadHeader(what) => return Err(self.refuse_header(what)),
                Step::Bad(what) => return Err(self.refuse(at, what)),
                Step::Row { length, .. } if std::mem::take(&mut self.header) => {
                    rows.add(self.piece(length, at, Of::Stream));
                }
                Step::Row { content, length } => {
                    self.rows += 1;
                    rows.rows += 1;
                    let (key, region) = self.patient(at, &rest[..content])?;
                    let patient = patients.add(at, key, region)?;
                    rows.add(self.piece(length, at, Of::Patient(patient)));
                }
            }
        }
        rows.evidence = patients.evidence;
        Ok(rows)
    }

    /// The patient key and, where the rows carry it, the region of the row at hand.
    fn patient(&self, at: Whence, row: &[u8]) -> Result<(PatientKey, Option<PatientRegion>), Refusal> {
        let refuse = |what| self.refuse(at, what);
        let last = self.region.map_or(self.key, |region| region.max(self.key));
        let mut key = None;
        let mut region = None;
        let split = self.format.split(row, last, |column, field| {
            if column == self.key {
                key = Some(match field {
                    Field::Null => Err("has no patient key: it is NULL"),
                    Field::Value([]) => Err("has no patient key: it is empty"),
                    Field::Value(bytes) => self.key(bytes).ok_or("has a patient key that cannot be decoded"),
                });
            }
            // NULL states no region.
            if Some(column) == self.region
                && let Field::Value(bytes) = field
            {
                let name = std::str::from_utf8(bytes).ok().filter(|name| name.len() <= REGION_MAX);
                region = Some(name.map(PatientRegion::new).ok_or("has a region that is no name"));
            }
        });
        match split {
            Ok(()) => {}
            Err(Bad::TooFew) => return Err(refuse("has too few columns")),
            Err(Bad::Unterminated) => return Err(refuse("has a quoted value that does not end")),
        }
        let key = key.ok_or_else(|| refuse("has too few columns"))?.map_err(refuse)?;
        Ok((key, region.transpose().map_err(refuse)?))
    }

    fn key(&self, bytes: &[u8]) -> Option<PatientKey> {
        match self.format {
            Format::Lines { .. } => key_from_text(bytes, self.key_type),
            Format::Binary(_) => key_from_copy(bytes, self.key_type),
        }
    }

    fn refuse_header(&self, what: &str) -> Refusal {
        Refusal::new(RefusalKind::CopyRow, format!("the COPY {what}"))
            .hint("Send what COPY … TO with FORMAT binary has written, from its first byte on.")
    }

    fn refuse(&self, at: Whence, what: impl std::fmt::Display) -> Refusal {
        let (key, column) = (self.key_type.as_str(), self.key + 1);
        Refusal::new(RefusalKind::CopyRow, format!("{} {what}", at.words())).hint(format!(
            "The patient key is column {column} of each row, of type {key}. Correct the row and send the COPY again: \
             nothing of it stays."
        ))
    }
}

impl Format {
    /// The format of a COPY, and whether a header line comes first.
    fn new(copy: &CopyFrom, max_row: usize) -> Result<(Self, bool), Refusal> {
        let columns = copy.columns.as_ref().map(|columns| columns.len());
        let Some((dialect, header)) = Dialect::new(&copy.format)? else {
            // Without its columns a COPY has no place for the key, and has been refused.
            return Ok((Self::Binary(Tuples::new(columns.unwrap_or_default(), max_row)), false));
        };
        let lines = Lines::new(&dialect, columns.is_none_or(|columns| columns == 1));
        Ok((Self::Lines { dialect, lines }, header))
    }

    fn step(&mut self, data: &[u8], last: bool) -> Step {
        match self {
            Self::Lines { lines, .. } => lines.step(data, last),
            Self::Binary(tuples) => tuples.step(data, last),
        }
    }

    fn split(&self, row: &[u8], last: usize, field: impl FnMut(usize, Field<'_>)) -> Result<(), Bad> {
        match self {
            Self::Lines { dialect, .. } => dialect.split(row, last, field),
            Self::Binary(_) => binary::split(row, last, field),
        }
    }
}

/// The patients of some rows, each once.
#[derive(Default)]
struct Patients {
    evidence: Evidence,
    seen: foldhash::HashMap<PatientKey, usize>,
}

impl Patients {
    /// The patient's place in the evidence.
    fn add(&mut self, at: Whence, key: PatientKey, region: Option<PatientRegion>) -> Result<usize, Refusal> {
        let mentions = &mut self.evidence.mentions;
        match self.seen.entry(key) {
            Entry::Vacant(vacant) => {
                let place = mentions.len();
                let mention = Mention {
                    key: vacant.key().clone(),
                    whence: at,
                    unknown: if region.is_some() { Unknown::Register } else { Unknown::Refuse },
                    region,
                };
                vacant.insert(place);
                mentions.push(mention);
                Ok(place)
            }
            Entry::Occupied(place) => {
                let place = *place.get();
                let Some(first) = mentions.get_mut(place) else { return Ok(place) };
                match (&first.region, region) {
                    (Some(one), Some(other)) if *one != other => {
                        let message = "its patient has another region than in a row before it";
                        return Err(Refusal::new(RefusalKind::RegionContradiction, message).of_row(at));
                    }
                    (None, Some(region)) => {
                        first.region = Some(region);
                        first.unknown = Unknown::Register;
                    }
                    _ => {}
                }
                Ok(place)
            }
        }
    }
}

#[cfg(test)]
mod tests;
