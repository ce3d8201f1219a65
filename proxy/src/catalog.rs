//! What the servers' catalogs say that routing must know: which functions only read, and the columns of the declared
//! tables.

mod cascades;
mod shadows;

use std::time::Duration;

use anyhow::Context;
use pgward_config::{KeyType, Node, ServerRole, Table};
use tokio_postgres::{Client, NoTls};

pub use cascades::LiveCascade;
pub(crate) use cascades::live_cascades;
pub use shadows::LiveShadow;
pub(crate) use shadows::live_shadows;

/// The part of one node's catalog that routing uses. Plain data: the router's own catalog is made from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveCatalog {
    /// Functions that are not PostgreSQL's own.
    pub functions: Vec<LiveFunction>,
    /// The declared tables that exist.
    pub tables: Vec<LiveTable>,
    /// What rows of patient tables hang on.
    pub cascades: Vec<LiveCascade>,
    /// What else has a declared table's name.
    pub shadows: Vec<LiveShadow>,
}

/// The functions of one name and one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveFunction {
    /// Their name.
    pub name: String,
    /// All of them are IMMUTABLE or STABLE.
    pub reads_only: bool,
    /// The extension that they are of; of functions in C that are of none, their library.
    pub source: Option<String>,
}

/// A table as it is on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its columns in order, each with the OID of its type (of the base type, for a domain).
    pub columns: Vec<(String, u32)>,
    /// Those that the server computes itself (GENERATED ALWAYS AS … STORED or VIRTUAL).
    pub generated: Vec<String>,
    /// Those that the server fills where a row does not list them: generated ones, and those with a default.
    pub filled: Vec<String>,
    /// Columns of texts that are compared or stored otherwise than byte for byte, each with the reason.
    pub unlike: Vec<(String, String)>,
}

impl LiveTable {
    /// Adds what is so of the same table on another shard.
    pub(crate) fn join(&mut self, other: &Self) {
        self.filled.extend_from_slice(&other.filled);
        self.unlike.extend_from_slice(&other.unlike);
        for (column, oid) in &self.columns {
            if other.column(column).is_some_and(|other| other != *oid) {
                self.unlike.push((column.clone(), "is of another type on another shard".to_owned()));
            }
        }
    }

    /// Why this column's values do not compare as patient keys of this type do.
    pub(crate) fn odd_key(&self, key: &str, key_type: KeyType) -> Option<String> {
        let (schema, name, oid) = (&self.schema, &self.name, self.column(key)?);
        if !fits(key_type, oid) {
            let (is, wanted) = (type_name(oid), key_type.as_str());
            return Some(format!("{schema}.{name}.{key} has the type {is}, but [sharding] key_type is {wanted}"));
        }
        let (_, why) = self.unlike.iter().find(|(column, _)| column == key)?;
        Some(format!("{schema}.{name}.{key} {why}"))
    }

    /// The type of the column with this name.
    pub fn column(&self, name: &str) -> Option<u32> {
        self.columns.iter().find(|(column, _)| column == name).map(|&(_, oid)| oid)
    }
}

/// Whether values of this type compare as patient keys of that type do.
const fn fits(key: KeyType, oid: u32) -> bool {
    match key {
        KeyType::Uuid => oid == 2950,
        // int2, int4 and int8 compare by their numbers among one another.
        KeyType::Bigint => matches!(oid, 20 | 21 | 23),
        KeyType::Text => matches!(oid, 25 | 1043),
    }
}

/// The name of a type, where it is PostgreSQL's own.
pub(crate) fn type_name(oid: u32) -> String {
    tokio_postgres::types::Type::from_oid(oid).map_or_else(|| format!("type {oid}"), |known| known.name().to_owned())
}

/// Reads the catalog of one node. May be cancelled at any time.
///
/// # Errors
/// The node cannot be reached in `patience`, does not let the role in, or a query fails.
pub async fn catalog(
    node: &Node,
    role: &ServerRole,
    tables: &[Table],
    patience: Duration,
) -> anyhow::Result<LiveCatalog> {
    let read = async {
        let client = connect(node, role, patience).await?;
        Ok(LiveCatalog {
            functions: functions(&client).await?,
            tables: live_tables(&client, tables).await?,
            cascades: live_cascades(&client, tables).await?,
            shadows: live_shadows(&client, tables).await?,
        })
    };
    tokio::time::timeout(patience, read)
        .await
        .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {patience:?}")))
        .with_context(|| format!("catalog of {}", node.id))
}

/// A connection of the control plane. Its socket is driven by a task of its own, which ends with the client.
pub(crate) async fn connect(node: &Node, role: &ServerRole, patience: Duration) -> anyhow::Result<Client> {
    let mut config = tokio_postgres::Config::new();
    config.host(&*node.host).port(node.port).dbname(&*node.dbname).user(&*role.name);
    config.application_name("pgward").connect_timeout(patience);
    if let Some(password) = &role.password {
        config.password(password.expose());
    }
    let (client, connection) = config.connect(NoTls).await.map_err(plain)?;
    tokio::spawn(async move {
        // Its end is the client's error, too.
        let _ = connection.await;
    });
    Ok(client)
}

/// tokio-postgres says `db error` and hides what the server said among the causes; people want that first.
pub(crate) fn plain(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(said) => anyhow::anyhow!("{} ({})", said.message(), said.code().code()),
        None => anyhow::Error::new(error),
    }
}

/// An aggregate is as volatile as the functions that it is made of, whatever its own entry says.
async fn functions(client: &Client) -> anyhow::Result<Vec<LiveFunction>> {
    const QUERY: &str = "
        SELECT p.proname::text,
               bool_and(p.provolatile <> 'v' AND p.prokind <> 'p' AND NOT EXISTS (
                   SELECT FROM pg_catalog.pg_aggregate a
                   JOIN pg_catalog.pg_proc f ON f.oid IN (
                       a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
                       a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
                   WHERE a.aggfnoid = p.oid AND f.provolatile = 'v')),
               coalesce(e.extname::text, CASE l.lanname WHEN 'c' THEN
                   pg_catalog.regexp_replace(p.probin, '^.*/|[.]so$', '', 'g') END) AS source
        FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        JOIN pg_catalog.pg_language l ON l.oid = p.prolang
        LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid
            AND d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
        LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
        WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') OR e.oid IS NOT NULL
        GROUP BY p.proname, source ORDER BY p.proname, source";
    let rows = client.query(QUERY, &[]).await.map_err(plain)?;
    let function =
        |row: &tokio_postgres::Row| LiveFunction { name: row.get(0), reads_only: row.get(1), source: row.get(2) };
    Ok(rows.iter().map(function).collect())
}

/// The declared tables that exist, in the order given.
pub(crate) async fn live_tables(client: &Client, tables: &[Table]) -> anyhow::Result<Vec<LiveTable>> {
    const QUERY: &str = "
        SELECT n.nspname::text, c.relname::text, a.attname::text,
               CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE a.atttypid END, a.attgenerated <> '',
               a.atthasdef OR t.typdefault IS NOT NULL,
               CASE
                   WHEN CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END <> -1
                       THEN 'has a length, which cuts blanks off'
                   WHEN NOT o.collisdeterministic
                       THEN pg_catalog.format('has the collation %I, for which unlike values may be equal', o.collname)
                   WHEN EXISTS (
                       SELECT FROM pg_catalog.pg_index i
                       CROSS JOIN LATERAL ROWS FROM (
                           pg_catalog.unnest(i.indkey::int2[]), pg_catalog.unnest(i.indcollation::oid[])) AS k(att, coll)
                       JOIN pg_catalog.pg_collation c ON c.oid = k.coll
                       WHERE i.indrelid = a.attrelid AND i.indisunique AND k.att = a.attnum
                           AND NOT c.collisdeterministic)
                       THEN 'has a unique index with a collation for which unlike values may be equal'
               END
        FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]))
            WITH ORDINALITY AS declared(schema, name, place)
        JOIN pg_catalog.pg_namespace n ON n.nspname = declared.schema
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = declared.name
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
        ORDER BY declared.place, a.attnum";
    let schemas: Vec<&str> = tables.iter().map(|table| &*table.schema).collect();
    let names: Vec<&str> = tables.iter().map(|table| &*table.name).collect();
    let rows = client.query(QUERY, &[&schemas, &names]).await.map_err(plain)?;
    let mut live: Vec<LiveTable> = Vec::new();
    for row in rows {
        let (schema, name): (String, String) = (row.get(0), row.get(1));
        let is_known = live.last().is_some_and(|table| table.schema == schema && table.name == name);
        if !is_known {
            live.push(LiveTable {
                schema,
                name,
                columns: Vec::new(),
                generated: Vec::new(),
                filled: Vec::new(),
                unlike: Vec::new(),
            });
        }
        if let Some(table) = live.last_mut() {
            table.columns.push((row.get(2), row.get(3)));
            if row.get(4) {
                table.generated.push(row.get(2));
            }
            if row.get(5) {
                table.filled.push(row.get(2));
            }
            table.unlike.extend(row.get::<_, Option<String>>(6).map(|why| (row.get(2), why)));
        }
    }
    Ok(live)
}
