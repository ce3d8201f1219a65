//! FROM lists: tables, joins, sub-queries and functions.

use std::rc::Rc;

use pg_raw_parse::Node;
use pg_raw_parse::nodes::{Alias, JoinExpr, JoinType, RangeFunction, RangeVar};
use pgward_config::TableKind;
use smallvec::SmallVec;

use super::functions::qualified;
use super::scope::{Column, Derived, Has, Out, OutValue, View, What};
use super::select::renamed;
use super::walk::{At, Env, Mention, Walk};
use crate::refusal::{Refusal, RefusalKind};

impl<'t> Walk<'t> {
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
            self.saw(relation);
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
            self.mentions.push(Mention { needs: SmallVec::from_elem(need, 1), ..Mention::of(&table) });
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
}

fn alias_name(alias: Option<&Alias>) -> Option<&str> {
    alias.and_then(Alias::aliasname)
}
