//! ON CONFLICT: whose row it is that the new one meets.

use pg_raw_parse::Node;
use pg_raw_parse::nodes::{InferClause, OnConflictClause};
use smallvec::SmallVec;

use super::scope::{Has, View};
use super::tables::TableInfo;
use super::walk::{At, Mention, Walk};
use crate::refusal::{Refusal, RefusalKind};

impl<'t> Walk<'t> {
    pub(super) fn on_conflict(&mut self, conflict: &'t OnConflictClause, table: Option<&TableInfo>, at: At) {
        if let Some(infer) = conflict.infer() {
            self.expressions(infer.index_elems(), at);
            self.expression(infer.where_clause(), at);
        }
        self.assignments(conflict.target_list().iter(), table, at);
        self.expression(conflict.where_clause(), at);
    }

    /// DO UPDATE changes rows that are there already, found by any unique index. Whose they are is known where the index
    /// has the key's column, and where the condition says it; a constraint's name says nothing.
    pub(super) fn conflicting_rows(
        &mut self,
        conflict: &'t OnConflictClause,
        table: Option<&TableInfo>,
        [target, excluded]: [usize; 2],
        view: View,
    ) {
        let Some((table, key)) = table.and_then(|table| Some((table, table.key.as_deref()?))) else { return };
        let var_of = |walk: &mut Self, item: usize| match walk.scopes.column(item, key) {
            Has::Yes(Some(var)) => var,
            _ => walk.scopes.graph.add(item),
        };
        let (row, new) = (var_of(self, target), var_of(self, excluded));
        if conflict.infer().is_some_and(|infer| names_column(infer, key)) {
            self.scopes.graph.edge(new, row);
        }
        self.condition(conflict.where_clause(), view, View { end: view.start + 1, ..view });
        self.mentions.push(Mention { needs: SmallVec::from_elem(row, 1), by_conflict: true, ..Mention::of(table) });
    }
}

/// Whether a conflict's index has this column, compared as the column itself is.
fn names_column(infer: &InferClause, column: &str) -> bool {
    infer.index_elems().iter().any(|element| match element {
        Node::IndexElem(element) => {
            element.name() == Some(column) && element.collation().is_empty() && element.opclass().is_empty()
        }
        _ => false,
    })
}

pub(super) fn conflict_of_anybody(table: &str, key: &str) -> Refusal {
    let name = table.split_once('.').map_or(table, |(_, name)| name);
    Refusal::new(RefusalKind::NoPatient, format!("ON CONFLICT DO UPDATE may change anybody's row of {table}"))
        .detail(format!("The row in conflict is one with the same values in a unique index that need not have {key}."))
        .hint(format!(
            "List columns with {key} among them, ON CONFLICT ({key}, …), or add WHERE {name}.{key} = excluded.{key} to \
             DO UPDATE."
        ))
}
