//! FROM lists, and which of their columns a name in the statement stands for.
//!
//! Names are resolved as PostgreSQL resolves them, from the innermost FROM list outwards. Where that needs columns that
//! are not known, the answer is "nobody knows", and the name is no evidence.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;
use pgward_config::{KeyType, TableKind};
use smallvec::SmallVec;

use super::graph::{Graph, Sources, Var};
use super::tables::TableInfo;

/// A part of a FROM list: the items `start..end` of a scope.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub(super) scope: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The FROM list of one query.
pub(super) struct Scope {
    pub(super) items: Vec<usize>,
    /// What an inner query may see of the outer ones.
    pub(super) parent: Option<View>,
    /// Columns merged by USING; true where by inner joins alone.
    pub(super) merged: Vec<(String, bool)>,
}

/// An item of a FROM list.
pub(super) struct Item<'t> {
    pub(super) scope: usize,
    /// Position in its scope.
    position: usize,
    name: Option<&'t str>,
    /// Schema of a table that has no alias.
    schema: Option<Arc<str>>,
    what: What<'t>,
    /// False under a join with an alias of its own.
    pub(super) visible: bool,
    vars: SmallVec<[(Box<str>, Option<Var>); 2]>,
}

/// What a FROM item is.
#[derive(Clone)]
pub(super) enum What<'t> {
    Table(Arc<TableInfo>),
    Derived(Rc<Derived<'t>>),
    /// A function, a catalog table, anything whose columns are not known.
    Unknown,
}

/// The columns that a sub-query gives.
#[derive(Clone, Default)]
pub(super) struct Derived<'t> {
    pub(super) outs: Vec<Out<'t>>,
    /// Nothing is known of the columns.
    pub(super) open: bool,
    /// The queries of a UNION, INTERSECT or EXCEPT.
    pub(super) arms: Vec<Rc<Derived<'t>>>,
}

/// An entry of a select list.
#[derive(Clone)]
pub(super) enum Out<'t> {
    Column {
        /// `None`: a name that PostgreSQL makes up.
        name: Option<&'t str>,
        value: OutValue,
        node: Node<'t>,
    },
    /// `*` of these items; of a row of unknown columns where there are none.
    Star(Vec<usize>),
}

/// What is known of an output column.
#[derive(Clone)]
pub(super) enum OutValue {
    Var(Var),
    Keys(Sources),
    Nothing,
}

/// Whether an item has a column, and its variable where it may carry a key.
pub(super) enum Has {
    Yes(Option<Var>),
    No,
    Maybe(Option<Var>),
}

/// The column that a name stands for. USING may merge several.
#[derive(Default)]
pub(super) struct Column {
    /// What is compared with a key is pinned in all of these.
    pub(super) into: SmallVec<[Var; 2]>,
    /// What is compared with the column may follow this one.
    pub(super) from: Option<Var>,
}

impl Column {
    fn one(var: Var) -> Self {
        Self { into: SmallVec::from_elem(var, 1), from: Some(var) }
    }
}

/// How many looks at items a statement may take: each name is looked for among all that it can see, so that a text of
/// a megabyte could ask for billions.
const MAX_LOOKS: usize = 4_000_000;

/// All FROM lists of a statement.
pub(super) struct Scopes<'t> {
    pub(super) graph: Graph,
    pub(super) scopes: Vec<Scope>,
    pub(super) items: Vec<Item<'t>>,
    pub(super) key_type: KeyType,
    /// Looks at items so far.
    pub(super) looks: Cell<usize>,
}

impl<'t> Scopes<'t> {
    /// Whether this many looks more are within the bound. Once it is passed, nothing found counts: the statement is
    /// refused.
    pub(super) fn may_look(&self, at: usize) -> bool {
        self.looks.set(self.looks.get().saturating_add(at));
        !self.too_many_looks()
    }

    pub(super) fn too_many_looks(&self) -> bool {
        self.looks.get() > MAX_LOOKS
    }

    pub(super) fn open(&mut self, parent: Option<View>) -> usize {
        self.scopes.push(Scope { items: Vec::new(), parent, merged: Vec::new() });
        self.scopes.len() - 1
    }

    /// All that stands in the scope so far.
    pub(super) fn view(&self, scope: usize) -> View {
        View { scope, start: 0, end: self.scopes[scope].items.len() }
    }

    pub(super) fn push(
        &mut self,
        scope: usize,
        name: Option<&'t str>,
        schema: Option<Arc<str>>,
        what: What<'t>,
    ) -> usize {
        let item = self.items.len();
        let position = self.scopes[scope].items.len();
        self.items.push(Item { scope, position, name, schema, what, visible: true, vars: SmallVec::new() });
        self.scopes[scope].items.push(item);
        item
    }

    /// Whether a variable belongs to an item of this view.
    pub(super) fn within(&self, var: Var, view: View) -> bool {
        let item = &self.items[self.graph.item(var)];
        item.scope == view.scope && (view.start..view.end).contains(&item.position)
    }

    /// The items of a view that names can reach.
    pub(super) fn visible(&self, view: View) -> Vec<usize> {
        if !self.may_look(view.end - view.start) {
            return Vec::new();
        }
        let items = &self.scopes[view.scope].items[view.start..view.end];
        items.iter().copied().filter(|item| self.items[*item].visible).collect()
    }

    /// The variable of a column of a patient table, made on first use.
    pub(super) fn column(&mut self, item: usize, column: &str) -> Has {
        match self.items[item].what.clone() {
            What::Table(table) => {
                // Equality of uuids is plain; of texts and numbers it is not the same for all types that a column of
                // another table may have (citext, char(n), float8), so only keys take part there.
                let carries = self.key_type == KeyType::Uuid
                    || table.kind == TableKind::Patient && table.key.as_deref() == Some(column);
                let declared = table.key.as_deref() == Some(column) || table.region.as_deref() == Some(column);
                match &table.columns {
                    Some(columns) if !declared && columns.iter().all(|known| **known != *column) => Has::No,
                    Some(_) => Has::Yes(carries.then(|| self.var(item, column))),
                    None if declared => Has::Yes(carries.then(|| self.var(item, column))),
                    None => Has::Maybe(carries.then(|| self.var(item, column))),
                }
            }
            What::Unknown => Has::Maybe((self.key_type == KeyType::Uuid).then(|| self.var(item, column))),
            What::Derived(derived) => self.derived_column(item, &derived, column),
        }
    }

    fn known_var(&self, item: usize, column: &str) -> Option<Option<Var>> {
        let vars = &self.items[item].vars;
        if !self.may_look(vars.len()) {
            return None;
        }
        vars.iter().find(|(name, _)| **name == *column).map(|(_, var)| *var)
    }

    fn var(&mut self, item: usize, column: &str) -> Var {
        if let Some(Some(var)) = self.known_var(item, column) {
            return var;
        }
        let var = self.graph.add(item);
        self.items[item].vars.push((column.into(), Some(var)));
        var
    }

    /// A column of a sub-query follows the column inside, never the other way: a condition outside does not reach in.
    fn derived_column(&mut self, item: usize, derived: &Derived<'t>, column: &str) -> Has {
        if derived.open || !self.may_look(derived.outs.len()) {
            return Has::Maybe(None);
        }
        let mut named = derived.outs.iter().filter_map(|out| match out {
            Out::Column { name: Some(name), value, .. } if *name == column => Some(value),
            _ => None,
        });
        let first = named.next();
        let several = named.next().is_some();
        if let Some(value) = first {
            if let Some(known) = self.known_var(item, column) {
                return Has::Yes(known);
            }
            let var = match value {
                OutValue::Var(inner) if !several => {
                    let var = self.graph.add(item);
                    self.graph.edge(*inner, var);
                    Some(var)
                }
                OutValue::Keys(keys) if !several => {
                    let var = self.graph.add(item);
                    self.graph.pin(var, keys);
                    Some(var)
                }
                _ => None,
            };
            self.items[item].vars.push((column.into(), var));
            return Has::Yes(var);
        }
        let stars: Vec<usize> = derived
            .outs
            .iter()
            .flat_map(|out| match out {
                Out::Star(items) => items.as_slice(),
                Out::Column { .. } => &[],
            })
            .copied()
            .collect();
        let (mut yes, mut maybe) = (Vec::new(), Vec::new());
        for inner in stars {
            match self.column(inner, column) {
                Has::Yes(var) => yes.push(var),
                Has::Maybe(var) => maybe.push(var),
                Has::No => {}
            }
        }
        let mut follow = |inner: Option<Var>| {
            let inner = inner?;
            if let Some(known) = self.known_var(item, column) {
                return known;
            }
            let var = self.graph.add(item);
            self.graph.edge(inner, var);
            self.items[item].vars.push((column.into(), Some(var)));
            Some(var)
        };
        let unnamed = derived.outs.iter().any(|out| match out {
            Out::Column { name, .. } => name.is_none(),
            Out::Star(items) => items.is_empty(),
        });
        match (yes.as_slice(), maybe.as_slice()) {
            ([one], _) => Has::Yes(follow(*one)),
            ([_, ..], _) => Has::Yes(None),
            ([], [one]) if !unnamed => Has::Maybe(follow(*one)),
            ([], [_, ..]) => Has::Maybe(None),
            ([], []) if unnamed => Has::Maybe(None),
            ([], []) => Has::No,
        }
    }

    /// The column that `fields` (of a ColumnRef) name, seen from `view`.
    pub(super) fn resolve(&mut self, fields: &'t NodeList, view: View) -> Option<Column> {
        let mut names = SmallVec::<[&'t str; 3]>::new();
        for field in fields {
            names.push(field.as_str()?);
        }
        match names.as_slice() {
            [column] => self.bare(column, view),
            [table, column] => self.qualified(None, table, column, view),
            [schema, table, column] => self.qualified(Some(schema), table, column, view),
            _ => None,
        }
    }

    fn bare(&mut self, column: &str, view: View) -> Option<Column> {
        let mut next = Some(view);
        while let Some(view) = next {
            next = self.scopes[view.scope].parent;
            let (mut yes, mut maybe) = (SmallVec::<[Option<Var>; 4]>::new(), SmallVec::<[Option<Var>; 4]>::new());
            for item in self.visible(view) {
                match self.column(item, column) {
                    Has::Yes(var) => yes.push(var),
                    Has::Maybe(var) => maybe.push(var),
                    Has::No => {}
                }
            }
            match (yes.as_slice(), maybe.as_slice()) {
                // PostgreSQL refuses a name that two items have, so a "maybe" beside a "yes" is none.
                ([one], _) => return (*one).map(Column::one),
                ([_, ..], _) => {
                    let merges = &self.scopes[view.scope].merged;
                    let mut merges = merges.iter().filter(|(name, _)| name == column).map(|(_, inner)| *inner);
                    let first = merges.next()?;
                    let inner = first && merges.all(|inner| inner);
                    let into: SmallVec<[Var; 2]> = yes.iter().flatten().copied().collect();
                    let from = if inner { into.first().copied() } else { None };
                    return Some(Column { into, from });
                }
                ([], [one]) if next.is_none() => return (*one).map(Column::one),
                ([], [_, ..]) => return None,
                ([], []) => {}
            }
        }
        None
    }

    /// The item that a name reaches from `view`.
    pub(super) fn item(&self, schema: Option<&str>, name: &str, view: View) -> Option<usize> {
        let mut next = Some(view);
        while let Some(view) = next {
            next = self.scopes[view.scope].parent;
            let found = self.visible(view).into_iter().find(|item| {
                let item = &self.items[*item];
                item.name == Some(name) && (schema.is_none() || item.schema.as_deref() == schema)
            });
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn qualified(&mut self, schema: Option<&str>, table: &str, column: &str, view: View) -> Option<Column> {
        let item = self.item(schema, table, view)?;
        match self.column(item, column) {
            Has::Yes(var) | Has::Maybe(var) => var.map(Column::one),
            Has::No => None,
        }
    }
}
