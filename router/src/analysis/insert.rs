//! INSERT: each row must carry its patient's key.

use std::rc::Rc;
use std::sync::Arc;

use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::{InsertStmt, OnConflictAction, OverridingKind, SelectStmt, SetOperation};
use pgward_config::TableKind;

use super::constants::number;
use super::scope::{Derived, Has, Out, OutValue, View, What};
use super::select::{is_star, open};
use super::tables::TableInfo;
use super::walk::{At, Env, Mention, Walk};
use crate::evidence::{KeySource, Slot, Unknown};
use crate::refusal::{Refusal, RefusalKind};

/// Where key and region stand in the rows of an INSERT.
pub(super) struct Positions {
    table: Arc<TableInfo>,
    pub(super) key: usize,
    /// Only where it is held against the directory.
    pub(super) region: Option<usize>,
}

impl<'t> Walk<'t> {
    pub(super) fn insert(
        &mut self,
        insert: &'t InsertStmt,
        parent: Option<View>,
        env: Env,
        depth: u32,
    ) -> Rc<Derived<'t>> {
        let env = self.with(insert.with_clause(), parent, env, depth);
        let Some(relation) = insert.relation() else { return open() };
        let table = self.table(relation, true);
        let nowhere = self.nowhere_in(parent, env, depth);
        self.subscripts(insert.cols(), nowhere);
        let positions = match &table {
            Some(table) if table.kind == TableKind::Patient => {
                self.overrides(insert.override_, table);
                self.positions(table, insert.cols())
            }
            _ => None,
        };
        let mut mention = Mention::named(table.as_ref().map_or_else(|| "".into(), |table| table.full.clone()));
        match insert.select_stmt() {
            Node::SelectStmt(rows) if !rows.values_lists().is_empty() && rows.op == SetOperation::SETOP_NONE => {
                self.inserted_values(rows, parent, env, depth, positions.as_ref(), &mut mention);
            }
            Node::None => {
                if positions.is_some() {
                    self.refuse(no_key(&mention.table, "DEFAULT VALUES has no key"));
                }
            }
            query => {
                let derived = self.query(query, parent, env, depth + 1);
                let arms = if derived.arms.is_empty() { std::slice::from_ref(&derived) } else { &derived.arms };
                for arm in arms {
                    if let Some(positions) = &positions {
                        self.inserted_rows(arm, positions, &mut mention);
                    }
                }
            }
        }

        let scope = self.scopes.open(parent);
        let what = |table: &Option<Arc<TableInfo>>| table.clone().map_or(What::Unknown, What::Table);
        let name = relation.alias().and_then(|alias| alias.aliasname()).or(relation.relname());
        let target = self.scopes.push(scope, name, None, what(&table));
        let returning = self.scopes.view(scope);
        match insert.on_conflict_clause() {
            Some(conflict) => {
                let excluded = self.scopes.push(scope, Some("excluded"), None, what(&table));
                self.carry(excluded, &table, &mention);
                let at = At { view: self.scopes.view(scope), env, depth };
                self.on_conflict(conflict, table.as_deref(), at);
                if conflict.action == OnConflictAction::ONCONFLICT_NOTHING {
                    self.carry(target, &table, &mention);
                } else {
                    self.conflicting_rows(conflict, table.as_deref(), [target, excluded], at.view);
                }
            }
            None => self.carry(target, &table, &mention),
        }
        if positions.is_some() {
            self.mentions.push(mention);
        }
        self.returning(insert.returning_clause(), At { view: returning, env, depth })
    }

    /// The rows of VALUES, each with its key.
    fn inserted_values(
        &mut self,
        rows: &'t SelectStmt,
        parent: Option<View>,
        env: Env,
        depth: u32,
        positions: Option<&Positions>,
        mention: &mut Mention,
    ) {
        self.saw(rows);
        let env = self.with(rows.with_clause(), parent, env, depth);
        let at = self.nowhere_in(parent, env, depth);
        self.expressions(rows.values_lists(), at);
        self.expressions(rows.sort_clause().iter().map(Node::SortBy), at);
        self.expressions([rows.limit_offset(), rows.limit_count()], at);
        let Some(positions) = positions else { return };
        for row in rows.values_lists() {
            let Node::NodeList(row) = row else { continue };
            if row.iter().any(is_star) {
                self.refuse(no_key(&mention.table, "a row with a star has no known places"));
                continue;
            }
            let key = row.get(positions.key).unwrap_or(Node::None);
            let region = positions.region.and_then(|position| row.get(position));
            let region = self.stated_region(positions, region);
            let value = self.value_of(key, at.view);
            self.inserted_key(value, region, mention);
        }
    }

    /// The rows of a query.
    fn inserted_rows(&mut self, rows: &Derived<'t>, positions: &Positions, mention: &mut Mention) {
        let wanted = positions.key.max(positions.region.unwrap_or(0));
        let starred = rows.outs.iter().take(wanted + 1).any(|out| matches!(out, Out::Star(_)));
        let column = |position: usize| match rows.outs.get(position) {
            Some(Out::Column { value, node, .. }) => Some((value.clone(), *node)),
            _ => None,
        };
        match column(positions.key) {
            Some((value, _)) if !rows.open && !starred => {
                let region = positions.region.and_then(column).map(|(_, node)| node);
                let region = self.stated_region(positions, region);
                self.inserted_key(value, region, mention);
            }
            _ => self.refuse(no_key(&mention.table, "the query does not name the key among its columns")),
        }
    }

    /// The region that a row states: that of a patient who is known must be the directory's, so that one that cannot be
    /// read refuses the statement. `None` for a row without.
    pub(super) fn stated_region(&mut self, positions: &Positions, value: Option<Node<'t>>) -> Option<Slot> {
        let Some(value) = value else {
            self.fills_no_region(&positions.table);
            return None;
        };
        let region = self.constants.text(value);
        match innermost(value) {
            _ if region.is_none() => {
                let table = &positions.table.full;
                self.refuse(
                    Refusal::unread_region(format!("the region of a row that is inserted into {table} cannot be read"))
                        .hint("Send the region of each row as a string or a parameter, without any expression."),
                );
            }
            Node::ParamRef(param) => self.region_params.extend(number(param).map(|n| (n, param.location))),
            _ => {}
        }
        region
    }

    /// Refuses rows without a region where the server would give them one.
    pub(super) fn fills_no_region(&mut self, table: &TableInfo) {
        if let (Some(region), true) = (&table.stated, table.fills_region) {
            self.refuse(
                Refusal::unread_region(format!(
                    "the rows for {} do not list {region}, which has a default",
                    table.full
                ))
                .hint(format!("List {region} with the region of each row, or drop its default on all shards.")),
            );
        }
    }

    pub(super) fn inserted_key(&mut self, value: OutValue, region: Option<Slot>, mention: &mut Mention) {
        match value {
            OutValue::Keys(keys) if keys.iter().all(|key| !key.array) => {
                let unknown = if region.is_some() { Unknown::Register } else { Unknown::Refuse };
                mention.sources.extend(keys.into_iter().map(|key| KeySource { region, unknown, ..key }));
            }
            OutValue::Var(var) => {
                mention.needs.push(var);
                mention.regions.extend(region.map(|region| (var, region)));
            }
            _ => self.refuse(no_key(&mention.table, "a row's key is no plain value")),
        }
    }

    /// The key of the inserted rows is the key of this item's rows.
    fn carry(&mut self, item: usize, table: &Option<Arc<TableInfo>>, mention: &Mention) {
        let Some(key) = table.as_ref().filter(|t| t.kind == TableKind::Patient).and_then(|t| t.key.clone()) else {
            return;
        };
        if let Has::Yes(Some(var)) = self.scopes.column(item, &key) {
            if !mention.sources.is_empty() {
                self.scopes.graph.pin(var, &mention.sources);
            }
            for need in &mention.needs {
                self.scopes.graph.edge(*need, var);
            }
        }
    }

    /// Refuses rows whose values for identity columns, a key perhaps, the server replaces by its own.
    pub(super) fn overrides(&mut self, kind: OverridingKind::Type, table: &TableInfo) {
        if kind == OverridingKind::OVERRIDING_USER_VALUE {
            self.refuse(
                no_key(&table.full, "OVERRIDING USER VALUE stores another than is sent where it is an identity column")
                    .hint(
                        "Leave OVERRIDING USER VALUE out, and identity columns that are not the key out of the list.",
                    ),
            );
        }
    }

    /// Where the key stands in an inserted row.
    pub(super) fn positions(&mut self, table: &Arc<TableInfo>, columns: &'t NodeList) -> Option<Positions> {
        let key = table.key.as_deref()?;
        let named: Vec<Option<&str>> = columns
            .iter()
            .map(|column| match column {
                Node::ResTarget(target) if target.indirection().is_empty() => target.name(),
                _ => None,
            })
            .collect();
        let names: Vec<Option<&str>> = match (&table.columns, named.is_empty()) {
            (_, false) => named,
            (Some(columns), true) => columns.iter().map(|column| Some(&**column)).collect(),
            (None, true) => {
                self.refuse(
                    Refusal::new(
                        RefusalKind::NoPatient,
                        format!("the INSERT does not name its columns, and those of {} are not known", table.full),
                    )
                    .hint(format!("Name the columns, {key} among them.")),
                );
                return None;
            }
        };
        let position = |wanted: &str| names.iter().position(|name| *name == Some(wanted));
        let Some(at) = position(key) else {
            self.refuse(no_key(&table.full, &format!("{key} is not among the columns")));
            return None;
        };
        Some(Positions { table: table.clone(), key: at, region: table.stated.as_deref().and_then(position) })
    }

    /// The subscripts of the columns that rows are inserted into: `column[…]`.
    pub(super) fn subscripts(&mut self, columns: &'t NodeList, at: At) {
        for column in columns {
            match column {
                Node::ResTarget(target) => self.expressions(target.indirection(), at),
                other => self.expression(other, at),
            }
        }
    }
}

/// What is cast.
fn innermost(mut node: Node<'_>) -> Node<'_> {
    while let Node::TypeCast(cast) = node {
        node = cast.arg();
    }
    node
}

pub(super) fn no_key(table: &str, why: &str) -> Refusal {
    Refusal::new(RefusalKind::NoPatient, format!("the statement inserts into {table} without the patient's key: {why}"))
        .hint("Send the key of each row as a value or a parameter.")
}
