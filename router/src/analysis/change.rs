//! UPDATE, DELETE and MERGE.
//!
//! The key and the region of a row that exists cannot be changed, since that would leave the row on the wrong shard.

use std::rc::Rc;

use pg_raw_parse::Node;
use pg_raw_parse::nodes::{CmdType, DeleteStmt, MergeMatchKind, MergeStmt, ResTarget, ReturningClause, UpdateStmt};
use pgward_config::TableKind;

use super::insert::no_key;
use super::scope::{Derived, View};
use super::select::{is_star, open};
use super::tables::TableInfo;
use super::walk::{At, Env, Mention, Walk};
use crate::refusal::{Refusal, RefusalKind};

impl<'t> Walk<'t> {
    /// The SET list of an update.
    pub(super) fn assignments(
        &mut self,
        targets: impl Iterator<Item = &'t ResTarget>,
        table: Option<&TableInfo>,
        at: At,
    ) {
        for target in targets {
            self.expressions(target.indirection(), at);
            self.expression(target.val(), at);
            let Some(table) = table.filter(|table| table.kind == TableKind::Patient) else { continue };
            let name = target.name();
            if name.is_some() && (name == table.key.as_deref() || name == table.region.as_deref()) {
                self.refuse(
                    Refusal::new(
                        RefusalKind::Unplaceable,
                        format!("the statement changes {} of rows of {}", name.unwrap_or_default(), table.full),
                    )
                    .hint("The key and the region say on which shard a row lives: delete the row and insert it anew."),
                );
            }
        }
    }

    pub(super) fn returning(&mut self, returning: Option<&'t ReturningClause>, at: At) -> Rc<Derived<'t>> {
        let Some(returning) = returning else { return open() };
        self.expressions(
            returning.exprs().iter().map(|node| match node {
                Node::ResTarget(target) => target.val(),
                other => other,
            }),
            at,
        );
        let targets = returning.exprs().iter().filter_map(|node| match node {
            Node::ResTarget(target) => Some(target),
            _ => None,
        });
        let outs = self.outputs(targets, at.view);
        Rc::new(Derived { outs, ..Derived::default() })
    }

    pub(super) fn update(
        &mut self,
        update: &'t UpdateStmt,
        parent: Option<View>,
        env: Env,
        depth: u32,
    ) -> Rc<Derived<'t>> {
        let env = self.with(update.with_clause(), parent, env, depth);
        let Some(relation) = update.relation() else { return open() };
        let scope = self.scopes.open(parent);
        self.relation(relation, scope, true);
        for item in update.from_clause() {
            self.take_item(item, scope, env, depth);
        }
        let at = At { view: self.scopes.view(scope), env, depth };
        let table = self.tables.declared(relation.schemaname(), relation.relname().unwrap_or_default());
        self.assignments(update.target_list().iter(), table.as_deref(), at);
        self.updates(relation, update.target_list().iter());
        self.expression(update.where_clause(), at);
        self.condition(update.where_clause(), at.view, at.view);
        self.returning(update.returning_clause(), at)
    }

    pub(super) fn delete(
        &mut self,
        delete: &'t DeleteStmt,
        parent: Option<View>,
        env: Env,
        depth: u32,
    ) -> Rc<Derived<'t>> {
        let env = self.with(delete.with_clause(), parent, env, depth);
        let Some(relation) = delete.relation() else { return open() };
        let scope = self.scopes.open(parent);
        self.relation(relation, scope, true);
        for item in delete.using_clause() {
            self.take_item(item, scope, env, depth);
        }
        self.deletes_from(relation);
        let at = At { view: self.scopes.view(scope), env, depth };
        self.expression(delete.where_clause(), at);
        self.condition(delete.where_clause(), at.view, at.view);
        self.returning(delete.returning_clause(), at)
    }

    pub(super) fn merge(
        &mut self,
        merge: &'t MergeStmt,
        parent: Option<View>,
        env: Env,
        depth: u32,
    ) -> Rc<Derived<'t>> {
        let env = self.with(merge.with_clause(), parent, env, depth);
        let Some(relation) = merge.relation() else { return open() };
        let scope = self.scopes.open(parent);
        self.relation(relation, scope, true);
        let target = self.scopes.view(scope);
        self.take_item(merge.source_relation(), scope, env, depth);
        let at = At { view: self.scopes.view(scope), env, depth };
        self.expression(merge.join_condition(), at);
        // Rows of the source stay whether they match or not; so do the target's once a branch asks for them.
        let by_source = |kind| kind == MergeMatchKind::MERGE_WHEN_NOT_MATCHED_BY_SOURCE;
        if !merge.merge_when_clauses().iter().any(|when| by_source(when.match_kind)) {
            self.condition(merge.join_condition(), at.view, target);
        }
        let table = self.tables.declared(relation.schemaname(), relation.relname().unwrap_or_default());
        for when in merge.merge_when_clauses() {
            self.expression(when.condition(), at);
            self.expressions(when.values(), at);
            let targets = || {
                when.target_list().iter().filter_map(|node| match node {
                    Node::ResTarget(target) => Some(target),
                    _ => None,
                })
            };
            if when.command_type == CmdType::CMD_INSERT {
                self.subscripts(when.target_list(), at);
            }
            match (when.command_type, &table) {
                (CmdType::CMD_INSERT, Some(table)) if table.kind == TableKind::Patient => {
                    self.overrides(when.override_, table);
                    if let Some(positions) = self.positions(table, when.target_list()) {
                        let mut mention = Mention::of(table);
                        if when.values().iter().any(is_star) {
                            self.refuse(no_key(&mention.table, "a row with a star has no known places"));
                        }
                        let key = when.values().get(positions.key).unwrap_or(Node::None);
                        let region = positions.region.and_then(|position| when.values().get(position));
                        let region = self.stated_region(&positions, region);
                        let value = self.value_of(key, at.view);
                        self.inserted_key(value, region, &mut mention);
                        self.mentions.push(mention);
                    }
                }
                (CmdType::CMD_UPDATE, table) => {
                    self.assignments(targets(), table.as_deref(), at);
                    self.updates(relation, targets());
                }
                (CmdType::CMD_DELETE, _) => self.deletes_from(relation),
                _ => {}
            }
        }
        self.returning(merge.returning_clause(), at)
    }
}
