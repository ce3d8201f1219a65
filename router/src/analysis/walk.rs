//! The walk over one statement's tree: what it names, what it calls, which columns are tied to which keys.
//!
//! Expressions are walked with a stack of our own, since their depth is the client's choice. Queries within queries are
//! followed by recursion, to a fixed depth; what is nested deeper is refused.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use pg_raw_parse::Node;
use pg_raw_parse::nodes::{Constraint, RangeVar};
use pgward_config::TableKind;
use smallvec::SmallVec;

use super::activity::shows_statements;
use super::children::children;
use super::conflict::conflict_of_anybody;
use super::constants::Constants;
use super::graph::{Graph, Sources, Var};
use super::params::Uses;
use super::scope::{Derived, Scopes, View};
use super::tables::{Named, TableInfo, Tables};
use crate::evidence::{KeySource, KeySources, Slot, Unknown};
use crate::refusal::{Refusal, RefusalKind};
use crate::statement::{Literal, SetConfig, TableUse};

/// Queries and joins within one another that are followed.
const MAX_DEPTH: u32 = 100;

/// The CTEs that a query sees: the innermost, which leads to the others.
pub(super) type Env = Option<usize>;

/// A CTE; its columns are open until it has been looked at.
pub(super) struct Cte<'t> {
    pub(super) name: &'t str,
    pub(super) outer: Env,
    pub(super) derived: Option<Rc<Derived<'t>>>,
}

/// A mention of a patient table and what must be tied to keys for it.
pub(super) struct Mention {
    pub(super) table: Arc<str>,
    /// Each of these must be pinned.
    pub(super) needs: SmallVec<[Var; 1]>,
    /// The region that new rows have beside a key that is one of the needs.
    pub(super) regions: SmallVec<[(Var, Slot); 1]>,
    /// Keys that the mention itself carries (the rows of an INSERT).
    pub(super) sources: Sources,
    /// The rows are found by ON CONFLICT, through whatever unique index it names.
    pub(super) by_conflict: bool,
}

impl Mention {
    /// A mention that is not tied to anything yet.
    pub(super) fn of(table: &TableInfo) -> Self {
        let table = table.full.clone();
        Self::named(table)
    }

    /// The same by the table's full name.
    pub(super) fn named(table: Arc<str>) -> Self {
        let (needs, regions) = (SmallVec::new(), SmallVec::new());
        Self { table, needs, regions, sources: Sources::new(), by_conflict: false }
    }
}

/// Where in the tree an expression stands.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) view: View,
    pub(super) env: Env,
    pub(super) depth: u32,
}

pub(super) struct Walk<'t> {
    pub(super) tables: &'t Tables,
    pub(super) constants: Constants<'t>,
    pub(super) scopes: Scopes<'t>,
    pub(super) ctes: Vec<Cte<'t>>,
    /// What the sub-selects of expressions give, by the address of their node.
    pub(super) sublinks: HashMap<usize, Rc<Derived<'t>>>,
    pub(super) mentions: Vec<Mention>,
    pub(super) uses: SmallVec<[TableUse; 4]>,
    /// Names of set_config calls, to be looked at when they are known.
    pub(super) set_config: SmallVec<[Slot; 1]>,
    /// What set_config changes for the session.
    pub(super) sets: SmallVec<[SetConfig; 1]>,
    /// Something in the tree may write, or is not known not to.
    pub(super) writes: bool,
    /// Something in the tree stays behind in the server.
    pub(super) pins: bool,
    /// Takes an advisory lock until the transaction's end.
    pub(super) locks: bool,
    /// What is walked is kept by the server and runs later, in statements that do not show it.
    pub(super) stored: bool,
    /// Nothing of it is done: EXPLAIN without ANALYZE.
    pub(super) explained: bool,
    /// It reads a view that shows statements of other clients.
    pub(super) shows_statements: bool,
    /// The parameters of the tree, found by the look at all of it.
    pub(super) params: Uses,
    /// Parameters that are the regions of new rows, each with the byte at which it stands.
    pub(super) region_params: HashSet<(u16, i32)>,
    /// Addresses of the tables, calls and queries that were looked at.
    seen: HashSet<usize, foldhash::quality::RandomState>,
    pub(super) refusal: Option<Refusal>,
}

impl<'t> Walk<'t> {
    pub(super) fn new(tables: &'t Tables, sql: &'t [u8], literals: &'t [Literal]) -> Self {
        let key_type = tables.key_type;
        Self {
            tables,
            constants: Constants { sql, literals, key_type },
            scopes: Scopes {
                graph: Graph::default(),
                scopes: Vec::new(),
                items: Vec::new(),
                key_type,
                looks: Cell::new(0),
            },
            ctes: Vec::new(),
            sublinks: HashMap::new(),
            mentions: Vec::new(),
            uses: SmallVec::new(),
            set_config: SmallVec::new(),
            sets: SmallVec::new(),
            writes: false,
            pins: false,
            locks: false,
            stored: false,
            explained: false,
            shows_statements: false,
            params: Uses::default(),
            region_params: HashSet::new(),
            seen: HashSet::default(),
            refusal: None,
        }
    }

    /// Refuses the statement; the first reason stands. A read stays one where the walk went on to the end all the same.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.writes |= !matches!(refusal.kind, RefusalKind::NoPatient | RefusalKind::UndeclaredTable);
        self.refusal.get_or_insert(refusal);
    }

    /// True, and the statement refused, where the tree is too deep to go on.
    pub(super) fn too_deep(&mut self, depth: u32) -> bool {
        let too_deep = depth > MAX_DEPTH;
        if too_deep {
            self.refuse(
                Refusal::new(RefusalKind::Unsupported, "the statement is nested too deeply to be analysed")
                    .hint(format!("Nest queries and joins at most {MAX_DEPTH} levels.")),
            );
        }
        too_deep
    }

    /// An empty scope, for expressions that see no FROM list of their own.
    pub(super) fn nowhere(&mut self, env: Env, depth: u32) -> At {
        self.nowhere_in(None, env, depth)
    }

    /// The same inside of another query.
    pub(super) fn nowhere_in(&mut self, parent: Option<View>, env: Env, depth: u32) -> At {
        let scope = self.scopes.open(parent);
        At { view: self.scopes.view(scope), env, depth }
    }

    /// Walks an expression or a definition: its functions, operators and types, and the queries inside it.
    pub(super) fn expression(&mut self, root: Node<'t>, at: At) {
        let mut stack = vec![root];
        while let Some(node) = stack.pop() {
            match node {
                Node::SelectStmt(_)
                | Node::InsertStmt(_)
                | Node::UpdateStmt(_)
                | Node::DeleteStmt(_)
                | Node::MergeStmt(_) => {
                    if !self.is_seen(node) {
                        self.query(node, Some(at.view), at.env, at.depth + 1);
                    }
                    continue;
                }
                Node::SubLink(link) => {
                    self.saw(link);
                    let derived = self.query(link.subselect(), Some(at.view), at.env, at.depth + 1);
                    self.sublinks.insert(std::ptr::from_ref(link) as usize, derived);
                    self.operator(link.oper_name());
                    stack.push(link.testexpr());
                    continue;
                }
                // Tables stand in FROM lists, which are not walked here. One that a definition names is changed by it.
                Node::RangeVar(relation) => {
                    if self.stored && !self.is_seen(node) {
                        self.changed(Some(relation));
                    } else if !self.is_seen(node) {
                        self.refuse(Refusal::new(RefusalKind::Unsupported, "a table stands where none is expected"));
                    }
                    continue;
                }
                // No row is read of a table that is only a pattern.
                Node::TableLikeClause(like) => {
                    like.relation().into_iter().for_each(|relation| self.saw(relation));
                    continue;
                }
                Node::Constraint(constraint) => self.constraint(constraint),
                Node::FuncCall(call) => self.call(call),
                Node::A_Expr(expression) => self.operator(expression.name()),
                Node::SortBy(sort) => self.operator(sort.use_op()),
                Node::TypeName(name) => self.type_name(name),
                _ => {}
            }
            if !children(node, &mut stack) {
                self.refuse(unknown_part());
            }
        }
    }

    /// Notes that a table, a call or a query was looked at.
    pub(super) fn saw<T>(&mut self, node: &'t T) {
        self.seen.insert(std::ptr::from_ref(node) as usize);
    }

    fn is_seen(&self, node: Node<'t>) -> bool {
        address(node).is_none_or(|address| self.seen.contains(&address))
    }

    /// Refuses a statement in which this analysis passed over a table, a call or a query; whatever its tree holds, none
    /// of them goes to a server unseen. Types and operators are judged here wherever they stand.
    pub(super) fn nothing_unseen(&mut self, root: Node<'t>) {
        let mut stack = vec![root];
        while let Some(node) = stack.pop() {
            match node {
                // Names of the FROM list; a body, which is either refused or taken as it is.
                Node::LockingClause(_) | Node::CreateFunctionStmt(_) => continue,
                Node::A_Expr(expression) => self.operator(expression.name()),
                Node::A_Indirection(of) => {
                    of.indirection().iter().filter_map(Node::as_str).for_each(|it| self.field(it))
                }
                Node::TypeName(name) => self.type_name(name),
                Node::ParamRef(param) => self.params.used(param),
                Node::TypeCast(cast) => self.params.cast(cast),
                _ => {}
            }
            if !self.is_seen(node) || !children(node, &mut stack) {
                return self.refuse(unknown_part());
            }
        }
    }

    /// A foreign key tells whether a row is there.
    fn constraint(&mut self, constraint: &'t Constraint) {
        if let Some(relation) = constraint.pktable() {
            self.table(relation, false);
        }
    }

    /// Walks several expressions.
    pub(super) fn expressions(&mut self, nodes: impl IntoIterator<Item = Node<'t>>, at: At) {
        for node in nodes {
            self.expression(node, at);
        }
    }

    /// Notes the use of a table.
    pub(super) fn note(&mut self, name: &Arc<str>, kind: TableKind, written: bool) {
        if !self.scopes.may_look(self.uses.len()) {
            return;
        }
        match self.uses.iter_mut().find(|known| known.name == *name) {
            Some(known) => known.written |= written,
            None => self.uses.push(TableUse { name: name.clone(), kind, written }),
        }
        self.writes |= written;
    }

    /// The table that a RangeVar names, noted as used. `None` for tables that are of no interest (the catalog, what is
    /// undeclared but local, the session's temporary tables) and where the statement is refused.
    pub(super) fn table(&mut self, relation: &'t RangeVar, written: bool) -> Option<Arc<TableInfo>> {
        self.saw(relation);
        self.named(relation.schemaname(), relation.relname().unwrap_or_default(), written)
    }

    /// The same, by name.
    pub(super) fn named(&mut self, schema: Option<&str>, name: &str, written: bool) -> Option<Arc<TableInfo>> {
        self.writes |= written;
        self.shows_statements |= shows_statements(name);
        match self.tables.find(schema, name) {
            Named::Table(table) => {
                self.note(&table.full, table.kind, written);
                if written && table.kind == TableKind::Reference {
                    self.refuse(
                        Refusal::new(
                            RefusalKind::Unplaceable,
                            format!("the statement writes to the reference table {}", table.full),
                        )
                        .hint("Reference tables are the same on every shard: change them on each shard directly."),
                    );
                }
                if let Some(why) = &table.odd_key {
                    let what = format!("the keys of {} do not compare as patient keys do", table.full);
                    self.refuse(
                        Refusal::new(RefusalKind::UndecodableKey, what)
                            .detail(format!("{why}."))
                            .hint("Ask the operator to change the column on all shards and to reload PgWard."),
                    );
                }
                return Some(table);
            }
            Named::Catalog if written => self.refuse(
                Refusal::new(RefusalKind::Unplaceable, "the statement writes to a table of the system catalog")
                    .hint("Do it on each shard directly."),
            ),
            Named::Catalog => {}
            Named::Statistics => self.refuse(
                Refusal::new(
                    RefusalKind::NoPatient,
                    format!("{name} holds values of patients' rows, of no patient in particular"),
                )
                .hint("Ask the shard's own server."),
            ),
            // A temporary table is where the session is.
            Named::Undeclared(_) if schema == Some("pg_temp") => {}
            Named::Undeclared(full) if self.tables.undeclared_are_local() => {
                self.note(&full, TableKind::Local, written);
            }
            Named::Undeclared(full) => self.undeclared(&full, schema.is_none().then_some(name)),
            Named::Several => self.refuse(
                Refusal::new(RefusalKind::UndeclaredTable, format!("\"{name}\" may be a table of several schemas"))
                    .hint("Write the schema before the table's name."),
            ),
            Named::Shadowed(other) => self.refuse(
                Refusal::new(
                    RefusalKind::UndeclaredTable,
                    format!("\"{name}\" may be {other}.{name}, which is not declared"),
                )
                .detail("A relation of a declared table's name is in a schema that sessions may look into.")
                .hint("Write the schema before the table's name, or declare the other too."),
            ),
        }
        None
    }

    /// Refuses a table that the configuration does not name; `bare`: how the statement calls it, if without schema.
    fn undeclared(&mut self, full: &str, bare: Option<&str>) {
        let mut hint = "Declare it under [[tables]] as a patient, reference or local table.".to_owned();
        if let Some(name) = bare {
            hint += &format!(" If it is a temporary table of this session, write pg_temp.{}.", identifier(name));
        }
        self.refuse(Refusal::new(RefusalKind::UndeclaredTable, format!("table {full} is not declared")).hint(hint));
    }

    /// The keys of all mentions, or the refusal of the first that is tied to none.
    pub(super) fn keys(&mut self) -> KeySources {
        let mut found: Vec<KeySource> = Vec::new();
        let mut untied = None;
        for mention in &self.mentions {
            found.extend_from_slice(&mention.sources);
            for need in &mention.needs {
                if !self.scopes.graph.collect(*need, &mut found) {
                    untied.get_or_insert_with(|| (mention.table.clone(), mention.by_conflict));
                }
            }
            for (var, region) in &mention.regions {
                let from = found.len();
                self.scopes.graph.collect(*var, &mut found);
                // Whether there will be a row at all is not known: the region is compared, and registers nobody.
                for source in &mut found[from..] {
                    *source = KeySource { region: Some(*region), unknown: Unknown::Refuse, ..*source };
                }
            }
        }
        if let Some((table, by_conflict)) = untied {
            let key = self.tables.key_of(&table).unwrap_or_default();
            self.refuse(if by_conflict { conflict_of_anybody(&table, &key) } else { rows_of_anybody(&table, &key) });
        }
        if self.explained {
            found.iter_mut().for_each(|source| source.unknown = source.unknown.min(Unknown::Place));
        }
        let mixed = self.params.mixed(&found, &self.constants);
        let mut sources: SmallVec<[KeySource; 1]> = SmallVec::new();
        let mut places: HashMap<(Slot, bool), usize> = HashMap::with_capacity(found.len());
        for source in found {
            // One value may stand for a key in many places; with two regions beside it, both are kept and found to
            // contradict each other.
            let place = *places.entry((source.key, source.array)).or_insert(sources.len());
            match sources.get_mut(place) {
                Some(known) if known.region.is_none() => {
                    known.region = source.region;
                    known.unknown = known.unknown.max(source.unknown);
                }
                Some(known) if source.region.is_none() || known.region == source.region => {
                    known.unknown = known.unknown.max(source.unknown);
                }
                _ => sources.push(source),
            }
        }
        let mixed_regions = self.params.mixed_regions(&self.region_params);
        KeySources { sources, mixed, mixed_regions, set_config: std::mem::take(&mut self.set_config), guarded: false }
    }
}

/// The address of a node that must be looked at.
fn address(node: Node<'_>) -> Option<usize> {
    fn of<T>(node: &T) -> Option<usize> {
        Some(std::ptr::from_ref(node) as usize)
    }
    match node {
        Node::RangeVar(node) => of(node),
        Node::FuncCall(node) => of(node),
        Node::SubLink(node) => of(node),
        Node::SelectStmt(node) => of(node),
        Node::InsertStmt(node) => of(node),
        Node::UpdateStmt(node) => of(node),
        Node::DeleteStmt(node) => of(node),
        Node::MergeStmt(node) => of(node),
        _ => None,
    }
}

fn rows_of_anybody(table: &str, key: &str) -> Refusal {
    Refusal::new(RefusalKind::NoPatient, format!("the statement does not say whose rows of {table} it touches"))
        .hint(format!("Add a condition that fixes {key}: {key} = …, IN (…) or = ANY(…)."))
}

fn unknown_part() -> Refusal {
    Refusal::new(RefusalKind::Unsupported, "the statement has a part that cannot be analysed")
}

/// A name as SQL has it.
fn identifier(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}
