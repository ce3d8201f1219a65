//! Errors: what PgWard tells clients, what servers told PgWard, and peers that break the protocol.

use std::borrow::Cow;

use crate::backend::ErrorFields;

/// A peer broke the protocol. Its connection is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.what)]
pub struct ProtocolError(Box<Violation>);

/// Boxed, so that the results of the parsers fit into registers: what is exceptional may allocate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Violation {
    what: Cow<'static, str>,
    sqlstate: &'static str,
}

impl ProtocolError {
    /// What was expected and what came: 08P01, protocol_violation.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Violation { what: what.into(), sqlstate: "08P01" }))
    }

    /// What came is of a protocol that is not spoken here: 0A000, feature_not_supported.
    pub fn unsupported(what: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Violation { what: what.into(), sqlstate: "0A000" }))
    }
}

/// How bad an error is, in PostgreSQL's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The session ends.
    Fatal,
    /// A warning (NoticeResponse).
    Warning,
}

impl Severity {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Warning => "WARNING",
        }
    }
}

/// The contents of an ErrorResponse or NoticeResponse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgError {
    severity: Severity,
    sqlstate: Cow<'static, str>,
    message: Cow<'static, str>,
    detail: Option<Cow<'static, str>>,
    hint: Option<Cow<'static, str>>,
    position: Option<u32>,
    passed_on: bool,
}

impl PgError {
    fn new(severity: Severity, sqlstate: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            severity,
            sqlstate: sqlstate.into(),
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            passed_on: false,
        }
    }

    /// A statement's error.
    pub fn error(sqlstate: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Error, sqlstate, message)
    }

    /// Whether these are a server's words, which repeat values of what it was told.
    pub fn is_passed_on(&self) -> bool {
        self.passed_on
    }

    /// A warning.
    pub fn warning(sqlstate: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Warning, sqlstate, message)
    }

    /// The same, ending the session.
    #[must_use]
    pub fn fatal(mut self) -> Self {
        self.severity = Severity::Fatal;
        self
    }

    /// With a DETAIL.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With a HINT.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a position in the statement's text, in characters from 1.
    #[must_use]
    pub fn with_position(mut self, position: u32) -> Self {
        self.position = Some(position);
        self
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// SQLSTATE.
    pub fn sqlstate(&self) -> &str {
        &self.sqlstate
    }

    /// MESSAGE.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// DETAIL.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// HINT.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Position, in characters from 1.
    pub fn position(&self) -> Option<u32> {
        self.position
    }
}

impl From<ProtocolError> for PgError {
    fn from(error: ProtocolError) -> Self {
        Self::error(error.0.sqlstate, error.0.what).fatal()
    }
}

/// The error as a client of ours may hear it: an ERROR, whatever the server called it, since whether the client's session
/// ends is not the server's to say.
impl From<ErrorFields<'_>> for PgError {
    fn from(fields: ErrorFields<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut error = Self::error(text(fields.sqlstate), text(fields.message));
        error.detail = fields.detail.map(|detail| text(detail).into());
        error.hint = fields.hint.map(|hint| text(hint).into());
        error.passed_on = true;
        error
    }
}
