//! What a statement is, before any value in it is looked at.

use std::sync::Arc;

use pgward_config::TableKind;
use smallvec::SmallVec;

/// What a statement does to data, proven from its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing but reads: may go to a replica.
    Read,
    /// A read of a session whose work is analytics.
    Analytics,
    /// Everything that is not proven to be a read.
    Write,
    /// Any statement of class emergency: always the primary.
    Emergency,
}

impl Kind {
    /// `read`, `analytics`, `write`, `emergency`: the words of audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Analytics => "analytics",
            Self::Write => "write",
            Self::Emergency => "emergency",
        }
    }
}

/// The text of one Query or Parse message, analysed: its cached shape and where its literals stand in this text.
#[derive(Clone, Debug)]
pub struct Analysed {
    /// What all texts of this shape have in common.
    pub shape: Arc<Shape>,
    /// The literals of this text in order.
    pub literals: SmallVec<[Literal; 8]>,
}

/// A literal of a statement's text, still as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Literal {
    /// Byte offset of its first byte (of the quote or prefix, for strings).
    pub start: u32,
    /// Byte offset behind its last byte.
    pub end: u32,
    /// How it is written.
    pub kind: LiteralKind,
}

/// How a literal is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LiteralKind {
    /// `'…'`, continued over newlines too
    String,
    /// `E'…'`
    Escape,
    /// `U&'…'`
    Unicode,
    /// `B'…'` or `X'…'`
    Bit,
    /// `$tag$…$tag$`
    Dollar,
    /// digits
    Integer,
    /// anything else that is a number
    Numeric,
}

/// All that is known of a text from its shape alone; cached and shared.
#[derive(Debug)]
pub struct Shape {
    /// Hexadecimal fingerprint of the shape's text (no literal in it), for audit records.
    pub fingerprint: Arc<str>,
    /// The statements in order; empty for an empty query string.
    pub statements: SmallVec<[Statement; 1]>,
    /// Highest `$n`.
    pub params: u16,
}

/// One statement of a text.
#[derive(Clone, Debug)]
pub struct Statement {
    /// What it does to the session or to data.
    pub action: Action,
    /// Whether its tree contains nothing but reads: every function known IMMUTABLE or STABLE, no locking clause.
    pub reads_only: bool,
    /// Whether it takes an advisory lock until the transaction's end, which excludes nobody on a replica.
    pub locks: bool,
    /// The tables that it names, each once.
    pub tables: SmallVec<[TableUse; 4]>,
    /// The settings that its calls of set_config change for the session, in their order.
    pub sets: SmallVec<[SetConfig; 1]>,
    /// Byte range of the statement in shape-independent terms: index of its first and one past its last literal.
    pub literals: std::ops::Range<u32>,
    /// Where patient keys stand in it; private to the analysis.
    pub(crate) keys: crate::evidence::KeySources,
    /// Set when no value can make this statement acceptable; `evidence` returns it.
    pub(crate) refusal: Option<crate::refusal::Refusal>,
}

impl Statement {
    /// Why no value can make this statement acceptable, where that is so.
    pub fn own_refusal(&self) -> Option<&crate::refusal::Refusal> {
        self.refusal.as_ref()
    }
}

/// A table that a statement names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableUse {
    /// Schema and name as resolved, e.g. `public.patients`.
    pub name: Arc<str>,
    /// What it holds.
    pub kind: TableKind,
    /// True where the statement writes to it.
    pub written: bool,
}

/// What a statement is to a session. A `Slot` points at the text's value: a literal's ordinal or a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES, TABLE, EXPLAIN of those, and other statements that only run.
    Run,
    /// `BEGIN` or `START TRANSACTION`.
    Begin {
        /// `READ ONLY` was given, and nothing that keeps the transaction off replicas (SERIALIZABLE).
        read_only: bool,
        /// It is `START TRANSACTION`, which is answered so.
        start: bool,
    },
    /// `COMMIT`, `END` (`chain`: AND CHAIN).
    Commit {
        /// AND CHAIN
        chain: bool,
    },
    /// `ROLLBACK`, `ABORT`.
    Rollback {
        /// AND CHAIN
        chain: bool,
    },
    /// `SAVEPOINT name`.
    Savepoint(Arc<str>),
    /// `RELEASE SAVEPOINT name`.
    Release(Arc<str>),
    /// `ROLLBACK TO SAVEPOINT name`.
    RollbackTo(Arc<str>),
    /// `PREPARE TRANSACTION`, `COMMIT PREPARED`, `ROLLBACK PREPARED`: refused.
    TwoPhase,
    /// `SET name TO value`, `SET TIME ZONE`, `SET NAMES`, `SET SESSION CHARACTERISTICS` …: a plain run-time parameter.
    Set(Setting),
    /// `SET TRANSACTION …`: `read_only` if it says READ ONLY.
    SetTransaction {
        /// `READ ONLY` was given, and nothing that keeps the transaction off replicas (SERIALIZABLE).
        read_only: bool,
    },
    /// `RESET name` (`None`: `RESET ALL`).
    Reset(Option<Arc<str>>),
    /// `SHOW name`.
    Show(Arc<str>),
    /// `DISCARD ALL` / `PLANS` / `SEQUENCES` / `TEMP`.
    Discard {
        /// ALL
        all: bool,
    },
    /// SQL-level `PREPARE name AS …`, of a statement that the server can keep.
    Prepare(Arc<str>),
    /// The same of a statement on patient tables. It has a refusal of its own, as wherever only a server could keep it;
    /// alone in a Query, its session keeps it as it keeps the protocol's prepared statements.
    PreparePatients(Arc<str>),
    /// SQL-level `EXECUTE name`, also in EXPLAIN and CREATE TABLE AS.
    Execute(Arc<str>),
    /// SQL-level `DEALLOCATE name` (`None`: ALL).
    Deallocate(Option<Arc<str>>),
    /// `COPY … FROM STDIN`.
    CopyFrom(CopyFrom),
    /// `COPY … TO STDOUT`.
    CopyTo,
    /// `DECLARE … CURSOR`; `hold`: WITH HOLD.
    Declare {
        /// Its name.
        name: Arc<str>,
        /// WITH HOLD
        hold: bool,
    },
    /// `FETCH`, `MOVE` of this cursor: touches what its DECLARE touched.
    Fetch(Arc<str>),
    /// `CLOSE` of this cursor, or of all.
    Close(Option<Arc<str>>),
    /// `LISTEN`: needs the session's own server.
    Listen,
    /// Leaves state in the server that cannot be shared: temporary tables, session advisory locks.
    Pins,
}

impl Action {
    /// Runs in a failed transaction: ends it, or its failure.
    pub fn ends_failed_transaction(&self) -> bool {
        matches!(self, Self::Commit { .. } | Self::Rollback { .. } | Self::RollbackTo(_))
    }

    /// Only opens, marks or ends a transaction: it decides nothing and touches no row.
    pub fn is_transaction_control(&self) -> bool {
        matches!(
            self,
            Self::Begin { .. }
                | Self::Commit { .. }
                | Self::Rollback { .. }
                | Self::Savepoint(_)
                | Self::Release(_)
                | Self::RollbackTo(_)
                | Self::SetTransaction { .. }
        )
    }
}

/// A `SET` of one run-time parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Name in lower case.
    pub name: Arc<str>,
    /// The values, in order; empty for DEFAULT.
    pub values: SmallVec<[Value; 1]>,
    /// SET LOCAL
    pub local: bool,
}

/// A value in a SET: a word as it stands (lower-cased by the parser where unquoted), or a literal of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An identifier or keyword such as `on`.
    Word(Arc<str>),
    /// The n-th literal of the text, counted from 0; `negative` for `-1`.
    Literal {
        /// Its ordinal.
        ordinal: u32,
        /// A minus sign stands before it.
        negative: bool,
    },
}

/// `set_config(name, value, false)` in the select list of a query without tables: a SET in other words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetConfig {
    /// Ordinal of the literal that is the name. It is a value of the text, not of the shape.
    pub name: u32,
    /// Where the value stands.
    pub value: SetConfigValue,
}

/// Where the value of a `set_config` stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetConfigValue {
    /// The n-th literal of the text, counted from 0.
    Literal {
        /// Its ordinal.
        ordinal: u32,
    },
    /// Parameter `$n` (from 1).
    Param(u16),
}

/// `COPY … FROM STDIN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFrom {
    /// The table, `schema.name`.
    pub table: Arc<str>,
    /// What it holds.
    pub kind: TableKind,
    /// Columns in the order of the rows, where named or known.
    pub columns: Option<Arc<[Arc<str>]>>,
    /// Position of the patient key in a row, where the table is a patient table and the columns are known.
    pub key: Option<usize>,
    /// Position of the region column in a row.
    pub region: Option<usize>,
    /// Format of the rows. The option values are part of the shape (never cut out as literals).
    pub format: CopyFormat,
}

/// Format of COPY rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// text
    Text {
        /// DELIMITER
        delimiter: u8,
        /// NULL
        null: Arc<str>,
        /// HEADER
        header: bool,
    },
    /// csv
    Csv {
        /// DELIMITER
        delimiter: u8,
        /// QUOTE
        quote: u8,
        /// ESCAPE
        escape: u8,
        /// NULL
        null: Arc<str>,
        /// HEADER
        header: bool,
    },
    /// binary
    Binary,
}
