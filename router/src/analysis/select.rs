//! Queries: their FROM lists, conditions and columns.

use std::rc::Rc;

use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::{
    Alias, IntoClause, JoinExpr, JoinType, RangeFunction, RangeVar, ResTarget, SelectStmt, SetOperation, WithClause,
};
use pgward_config::TableKind;
use smallvec::SmallVec;

use super::functions::qualified;
use super::graph::Sources;
use super::scope::{Column, Derived, Has, Out, OutValue, View, What};
use super::walk::{At, Cte, Env, Mention, Walk};
use crate::refusal::{Refusal, RefusalKind};

impl<'t> Walk<'t> {
    /// A query or a change inside it, and the columns that it gives.
    pub(super) fn query(&mut self, node: Node<'t>, parent: Option<View>, env: Env, depth: u32) -> Rc<Derived<'t>> {
        if self.too_deep(depth) {
            return open();
        }
        match node {
            Node::SelectStmt(select) => self.select(select, parent, env, depth),
            Node::InsertStmt(insert) => self.insert(insert, parent, env, depth),
            Node::UpdateStmt(update) => self.update(update, parent, env, depth),
            Node::DeleteStmt(delete) => self.delete(delete, parent, env, depth),
            Node::MergeStmt(merge) => self.merge(merge, parent, env, depth),
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
        self.expressions(select.target_list().iter().map(ResTarget::val), at);
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
            let scope = self.scopes.open(parent);
            self.tail(node, At { view: self.scopes.view(scope), env, depth });
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

    fn cte(&self, name: &str, mut env: Env) -> Option<Rc<Derived<'t>>> {
        while let Some(entry) = env {
            let cte = &self.ctes[entry];
            if cte.name == name {
                return Some(cte.derived.clone().unwrap_or_else(open));
            }
            env = cte.outer;
        }
        None
    }

    /// An item of a FROM list, put into `scope`.
    pub(super) fn take_item(&mut self, node: Node<'t>, scope: usize, env: Env, depth: u32) {
        if self.too_deep(depth) {
            return;
        }
        let at = At { view: self.scopes.view(scope), env, depth };
        match node {
            Node::RangeVar(relation) => self.take_table(relation, scope, env),
            Node::JoinExpr(join) => self.join(join, scope, env, depth),
            Node::RangeSubselect(query) => {
                // Only LATERAL sees its neighbours to the left.
                let parent = if query.lateral { Some(at.view) } else { self.scopes.scopes[scope].parent };
                let derived = self.query(query.subquery(), parent, env, depth + 1);
                let derived = match query.alias() {
                    Some(alias) => renamed(derived, alias.colnames()),
                    None => derived,
                };
                self.scopes.push(scope, alias_name(query.alias()), None, What::Derived(derived));
            }
            Node::RangeFunction(function) => self.take_function(function, scope, at),
            Node::RangeTableSample(sample) => {
                self.writes |=
                    !matches!(qualified(sample.method()), Some((None | Some("pg_catalog"), "system" | "bernoulli")));
                self.expressions(sample.args(), at);
                self.expression(sample.repeatable(), at);
                self.take_item(sample.relation(), scope, env, depth + 1);
            }
            Node::RangeTableFunc(function) => {
                self.expression(node, at);
                self.scopes.push(scope, alias_name(function.alias()), None, What::Unknown);
            }
            Node::JsonTable(table) => {
                self.expression(node, at);
                self.scopes.push(scope, alias_name(table.alias()), None, What::Unknown);
            }
            _ => self.refuse(Refusal::new(RefusalKind::Unsupported, "this kind of FROM item is not known")),
        }
    }

    fn take_table(&mut self, relation: &'t RangeVar, scope: usize, env: Env) {
        let alias = relation.alias();
        let name = alias_name(alias).or(relation.relname());
        if relation.schemaname().is_none()
            && let Some(derived) = self.cte(relation.relname().unwrap_or_default(), env)
        {
            let derived = alias.map_or(derived.clone(), |alias| renamed(derived, alias.colnames()));
            self.scopes.push(scope, name, None, What::Derived(derived));
            return;
        }
        self.relation(relation, scope, false);
    }

    /// A table, put into `scope`; a patient table is a mention that must be tied to keys.
    pub(super) fn relation(&mut self, relation: &'t RangeVar, scope: usize, written: bool) -> usize {
        let alias = relation.alias();
        let name = alias_name(alias).or(relation.relname());
        let Some(table) = self.table(relation, written) else {
            let schema = alias.is_none().then(|| relation.schemaname().map(Into::into)).flatten();
            return self.scopes.push(scope, name, schema, What::Unknown);
        };
        // An alias with column names moves the names to other columns.
        let moved = alias.is_some_and(|alias| !alias.colnames().is_empty());
        let schema = alias.is_none().then(|| table.schema.clone());
        let what = if moved { What::Unknown } else { What::Table(table.clone()) };
        let item = self.scopes.push(scope, name, schema, what);
        if let (TableKind::Patient, Some(key)) = (table.kind, &table.key) {
            let need = match self.scopes.column(item, key) {
                Has::Yes(Some(var)) if !moved => var,
                _ => self.scopes.graph.add(item),
            };
            let needs = SmallVec::from_elem(need, 1);
            self.mentions.push(Mention { table: table.full.clone(), needs, sources: Sources::new() });
        }
        item
    }

    fn take_function(&mut self, function: &'t RangeFunction, scope: usize, at: At) {
        self.expression(Node::RangeFunction(function), at);
        let calls: Vec<Node<'t>> = function.functions().iter().collect();
        let call = match calls.as_slice() {
            [Node::NodeList(one)] => match one.get(0) {
                Some(Node::FuncCall(call)) => Some(call),
                _ => None,
            },
            _ => None,
        };
        let called = call.and_then(|call| qualified(call.funcname()));
        let name = alias_name(function.alias()).or(called.map(|(_, name)| name));
        let keys = match (called, call) {
            (Some((None | Some("pg_catalog"), "unnest")), Some(call)) if call.args().len() == 1 => {
                call.args().get(0).and_then(|argument| self.constants.keys(argument))
            }
            _ => None,
        };
        let what = match keys {
            Some(keys) if !function.ordinality => {
                let renamed = function.alias().and_then(|alias| alias.colnames().get(0)?.as_str());
                let value = OutValue::Keys(keys);
                let out = Out::Column { name: renamed.or(name), value, node: Node::None };
                What::Derived(Rc::new(Derived { outs: vec![out], ..Derived::default() }))
            }
            _ => What::Unknown,
        };
        self.scopes.push(scope, name, None, what);
    }

    fn join(&mut self, join: &'t JoinExpr, scope: usize, env: Env, depth: u32) {
        let start = self.scopes.view(scope).end;
        self.take_item(join.larg(), scope, env, depth + 1);
        let middle = self.scopes.view(scope).end;
        self.take_item(join.rarg(), scope, env, depth + 1);
        let end = self.scopes.view(scope).end;
        let (view, left, right) =
            (View { scope, start, end }, View { scope, start, end: middle }, View { scope, start: middle, end });
        // The side whose rows the condition can keep out of the result.
        let targets = match join.jointype {
            JoinType::JOIN_INNER => view,
            JoinType::JOIN_LEFT => right,
            JoinType::JOIN_RIGHT => left,
            _ => View { scope, start, end: start },
        };
        self.expression(join.quals(), At { view, env, depth });
        self.condition(join.quals(), view, targets);
        for column in join.using_clause() {
            let name = column.sval().unwrap_or_default();
            let sides = (self.side_column(name, left), self.side_column(name, right));
            if let (Some(l), Some(r)) = sides {
                for (from, to) in [(l.from, &r.into), (r.from, &l.into)] {
                    for to in to {
                        if let Some(from) = from
                            && self.scopes.within(*to, targets)
                        {
                            self.scopes.graph.edge(from, *to);
                        }
                    }
                }
            }
            let inner = join.jointype == JoinType::JOIN_INNER;
            self.scopes.scopes[scope].merged.push((name.to_owned(), inner));
        }
        if let Some(alias) = join.join_using_alias() {
            self.scopes.push(scope, alias.aliasname(), None, What::Unknown);
        }
        if let Some(alias) = join.alias() {
            for item in self.scopes.visible(view) {
                self.scopes.items[item].visible = false;
            }
            self.scopes.push(scope, alias.aliasname(), None, What::Unknown);
        }
    }

    /// The column that USING means on one side: that of the only item that has it.
    fn side_column(&mut self, name: &str, side: View) -> Option<Column> {
        let items = self.scopes.visible(side);
        if let [only] = items.as_slice() {
            return match self.scopes.column(*only, name) {
                Has::Yes(var) | Has::Maybe(var) => {
                    var.map(|var| Column { into: SmallVec::from_elem(var, 1), from: Some(var) })
                }
                Has::No => None,
            };
        }
        let mut found = SmallVec::<[_; 2]>::new();
        for item in items {
            match self.scopes.column(item, name) {
                Has::Yes(var) => found.push(var?),
                Has::Maybe(_) => return None,
                Has::No => {}
            }
        }
        let merged = self.scopes.scopes[side.scope].merged.iter().filter(|(merged, _)| merged == name);
        let inner = merged.clone().all(|(_, inner)| *inner);
        match found.len() {
            0 => None,
            1 => Some(Column { from: Some(found[0]), into: found }),
            _ if merged.count() > 0 => Some(Column { from: if inner { Some(found[0]) } else { None }, into: found }),
            _ => None,
        }
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

/// A query of which no column is known.
pub(super) fn open<'t>() -> Rc<Derived<'t>> {
    Rc::new(Derived { open: true, ..Derived::default() })
}

fn alias_name(alias: Option<&Alias>) -> Option<&str> {
    alias.and_then(Alias::aliasname)
}

/// The same columns under an alias's names.
fn renamed<'t>(derived: Rc<Derived<'t>>, names: &'t NodeList) -> Rc<Derived<'t>> {
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
