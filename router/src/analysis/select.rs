//! Queries: their WITH, their conditions and the columns that they give.

use std::rc::Rc;

use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::{IntoClause, ResTarget, SelectStmt, SetOperation, WithClause};

use super::graph::Sources;
use super::scope::{Derived, Out, OutValue, View};
use super::set_config::runs_once;
use super::walk::{At, Cte, Env, Walk};
use crate::refusal::{Refusal, RefusalKind};

impl<'t> Walk<'t> {
    /// A query or a change inside it, and the columns that it gives.
    pub(super) fn query(&mut self, node: Node<'t>, parent: Option<View>, env: Env, depth: u32) -> Rc<Derived<'t>> {
        if self.too_deep(depth) {
            return open();
        }
        match node {
            Node::SelectStmt(select) => {
                self.saw(select);
                self.select(select, parent, env, depth)
            }
            Node::InsertStmt(insert) => {
                self.saw(insert);
                self.updates_by_insert(insert);
                self.insert(insert, parent, env, depth)
            }
            Node::UpdateStmt(update) => {
                self.saw(update);
                self.update(update, parent, env, depth)
            }
            Node::DeleteStmt(delete) => {
                self.saw(delete);
                self.delete(delete, parent, env, depth)
            }
            Node::MergeStmt(merge) => {
                self.saw(merge);
                self.merge(merge, parent, env, depth)
            }
            _ => {
                self.refuse(Refusal::new(RefusalKind::Unsupported, "this kind of query is not known"));
                open()
            }
        }
    }

    fn select(&mut self, select: &'t SelectStmt, parent: Option<View>, env: Env, depth: u32) -> Rc<Derived<'t>> {
        let env = self.with(select.with_clause(), parent, env, depth);
        if let Some(into) = select.into_clause() {
            self.create_from_query(into);
        }
        if select.op != SetOperation::SETOP_NONE {
            return self.set_operation(select, parent, env, depth);
        }
        let scope = self.scopes.open(parent);
        for item in select.from_clause() {
            self.take_item(item, scope, env, depth);
        }
        let at = At { view: self.scopes.view(scope), env, depth };
        self.expression(select.where_clause(), at);
        self.condition(select.where_clause(), at.view, at.view);
        let once = depth == 0 && runs_once(select);
        for entry in select.target_list().iter().map(ResTarget::val) {
            if !once || !self.takes_setting(entry) {
                self.expression(entry, at);
            }
        }
        self.expressions(select.distinct_clause(), at);
        self.expressions(select.group_clause(), at);
        self.expression(select.having_clause(), at);
        self.expressions(select.window_clause(), at);
        self.tail(select, at);
        if !select.values_lists().is_empty() {
            self.expressions(select.values_lists(), at);
            return Rc::new(self.values(select.values_lists(), at.view));
        }
        let outs = self.outputs(select.target_list().iter(), at.view);
        Rc::new(Derived { outs, ..Derived::default() })
    }

    /// ORDER BY, LIMIT and locks.
    fn tail(&mut self, select: &'t SelectStmt, at: At) {
        self.expressions(select.sort_clause().iter().map(Node::SortBy), at);
        self.expression(select.limit_offset(), at);
        self.expression(select.limit_count(), at);
        self.writes |= !select.locking_clause().is_empty();
    }

    /// UNION and its like: each arm stands for itself.
    fn set_operation(&mut self, select: &'t SelectStmt, parent: Option<View>, env: Env, depth: u32) -> Rc<Derived<'t>> {
        let (mut stack, mut arms) = (vec![select], Vec::new());
        while let Some(node) = stack.pop() {
            if node.op == SetOperation::SETOP_NONE || node.with_clause().is_some() && !std::ptr::eq(node, select) {
                arms.push(self.query(Node::SelectStmt(node), parent, env, depth + 1));
                continue;
            }
            self.saw(node);
            let at = self.nowhere_in(parent, env, depth);
            self.tail(node, at);
            stack.extend(node.rarg());
            stack.extend(node.larg());
        }
        let arms = arms.into_iter().flat_map(|arm| if arm.arms.is_empty() { vec![arm] } else { arm.arms.clone() });
        Rc::new(Derived { open: true, arms: arms.collect(), outs: Vec::new() })
    }

    /// WITH: its queries in order, each visible to those after it, with RECURSIVE to all.
    pub(super) fn with(&mut self, with: Option<&'t WithClause>, parent: Option<View>, env: Env, depth: u32) -> Env {
        let Some(with) = with else { return env };
        let declare = |walk: &mut Self, name: Option<&'t str>, outer: Env| {
            walk.ctes.push(Cte { name: name.unwrap_or_default(), outer, derived: None });
            Some(walk.ctes.len() - 1)
        };
        let mut env = env;
        let mut recursive = Vec::new();
        if with.recursive {
            for cte in with.ctes() {
                env = declare(self, cte.ctename(), env);
                recursive.extend(env);
            }
        }
        for (position, cte) in with.ctes().iter().enumerate() {
            let derived = self.query(cte.ctequery(), parent, env, depth + 1);
            let derived = renamed(derived, cte.aliascolnames());
            // SEARCH and CYCLE add columns.
            let extended = cte.search_clause().is_some() || cte.cycle_clause().is_some();
            let derived = if extended { open() } else { derived };
            let entry = match recursive.get(position) {
                Some(entry) => *entry,
                None => {
                    env = declare(self, cte.ctename(), env);
                    self.ctes.len() - 1
                }
            };
            self.ctes[entry].derived = Some(derived);
        }
        env
    }

    pub(super) fn cte(&self, name: &str, mut env: Env) -> Option<Rc<Derived<'t>>> {
        while let Some(entry) = env
            && self.scopes.may_look(1)
        {
            let cte = &self.ctes[entry];
            if cte.name == name {
                return Some(cte.derived.clone().unwrap_or_else(open));
            }
            env = cte.outer;
        }
        None
    }

    /// The columns of a select list or RETURNING.
    pub(super) fn outputs(&mut self, targets: impl Iterator<Item = &'t ResTarget>, view: View) -> Vec<Out<'t>> {
        let mut outs = Vec::new();
        for target in targets {
            let node = target.val();
            let mut name = target.name();
            if let Node::ColumnRef(column) = node {
                let fields: Vec<Node<'t>> = column.fields().iter().collect();
                if let Some((Node::A_Star(_), before)) = fields.split_last() {
                    let names: Option<Vec<&str>> = before.iter().map(|field| field.as_str()).collect();
                    let items = match names.as_deref() {
                        Some([]) => Some(self.scopes.visible(view)),
                        Some([table]) => self.scopes.item(None, table, view).map(|item| vec![item]),
                        Some([schema, table]) => self.scopes.item(Some(schema), table, view).map(|item| vec![item]),
                        _ => None,
                    };
                    outs.push(Out::Star(items.unwrap_or_default()));
                    continue;
                }
                name = name.or_else(|| fields.last().and_then(|field| field.as_str()));
            }
            if is_star(node) {
                outs.push(Out::Star(Vec::new()));
                continue;
            }
            let value = self.value_of(node, view);
            outs.push(Out::Column { name, value, node });
        }
        outs
    }

    /// VALUES as a table: a column whose every row is a key is one of those keys.
    fn values(&mut self, rows: &'t NodeList, view: View) -> Derived<'t> {
        let mut columns: Option<Vec<Option<Sources>>> = None;
        for row in rows {
            let Node::NodeList(row) = row else { return Derived { open: true, ..Derived::default() } };
            if row.iter().any(is_star) {
                return Derived { open: true, ..Derived::default() };
            }
            let found: Vec<Option<Sources>> = row
                .iter()
                .map(|value| match self.value_of(value, view) {
                    OutValue::Keys(keys) => Some(keys),
                    _ => None,
                })
                .collect();
            columns = Some(match columns {
                None => found,
                Some(columns) => columns
                    .into_iter()
                    .zip(found)
                    .map(|(known, more)| {
                        let mut known = known?;
                        known.extend(more?);
                        Some(known)
                    })
                    .collect(),
            });
        }
        const NAMES: [&str; 8] =
            ["column1", "column2", "column3", "column4", "column5", "column6", "column7", "column8"];
        let outs = columns.unwrap_or_default().into_iter().enumerate().map(|(position, keys)| Out::Column {
            name: NAMES.get(position).copied(),
            value: keys.map_or(OutValue::Nothing, OutValue::Keys),
            node: Node::None,
        });
        Derived { outs: outs.collect(), ..Derived::default() }
    }

    /// SELECT INTO and CREATE TABLE AS: the table that is made.
    pub(super) fn create_from_query(&mut self, into: &'t IntoClause) {
        self.writes = true;
        if let Some(relation) = into.rel() {
            self.create(relation);
        }
    }
}

/// `t.*` or `(…).*`: as many columns as the row has, so that nothing behind it has a known place.
pub(super) fn is_star(node: Node<'_>) -> bool {
    let last = match node {
        Node::ColumnRef(column) => column.fields().iter().next_back(),
        Node::A_Indirection(of) => of.indirection().iter().next_back(),
        _ => None,
    };
    matches!(last, Some(Node::A_Star(_)))
}

/// A query of which no column is known.
pub(super) fn open<'t>() -> Rc<Derived<'t>> {
    Rc::new(Derived { open: true, ..Derived::default() })
}

/// The same columns under an alias's names.
pub(super) fn renamed<'t>(derived: Rc<Derived<'t>>, names: &'t NodeList) -> Rc<Derived<'t>> {
    if names.is_empty() || derived.open {
        return derived;
    }
    let mut renamed = (*derived).clone();
    for (position, new) in names.iter().enumerate() {
        match renamed.outs.get_mut(position) {
            Some(Out::Column { name, .. }) => *name = new.as_str(),
            _ => return open(),
        }
    }
    Rc::new(renamed)
}
