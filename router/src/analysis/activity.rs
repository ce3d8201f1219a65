//! Views that show the statements of other clients, texts with literals and all: servers are shared by their clients,
//! and so is the role that they are asked as.
//!
//! What sessions do may be counted all the same. A statement may use such a view as long as it certainly reads no text:
//! neither by name, nor by a star, nor with a whole row.

use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::{Alias, ColumnRef, RangeVar};

use super::children::children;
use super::walk::Walk;
use crate::refusal::{Refusal, RefusalKind};

/// The views, each with those of its columns that show no text.
const VIEWS: [(&str, &[&str]); 2] = [
    (
        "pg_stat_activity",
        &[
            "datid",
            "datname",
            "pid",
            "leader_pid",
            "usesysid",
            "usename",
            "application_name",
            "client_addr",
            "client_hostname",
            "client_port",
            "backend_start",
            "xact_start",
            "query_start",
            "state_change",
            "wait_event_type",
            "wait_event",
            "state",
            "backend_xid",
            "backend_xmin",
            "query_id",
            "backend_type",
        ],
    ),
    (
        "pg_prepared_statements",
        &["name", "prepare_time", "parameter_types", "result_types", "from_sql", "generic_plans", "custom_plans"],
    ),
];

/// Their columns that do.
const TEXTS: [&str; 2] = ["query", "statement"];

/// Whether a table of this name shows statements of other clients.
pub(super) fn shows_statements(name: &str) -> bool {
    VIEWS.iter().any(|(view, _)| *view == name)
}

/// What a statement names.
#[derive(Default)]
struct Names<'t> {
    /// The views, each by the name that it has here.
    items: Vec<(&'t str, &'static [&'static str])>,
    columns: Vec<&'t ColumnRef>,
    /// Columns have other names than their own, or are merged unseen.
    hides: bool,
}

impl<'t> Walk<'t> {
    /// Refuses a statement with such a view that may read the text of a statement.
    pub(super) fn no_statements_of_others(&mut self, root: Node<'t>) {
        let names = Names::of(root);
        if names.hides || names.columns.iter().any(|column| names.may_read_text(column.fields())) {
            self.refuse(
                Refusal::new(RefusalKind::NoPatient, "the statement may read the texts of other clients' statements")
                    .hint("Name the columns that it needs, each of the view's own and none with a text, or ask the shard's own server."),
            );
        }
    }
}

impl<'t> Names<'t> {
    fn of(root: Node<'t>) -> Self {
        // COPY of a whole view has no column to name.
        let hides = matches!(root, Node::CopyStmt(copy) if copy.relation().is_some());
        let mut names = Self { hides, ..Self::default() };
        let mut stack = vec![root];
        while let Some(node) = stack.pop() {
            match node {
                Node::RangeVar(relation) => names.item(relation),
                Node::ColumnRef(column) => names.columns.push(column),
                Node::JoinExpr(join) => {
                    let merges_text = join.using_clause().iter().any(|name| name.sval().is_none_or(is_text));
                    names.hides |= join.is_natural || join.alias().is_some() || merges_text;
                }
                _ => {}
            }
            children(node, &mut stack);
        }
        names
    }

    fn item(&mut self, relation: &'t RangeVar) {
        let name = relation.relname().unwrap_or_default();
        if let Some((_, columns)) = VIEWS.iter().find(|(view, _)| *view == name) {
            self.hides |= relation.alias().is_some_and(|alias| !alias.colnames().is_empty());
            self.items.push((relation.alias().and_then(Alias::aliasname).unwrap_or(name), columns));
        }
    }

    fn may_read_text(&self, fields: &NodeList) -> bool {
        let names: Option<Vec<&str>> = fields.iter().map(|field| field.as_str()).collect();
        // A star has no name.
        let Some((last, before)) = names.as_deref().and_then(<[&str]>::split_last) else { return true };
        is_text(last)
            || match before.last() {
                // The name of an item alone is its row; what its row is put before and is no column is a function.
                None => self.items.iter().any(|(item, _)| item == last),
                Some(table) => self.items.iter().any(|(item, columns)| item == table && !columns.contains(last)),
            }
    }
}

fn is_text(name: &str) -> bool {
    TEXTS.contains(&name)
}
