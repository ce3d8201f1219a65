//! Whose record a statement touches: patient keys with the place where each was seen.

use pgward_config::PatientRegion;
use smallvec::SmallVec;

/// A decoded patient key. It has no `Display`, so that it cannot reach a log by accident.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum PatientKey {
    /// 16 bytes of a uuid.
    Uuid([u8; 16]),
    /// A bigint.
    Bigint(i64),
    /// Text, byte for byte.
    Text(Box<[u8]>),
}

impl std::fmt::Debug for PatientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PatientKey(..)")
    }
}

/// Where a key was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// The n-th literal of the text (from 0), beginning at this byte of the text.
    Literal {
        /// Ordinal of the literal.
        ordinal: u32,
        /// Byte offset in the text.
        at: u32,
    },
    /// Parameter `$n` (from 1).
    Param(u16),
    /// Row of a COPY in the binary format (from 1).
    CopyRow(u64),
    /// Row of a COPY in text or CSV that begins at this line of the stream (from 1), a header counted.
    CopyLine(u64),
}

impl Whence {
    /// For messages.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Literal { at, .. } => format!("the literal at byte {} of the statement", at + 1),
            Self::Param(number) => format!("parameter ${number}"),
            Self::CopyRow(row) => format!("row {row} of the COPY"),
            Self::CopyLine(line) => format!("line {line} of the COPY"),
        }
    }

    pub(crate) fn is_copy(self) -> bool {
        matches!(self, Self::CopyRow(_) | Self::CopyLine(_))
    }
}

/// One patient that a statement touches.
#[derive(Clone, Debug)]
pub struct Mention {
    /// Whose record.
    pub key: PatientKey,
    /// Where the key was seen first.
    pub whence: Whence,
    /// The patient's region, when the statement is an INSERT that carries it.
    pub region: Option<PatientRegion>,
    /// What becomes of the patient if the directory does not know it.
    pub unknown: Unknown,
}

/// What becomes of a patient whom the directory does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unknown {
    /// The statement goes nowhere.
    #[default]
    Refuse,
    /// The statement only explains how it would store a row: the region beside it says where.
    Place,
    /// The statement stores a row of the patient with the region beside it, which registers the patient.
    Register,
}

/// The patients that a statement touches, each once, in the order seen. Empty when it touches no patient table.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The patients.
    pub mentions: SmallVec<[Mention; 1]>,
}

/// Bind parameters, as the analysis reads them.
pub trait Params {
    /// The value of `$n` (from 1): `None` if there is no such parameter, `Some(None)` for NULL, else its bytes.
    fn value(&self, n: u16) -> Option<Option<&[u8]>>;
    /// True where `$n` is in binary format.
    fn binary(&self, n: u16) -> bool;
    /// The declared type of `$n`, 0 where the client left it open.
    fn oid(&self, n: u16) -> u32;
}

/// No parameters: a simple Query.
pub struct NoParams;

impl Params for NoParams {
    fn value(&self, _: u16) -> Option<Option<&[u8]>> {
        None
    }
    fn binary(&self, _: u16) -> bool {
        false
    }
    fn oid(&self, _: u16) -> u32 {
        0
    }
}

/// Where a statement's patient keys stand; made by the analysis, read by evidence.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySources {
    /// The places, in the order of the text.
    pub(crate) sources: SmallVec<[KeySource; 1]>,
    /// Parameters among them that the statement uses in other ways, too: where the client leaves such a one's type
    /// open, whichever use the server looks at first decides how its bytes read.
    pub(crate) mixed: SmallVec<[u16; 1]>,
    /// Parameters of regions that the statement uses in other ways than as text, too.
    pub(crate) mixed_regions: SmallVec<[u16; 1]>,
    /// Names of settings in set_config calls, which must be looked at.
    pub(crate) set_config: SmallVec<[Slot; 1]>,
    /// The statement is a SET whose values must be looked at.
    pub(crate) guarded: bool,
}

/// One place where a key stands, or a list of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeySource {
    /// The key.
    pub(crate) key: Slot,
    /// The patient's region, where an INSERT carries it beside the key.
    pub(crate) region: Option<Slot>,
    /// What becomes of a patient whom the directory does not know.
    pub(crate) unknown: Unknown,
    /// The value is an array; each of its elements is a key.
    pub(crate) array: bool,
    /// The byte at which it begins.
    pub(crate) at: i32,
}

/// A value that only the text or the parameters have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    /// The n-th literal of the text, from 0.
    Literal {
        /// Its ordinal.
        ordinal: u32,
        /// A minus sign stands before it.
        negative: bool,
    },
    /// Parameter `$n`.
    Param {
        /// n, from 1.
        n: u16,
        /// OID of the type that the statement casts it to first; 0 for no cast.
        cast: u32,
    },
}
