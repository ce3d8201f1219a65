//! What is wrong with the nodes as they were seen.

use pgward_config::{Config, KeyType, NodeRole, Pool, PoolKind, Shard, Table, TableKind, Undeclared};

use super::{Facts, Sight};
use crate::catalog::{LiveCascade, LiveShadow, LiveTable, type_name};

/// The oldest PostgreSQL that is served: the system views and settings that PgWard reads are the same since.
const MIN_VERSION: i32 = 130_000;

/// The part of the configuration that nodes are held against.
pub(super) struct Declared<'a> {
    pub(super) shards: &'a [Shard],
    pub(super) tables: &'a [Table],
    pub(super) pools: &'a [Pool; 4],
    pub(super) key_type: KeyType,
    pub(super) undeclared: Undeclared,
    /// Rows of a COPY may go to several shards.
    pub(super) splits: bool,
    /// The pools of a primary that may have connections.
    pub(super) primary_pools: &'a [PoolKind],
}

impl<'a> Declared<'a> {
    pub(super) fn of(config: &'a Config) -> Self {
        Self {
            shards: &config.shards,
            tables: &config.tables,
            pools: &config.pools,
            key_type: config.sharding.key_type,
            undeclared: config.sharding.undeclared_tables,
            splits: config.sharding.copy_across_shards && config.shards.len() > 1,
            primary_pools: config.pools_of(NodeRole::Primary),
        }
    }
}

impl Declared<'_> {
    fn pools_of(&self, role: NodeRole) -> &[PoolKind] {
        match role {
            NodeRole::Primary => self.primary_pools,
            NodeRole::Replica => PoolKind::of(role),
        }
    }
}

/// Something that is not as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) weight: Weight,
    /// The node, or the nodes, that it is about.
    pub(super) node: String,
    pub(super) what: String,
    pub(super) hint: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Something would not work.
    Error,
    /// Something could not be checked, or may be meant so.
    Note,
}

impl Problem {
    pub(super) fn is_error(&self) -> bool {
        self.weight == Weight::Error
    }
}

/// All problems: node by node in the order of the configuration, then what shows only between nodes.
pub(super) fn judge(declared: &Declared<'_>, sights: &[Sight<'_>]) -> Vec<Problem> {
    let mut problems = Problems(Vec::new());
    for sight in sights {
        match &sight.seen {
            Ok(facts) => node(&mut problems, declared, sight, facts),
            Err(why) => problems.error(
                &sight.node.id,
                format!("cannot be looked at: {why}"),
                format!(
                    "check that {}:{} is reachable, that database \"{}\" exists, and the server role's password and \
                     pg_hba.conf entry",
                    sight.node.host, sight.node.port, sight.node.dbname
                ),
            ),
        }
    }
    identifiers(&mut problems, declared, sights);
    layouts(&mut problems, declared, sights);
    local_tables(&mut problems, declared, sights);
    problems.0
}

struct Problems(Vec<Problem>);

impl Problems {
    fn error(&mut self, node: impl ToString, what: impl Into<String>, hint: impl Into<String>) {
        self.push(Weight::Error, node, what, hint);
    }

    fn note(&mut self, node: impl ToString, what: impl Into<String>, hint: impl Into<String>) {
        self.push(Weight::Note, node, what, hint);
    }

    fn push(&mut self, weight: Weight, node: impl ToString, what: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Problem { weight, node: node.to_string(), what: what.into(), hint: hint.into() });
    }
}

fn node(problems: &mut Problems, declared: &Declared<'_>, sight: &Sight<'_>, facts: &Facts) {
    let id = &sight.node.id;
    match (sight.node.role, facts.in_recovery) {
        (NodeRole::Primary, true) => problems.error(
            id,
            "is declared as primary but is in recovery: writes would fail",
            "name the shard's present primary in the TOML, or promote this node",
        ),
        (NodeRole::Replica, false) => problems.error(
            id,
            "is declared as replica but is not in recovery: its data does not follow the primary",
            "rebuild it as a standby of the shard's primary, or remove it from `replicas`",
        ),
        _ => {}
    }
    if facts.version_num < MIN_VERSION {
        problems.error(
            id,
            format!("runs PostgreSQL {}", facts.version),
            "PgWard serves PostgreSQL 13 and later: upgrade the server",
        );
    }
    if let Err(why) = &facts.system {
        problems.note(
            id,
            format!("does not tell its system identifier: {why}"),
            "GRANT EXECUTE ON FUNCTION pg_control_system() to the server role, so that nodes of different clusters \
             cannot be mixed up unseen",
        );
    }
    for (role, why) in &facts.refused {
        problems.error(
            id,
            format!("does not let server role \"{role}\" in: {why}"),
            "create the role there, and check its password and pg_hba.conf entry",
        );
    }
    for role in &facts.escaping {
        problems.note(
            id,
            format!("has standard_conforming_strings off for server role \"{role}\""),
            "PgWard's sessions have it on all the same; so that whoever comes past PgWard reads statements alike, RESET it \
             for the role and the database, and remove it from postgresql.conf",
        );
    }
    connections(problems, declared, sight, facts);
    // Replicas have the tables of their primary; to say it twice would only hide what else is wrong.
    if sight.node.role == NodeRole::Primary {
        tables(problems, declared, sight, facts);
        cascades(problems, declared, sight, facts);
        for LiveShadow { schema, name, .. } in facts.shadows.iter().filter(|shadow| shadow.in_path) {
            problems.error(
                id,
                format!("has {schema}.{name}, which is not declared but is in a search_path: \"{name}\" may mean it"),
                "declare it too, or rename it: statements that write the name without a schema are refused",
            );
        }
        if declared.splits && facts.max_prepared == 0 {
            problems.note(
                id,
                "does not prepare transactions: a COPY with rows of several shards, this among them, is refused",
                "set max_prepared_transactions to at least the number of such COPYs at the same time, on the replicas \
                 first (a restart), or copy_across_shards = false in [sharding]",
            );
        }
    }
}

fn connections(problems: &mut Problems, declared: &Declared<'_>, sight: &Sight<'_>, facts: &Facts) {
    let kinds = declared.pools_of(sight.node.role);
    let wanted = wanted_connections(declared, sight.node.role);
    let offered = i64::from(facts.max_connections) - i64::from(facts.reserved);
    if wanted > offered {
        let list: Vec<String> =
            kinds.iter().map(|kind| format!("{kind} {}", declared.pools[kind.index()].max)).collect();
        problems.error(
            &sight.node.id,
            format!(
                "its pools may open {wanted} connections ({}), but the server offers {offered} (max_connections {}, \
                 {} reserved)",
                list.join(" + "),
                facts.max_connections,
                facts.reserved
            ),
            format!(
                "set max_connections to at least {} on the server, or lower `max` in [pools.*]",
                wanted + i64::from(facts.reserved)
            ),
        );
    }
}

/// Connections that the pools of a node of this role may open together.
pub(super) fn wanted_connections(declared: &Declared<'_>, role: NodeRole) -> i64 {
    declared.pools_of(role).iter().map(|kind| i64::from(declared.pools[kind.index()].max)).sum()
}

fn tables(problems: &mut Problems, declared: &Declared<'_>, sight: &Sight<'_>, facts: &Facts) {
    let id = &sight.node.id;
    for table in declared.tables.iter().filter(|table| table.kind != TableKind::Local) {
        let name = format!("{}.{}", table.schema, table.name);
        let Some(live) = find(&facts.tables, table) else {
            problems.error(
                id,
                format!("has no table {name}, declared as {} table", table.kind.as_str()),
                "create it, or remove it from [[tables]]",
            );
            continue;
        };
        if let Some(key) = &table.key {
            match live.column(key) {
                None => problems.error(
                    id,
                    format!("{name} has no column \"{key}\", declared as its patient key"),
                    "name the column that holds the patient key",
                ),
                Some(_) => {
                    if let Some(why) = live.odd_key(key, declared.key_type) {
                        problems.error(
                            id,
                            format!("{why}: statements on it are refused"),
                            "patient keys compare byte for byte: uuid, bigint, or text and varchar without a length and \
                             with a deterministic collation; change the column, or key_type",
                        );
                    }
                }
            }
        }
        if let Some(region) = &table.region {
            match live.column(region) {
                None => problems.error(
                    id,
                    format!("{name} has no column \"{region}\", declared as its region column"),
                    "name the column that holds the patient's region",
                ),
                Some(oid) if !holds_a_region(oid) => problems.error(
                    id,
                    format!("{name}.{region} has the type {}, declared as its region column", type_name(oid)),
                    "name the column that holds the patient's region: a text, or an enum of the regions",
                ),
                Some(_) => {}
            }
        }
        if let Some(region) = &table.region
            && live.filled.iter().any(|column| *column == **region)
        {
            problems.note(
                id,
                format!("{name}.{region} has a default or is generated: rows that do not list it are refused (PW013)"),
                "drop the default, so that each row's region is the one that the application sends",
            );
        }
        if let Some(columns) = &table.columns
            && !columns.iter().map(|column| &**column).eq(names(live))
        {
            problems.error(
                id,
                format!("{name} has the columns {}, not those declared", list(live)),
                "remove `columns` from [[tables]]: a live PgWard reads them from the servers",
            );
        }
    }
}

/// Statements on these tables are refused where they would change patients' rows. Reference tables are changed past
/// PgWard, and undeclared ones too, unless they are taken for local ones.
fn cascades(problems: &mut Problems, declared: &Declared<'_>, sight: &Sight<'_>, facts: &Facts) {
    let is_local = |name: &str| {
        let known = declared.tables.iter().find(|table| is_named(table, name));
        known.map_or(declared.undeclared == Undeclared::Local, |table| table.kind == TableKind::Local)
    };
    for LiveCascade { table, patients, on_delete, on_update } in &facts.cascades {
        if !is_local(table) {
            continue;
        }
        let what = match (on_delete, on_update) {
            (_, None) => "DELETE from it and UPDATE of it are refused".to_owned(),
            (true, Some(columns)) if columns.is_empty() => "DELETE from it is refused".to_owned(),
            (true, Some(columns)) => format!("DELETE from it and UPDATE of {} are refused", columns.join(", ")),
            (false, Some(columns)) => format!("UPDATE of {} is refused", columns.join(", ")),
        };
        problems.note(
            &sight.node.id,
            format!("rows of {patients} change with those of {table}, a local table: {what}"),
            "let the foreign key have NO ACTION or RESTRICT, or change such rows on each shard directly",
        );
    }
}

fn is_named(table: &Table, full: &str) -> bool {
    full.split_once('.').is_some_and(|(schema, name)| *table.schema == *schema && *table.name == *name)
}

/// Nodes of one shard are one cluster; nodes of different shards are not.
fn identifiers(problems: &mut Problems, declared: &Declared<'_>, sights: &[Sight<'_>]) {
    let known: Vec<(&Sight<'_>, &String)> =
        sights.iter().filter_map(|sight| Some((sight, sight.seen.as_ref().ok()?.system.as_ref().ok()?))).collect();
    let leader = |shard: usize| known.iter().find(|(sight, _)| sight.shard == shard);
    for (sight, system) in &known {
        let Some((first, leading)) = leader(sight.shard) else { continue };
        if system != leading {
            problems.error(
                &sight.node.id,
                format!("is of another cluster than {} (system identifiers {system} and {leading})", first.node.id),
                "the nodes of a shard must be copies of one cluster: check the URLs",
            );
        }
    }
    for shard in 0..declared.shards.len() {
        let Some((sight, system)) = leader(shard) else { continue };
        let same = (0..shard).filter_map(leader).find(|(_, other)| other == system);
        if let Some((other, _)) = same {
            problems.error(
                &sight.node.id,
                format!("is of the same cluster as {} of shard {}", other.node.id, declared.shards[other.shard].id),
                "each shard needs a cluster of its own: check the URLs",
            );
        }
    }
}

/// An INSERT or COPY without a column list means the same on every shard only if the columns are the same.
fn layouts(problems: &mut Problems, declared: &Declared<'_>, sights: &[Sight<'_>]) {
    for table in declared.tables.iter().filter(|table| table.kind != TableKind::Local) {
        let mut seen = primaries(sights).filter_map(|(sight, facts)| Some((sight, find(&facts.tables, table)?)));
        let Some((first, layout)) = seen.next() else { continue };
        for (sight, other) in seen {
            if other.columns != layout.columns {
                problems.error(
                    &sight.node.id,
                    format!(
                        "{}.{} has other columns ({}) than on {} ({})",
                        table.schema,
                        table.name,
                        list(other),
                        first.node.id,
                        list(layout)
                    ),
                    "the same columns, in the same order and with the same types, are needed on every shard",
                );
            }
        }
    }
}

fn local_tables(problems: &mut Problems, declared: &Declared<'_>, sights: &[Sight<'_>]) {
    for table in declared.tables.iter().filter(|table| table.kind == TableKind::Local) {
        let mut primaries = primaries(sights).peekable();
        if primaries.peek().is_some() && primaries.all(|(_, facts)| find(&facts.tables, table).is_none()) {
            problems.note(
                "every primary",
                format!("has no table {}.{}, declared as local table", table.schema, table.name),
                "create it on the home shards of the origins that use it",
            );
        }
    }
}

fn primaries<'a>(sights: &'a [Sight<'a>]) -> impl Iterator<Item = (&'a Sight<'a>, &'a Facts)> {
    sights
        .iter()
        .filter(|sight| sight.node.role == NodeRole::Primary)
        .filter_map(|sight| Some((sight, sight.seen.as_ref().ok()?)))
}

/// The live table of a declared one.
pub(super) fn find<'a>(live: &'a [LiveTable], table: &Table) -> Option<&'a LiveTable> {
    live.iter().find(|live| *live.schema == *table.schema && *live.name == *table.name)
}

fn names(table: &LiveTable) -> impl Iterator<Item = &str> {
    table.columns.iter().map(|(name, _)| &**name)
}

fn list(table: &LiveTable) -> String {
    let columns: Vec<String> = table.columns.iter().map(|(name, oid)| format!("{name} {}", type_name(*oid))).collect();
    columns.join(", ")
}

/// A string, or a type of the operator's own, such as an enum.
fn holds_a_region(oid: u32) -> bool {
    use tokio_postgres::types::Type;
    Type::from_oid(oid).is_none_or(|known| [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME].contains(&known))
}
