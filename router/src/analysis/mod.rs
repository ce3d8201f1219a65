//! What a statement is and where its patient keys stand, found in its parse tree once per shape.
//!
//! Every mention of a patient table, anywhere in the tree, must be tied to keys; a mention that is not makes the whole
//! statement refused. Nothing here may depend on the value of a literal: a shape stands for all texts that differ in
//! their literals alone.

mod activity;
mod cascade;
mod change;
mod children;
mod conditions;
mod conflict;
mod constants;
mod copy;
mod from;
mod functions;
mod graph;
mod insert;
mod params;
mod reach;
mod scope;
mod select;
mod set_config;
mod settings;
mod syntax;
mod tables;
#[cfg(test)]
mod tests;
mod utility;
mod walk;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pg_raw_parse::nodes::RawStmt;
use pg_raw_parse::{Node, ParseResult};
use pgward_config::TableKind;
use smallvec::SmallVec;

use crate::evidence::KeySources;
use crate::lexer::{Cut, Literals, lex};
use crate::refusal::{Refusal, RefusalKind};
use crate::statement::{Action, Literal, Shape, Statement};

pub(crate) use constants::type_oid;
pub(crate) use tables::Tables;
use walk::Walk;

/// Parses and analyses a text.
pub(crate) fn shape(tables: &Tables, sql: &[u8], literals: &[Literal], params: u16) -> Result<Shape, Refusal> {
    let tree = parse(sql)?;
    let statements = tree
        .iter()
        .map(|raw| {
            // The bindings' walk panics on nodes that it does not know. None is known to get there; if one does, its
            // statement is refused and nobody else is harmed.
            catch_unwind(AssertUnwindSafe(|| statement(tables, sql, literals, raw))).unwrap_or_else(|_| unknown())
        })
        .collect();
    Ok(Shape { fingerprint: fingerprint(sql).into(), statements, params })
}

/// The tree of a text.
pub(crate) fn parse(sql: &[u8]) -> Result<ParseResult, Refusal> {
    let text = std::str::from_utf8(sql)
        .map_err(|_| Refusal::new(RefusalKind::Encoding, "invalid byte sequence for encoding \"UTF8\""))?;
    pg_raw_parse::parse(text).map_err(|error| syntax::refusal(text, syntax::error_message(&error)))
}

fn statement(tables: &Tables, sql: &[u8], literals: &[Literal], raw: &RawStmt) -> Statement {
    let mut walk = Walk::new(tables, sql, literals);
    let action = match raw.stmt() {
        node @ (Node::SelectStmt(_)
        | Node::InsertStmt(_)
        | Node::UpdateStmt(_)
        | Node::DeleteStmt(_)
        | Node::MergeStmt(_)) => {
            walk.query(node, None, None, 0);
            Action::Run
        }
        node => walk.utility(node),
    };
    if walk.scopes.too_many_looks() {
        walk.refusal = Some(
            Refusal::new(RefusalKind::TooLarge, "the statement names too many tables and columns to be analysed")
                .hint("Send it as several statements."),
        );
        walk.writes = true;
    }
    if walk.refusal.is_none() {
        walk.nothing_unseen(raw.stmt());
        if walk.shows_statements {
            walk.no_statements_of_others(raw.stmt());
        }
    }
    let action = match action {
        Action::Run | Action::CopyTo | Action::Declare { hold: false, .. } if walk.pins => Action::Pins,
        action => action,
    };
    let stays = matches!(
        action,
        Action::Pins | Action::Prepare(_) | Action::PreparePatients(_) | Action::Execute(_) | Action::Declare { .. }
    );
    if walk.pins && !stays {
        walk.refuse(
            Refusal::new(RefusalKind::Unsupported, "a lock of the session cannot be taken in this statement")
                .hint("Take it by SELECT pg_advisory_lock(…), which keeps the session's server for it."),
        );
    }
    let mut keys = walk.keys();
    keys.guarded = matches!(action, Action::Set(_));
    let patient = walk.uses.iter().any(|table| table.kind == TableKind::Patient);
    let elsewhere = walk.uses.iter().find(|table| table.written && table.kind != TableKind::Patient);
    if let (true, Some(table)) = (patient, elsewhere) {
        let message = format!("the statement touches patients and writes to {}, which is no patient table", table.name);
        walk.refuse(
            Refusal::new(RefusalKind::Unplaceable, message).hint("Read in one statement and write in another."),
        );
    }
    Statement {
        action,
        reads_only: !walk.writes,
        locks: walk.locks,
        tables: walk.uses,
        sets: walk.sets,
        literals: literal_range(literals, raw),
        keys,
        refusal: walk.refusal,
    }
}

/// A statement that could not be analysed.
fn unknown() -> Statement {
    Statement {
        action: Action::Run,
        reads_only: false,
        locks: false,
        tables: SmallVec::new(),
        sets: SmallVec::new(),
        literals: 0..0,
        keys: KeySources::default(),
        refusal: Some(Refusal::new(RefusalKind::Unsupported, "the statement cannot be analysed")),
    }
}

/// The literals that stand in one statement of the text.
fn literal_range(literals: &[Literal], raw: &RawStmt) -> Range<u32> {
    let start = u32::try_from(raw.stmt_location).unwrap_or(0);
    let end = match u32::try_from(raw.stmt_len) {
        Ok(0) | Err(_) => u32::MAX,
        Ok(length) => start.saturating_add(length),
    };
    let before = |limit: u32| literals.partition_point(|literal| literal.start < limit) as u32;
    before(start)..before(end)
}

/// Hash of the text without any literal: the same in every process.
fn fingerprint(sql: &[u8]) -> String {
    let (mut buffer, mut literals) = (Vec::new(), Literals::new());
    let lexed = lex(sql, &mut buffer, &mut literals, Cut::All);
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&buffer[..lexed.shape]))
}
