//! Rows of patients that hang on tables of other kinds.
//!
//! A foreign key that cascades changes or deletes rows of patient tables, whosever they are, when a row of the table that
//! it refers to is changed; so does a view on such a table, or a parent of it. The nodes' catalogs tell which there are.

use pg_raw_parse::nodes::{InsertStmt, RangeVar, ResTarget};

use super::walk::Walk;
use crate::catalog::Cascade;
use crate::refusal::{Refusal, RefusalKind};

impl<'t> Walk<'t> {
    /// Rows of this table are deleted.
    pub(super) fn deletes_from(&mut self, relation: &RangeVar) {
        self.refuse_cascade(relation, |cascade| cascade.on_delete);
    }

    /// Columns of rows of this table are set.
    pub(super) fn updates(&mut self, relation: &RangeVar, targets: impl Iterator<Item = &'t ResTarget>) {
        let set: Vec<&str> = targets.filter_map(ResTarget::name).collect();
        self.refuse_cascade(relation, |cascade| {
            cascade.on_update.as_ref().is_none_or(|columns| columns.iter().any(|column| set.contains(&&**column)))
        });
    }

    /// Rows that were there already are changed by an INSERT.
    pub(super) fn updates_by_insert(&mut self, insert: &'t InsertStmt) {
        if let (Some(relation), Some(conflict)) = (insert.relation(), insert.on_conflict_clause()) {
            self.updates(relation, conflict.target_list().iter());
        }
    }

    /// This table gets another name, or others come to hang on it: what hangs on it would not be known any more.
    pub(super) fn alters(&mut self, relation: Option<&RangeVar>) {
        if let Some(relation) = relation {
            self.refuse_cascade(relation, |_| true);
        }
    }

    /// What is defined passes on to the tables that it was made of.
    pub(super) fn passes_on(&mut self) {
        let names: Vec<_> = self.uses.iter().map(|table| table.name.clone()).collect();
        for (schema, name) in names.iter().filter_map(|full| full.split_once('.')) {
            self.refuse_cascade_of(Some(schema), name, |_| true);
        }
    }

    fn refuse_cascade(&mut self, relation: &RangeVar, applies: impl Fn(&Cascade) -> bool) {
        self.refuse_cascade_of(relation.schemaname(), relation.relname().unwrap_or_default(), applies);
    }

    fn refuse_cascade_of(&mut self, schema: Option<&str>, name: &str, applies: impl Fn(&Cascade) -> bool) {
        let Some(cascade) = self.tables.catalog.cascades(schema, name).find(|it| applies(it)) else { return };
        let message = format!("rows of {} hang on {name}, and would change with it", cascade.patients);
        self.refuse(
            Refusal::new(RefusalKind::Unplaceable, message)
                .detail(
                    "A foreign key with ON DELETE or ON UPDATE leads from the one to the other, whosever the rows are.",
                )
                .hint("Run it on each shard directly, or let the foreign key have NO ACTION or RESTRICT and reload."),
        );
    }
}
