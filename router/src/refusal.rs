//! Refusals: why a statement goes nowhere, said to the client as a PostgreSQL error.

use std::borrow::Cow;

use crate::evidence::Whence;

/// A statement that is not forwarded, with its whole reason. No patient key and no literal ever stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What went against it.
    pub kind: RefusalKind,
    /// MESSAGE: what was seen.
    pub message: Cow<'static, str>,
    /// DETAIL
    pub detail: Option<Cow<'static, str>>,
    /// HINT: what to do.
    pub hint: Option<Cow<'static, str>>,
    /// Character position in the statement's text, from 1 (syntax errors).
    pub position: Option<u32>,
}

/// Kinds of refusals, each with an SQLSTATE. Class `PW` is PgWard's own (SQL leaves classes that begin with I to Z to
/// implementations).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// A patient table without a patient.
    NoPatient,
    /// Patients of more than one shard.
    SeveralRegions,
    /// A table that is not declared.
    UndeclaredTable,
    /// A patient that the directory does not know.
    UnknownPatient,
    /// Sovereignty: the origin may not reach the patient's region.
    Sovereignty,
    /// Another shard or node than the open transaction's.
    TransactionElsewhere,
    /// A key that cannot be decoded.
    UndecodableKey,
    /// A statement that no shard may run: DDL on patient tables, writes to reference tables, two-phase commit …
    Unplaceable,
    /// A class above the session's ceiling.
    AboveCeiling,
    /// A role that the user may not set.
    RoleNotAllowed,
    /// A patient region that no shard serves.
    RegionUnserved,
    /// No healthy node for this statement.
    NoHealthyNode,
    /// A row of a COPY.
    CopyRow,
    /// The region that an INSERT carries is not the one that the directory has, or cannot be read.
    RegionContradiction,
    /// The directory cannot take a new patient.
    DirectoryUnwritable,
    /// Not a PostgreSQL statement.
    Syntax,
    /// Not UTF-8.
    Encoding,
    /// A text whose tree would take too much memory.
    TooLarge,
    /// A part of PostgreSQL that the pool mode does not offer.
    Unsupported,
}

impl RefusalKind {
    /// The words of audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoPatient => "no patient",
            Self::SeveralRegions => "several regions",
            Self::UndeclaredTable => "undeclared table",
            Self::UnknownPatient => "unknown patient",
            Self::Sovereignty => "sovereignty",
            Self::TransactionElsewhere => "transaction elsewhere",
            Self::UndecodableKey => "undecodable key",
            Self::Unplaceable => "unplaceable",
            Self::AboveCeiling => "above ceiling",
            Self::RoleNotAllowed => "role not allowed",
            Self::RegionUnserved => "region unserved",
            Self::NoHealthyNode => "no healthy node",
            Self::CopyRow => "copy row",
            Self::RegionContradiction => "region contradiction",
            Self::DirectoryUnwritable => "directory unwritable",
            Self::Syntax => "syntax",
            Self::Encoding => "encoding",
            Self::TooLarge => "too large",
            Self::Unsupported => "unsupported",
        }
    }

    /// The SQLSTATE.
    pub const fn sqlstate(self) -> &'static str {
        match self {
            Self::NoPatient => "PW001",
            Self::SeveralRegions => "PW002",
            Self::UndeclaredTable => "PW003",
            Self::UnknownPatient => "PW004",
            Self::Sovereignty => "PW005",
            Self::TransactionElsewhere => "PW006",
            Self::UndecodableKey => "PW007",
            Self::Unplaceable => "PW008",
            Self::AboveCeiling => "PW009",
            Self::RoleNotAllowed => "42501",
            Self::RegionUnserved => "PW010",
            Self::NoHealthyNode => "PW011",
            Self::CopyRow => "PW012",
            Self::RegionContradiction => "PW013",
            Self::DirectoryUnwritable => "58030",
            Self::Syntax => "42601",
            Self::Encoding => "22021",
            Self::TooLarge => "54000",
            Self::Unsupported => "0A000",
        }
    }
}

impl Refusal {
    /// A refusal with a message alone.
    pub fn new(kind: RefusalKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), detail: None, hint: None, position: None }
    }

    /// A region that cannot be held against the directory.
    pub(crate) fn unread_region(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::RegionContradiction, message)
            .detail("The row's region must be seen, and be the one that the directory has for the row's patient.")
    }

    /// With a DETAIL.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Of the row of a COPY that this was seen at, if it was one: it is what people have to find in their file, and with
    /// it all others are refused.
    pub fn of_row(mut self, whence: Whence) -> Self {
        if !whence.is_copy() {
            return self;
        }
        if self.kind == RefusalKind::SeveralRegions {
            self = self.of_another_shard();
        }
        let hint = self.hint.take().unwrap_or("Correct the row and send the COPY again.".into());
        self.message = format!("{}: {}", whence.words(), self.message).into();
        self.hint(format!("{hint} Nothing of this COPY stays."))
    }

    /// The row of a COPY is not of the shard that the rows before it go to.
    pub fn of_another_shard(mut self) -> Self {
        self.message = "its patient is on another shard than the rows before it".into();
        self.hint("Send one COPY for the patients of each shard.")
    }

    /// With a HINT.
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
