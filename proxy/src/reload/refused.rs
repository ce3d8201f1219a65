//! Why a file is not put in force.

use pgward_config::{Config, Report, Table};

use crate::catalog::LiveCatalog;
use crate::state::State;

/// A file that was not put in force.
pub(super) struct Refused {
    /// Why, for whoever asked: every mistake with its line.
    pub(super) text: String,
    /// Why, in one line for the audit log.
    pub(super) reason: String,
}

impl Refused {
    pub(super) fn of(why: String) -> Self {
        Self { reason: why.clone(), text: why }
    }

    /// Patients whose rows would not be found any more.
    pub(super) fn moves(moves: &[String]) -> Self {
        let list = moves.join("\n  ");
        let text = format!(
            "rows of these patients would be looked for on another shard, and PgWard moves none:\n  {list}\nonce they have \
             been moved, say so: pgward reload --rows-moved"
        );
        Self { reason: format!("rows would be looked for elsewhere: {}", moves.join("; ")), text }
    }

    /// Mistakes of the file. The record has the first of them and how many there are.
    pub(super) fn mistakes(report: &Report) -> Self {
        let mut lines = report.lines();
        let first = lines.next().unwrap_or_default();
        let reason = match lines.count() {
            0 => first,
            more => format!("{first}; and {more} more"),
        };
        Self { text: report.render(false), reason }
    }
}

/// Whose rows the new configuration looks for elsewhere than where they have been `served` last. Where no patient was
/// ever registered there are none, and a plain pooler knows of none.
pub(super) fn moves(old: &State, served: &Config, new: &Config) -> Vec<String> {
    if old.config.plain.is_some() || new.plain.is_some() {
        return Vec::new();
    }
    match &old.directory {
        Some(directory) if directory.is_empty() => Vec::new(),
        _ => pgward_config::moves(served, new),
    }
}

/// A column that a table was declared to have and that its servers do not.
pub(crate) struct Lacking<'a> {
    table: &'a Table,
    key: &'static str,
    column: &'a str,
}

impl Lacking<'_> {
    /// Whether the old configuration had the same mistake: it does not keep other changes from being made.
    pub(super) fn is_known(&self, old: &Config) -> bool {
        old.tables.contains(self.table)
    }
}

impl std::fmt::Display for Lacking<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, key, column } = self;
        write!(
            f,
            "table {}.{} has no column \"{column}\", which is its `{key}` in [[tables]]",
            table.schema, table.name
        )
    }
}

/// The declared columns that routing needs and that the servers do not have. A table that does not exist lacks none.
pub(crate) fn lacking<'a>(config: &'a Config, live: &LiveCatalog) -> Vec<Lacking<'a>> {
    let mut lacking = Vec::new();
    for table in &config.tables {
        let found = live.tables.iter().find(|live| live.schema == *table.schema && live.name == *table.name);
        let Some(found) = found else { continue };
        for (key, column) in [("key", &table.key), ("region_column", &table.region)] {
            if let Some(column) = column.as_deref()
                && found.column(column).is_none()
            {
                lacking.push(Lacking { table, key, column });
            }
        }
    }
    lacking
}
