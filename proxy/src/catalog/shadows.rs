//! Undeclared relations that have a declared table's name, and that a statement may mean when it names no schema.

use pgward_config::Table;
use tokio_postgres::Client;

use super::plain;

/// A relation of a declared table's name in a schema in which that is not declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveShadow {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Sessions may look into this schema without asking for it: by `"$user"` of any role, or by a search_path that is
    /// set for a role, a database or the server. Or they may ask for it: declared schemas and pg_catalog.
    pub in_path: bool,
}

/// All of them, but temporary ones.
pub(crate) async fn live_shadows(client: &Client, tables: &[Table]) -> anyhow::Result<Vec<LiveShadow>> {
    const QUERY: &str = r#"
        WITH declared AS (
            SELECT * FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS d(schema, name)
        ), paths AS (
            SELECT s.reset_val AS path FROM pg_catalog.pg_settings s WHERE s.name = 'search_path'
            UNION ALL
            SELECT pg_catalog.substr(c.setting, 13) FROM pg_catalog.pg_db_role_setting r,
                LATERAL pg_catalog.unnest(r.setconfig) AS c(setting)
            WHERE pg_catalog.starts_with(pg_catalog.lower(c.setting), 'search_path=')
        ), in_path AS (
            SELECT pg_catalog.btrim(part, '" ') AS schema
            FROM paths, LATERAL pg_catalog.regexp_split_to_table(path, ',') AS p(part)
            UNION SELECT schema FROM declared
            UNION SELECT rolname FROM pg_catalog.pg_roles
            UNION SELECT pg_catalog.unnest(ARRAY['public', 'pg_catalog'])
        )
        SELECT DISTINCT n.nspname::text, c.relname::text, n.nspname IN (SELECT i.schema FROM in_path i)
        FROM declared
        JOIN pg_catalog.pg_class c ON c.relname = declared.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname !~ '^pg_(toast|temp)'
          AND NOT EXISTS (SELECT FROM declared d WHERE d.schema = n.nspname AND d.name = c.relname)
        ORDER BY 1, 2"#;
    let schemas: Vec<&str> = tables.iter().map(|table| &*table.schema).collect();
    let names: Vec<&str> = tables.iter().map(|table| &*table.name).collect();
    let rows = client.query(QUERY, &[&schemas, &names]).await.map_err(plain)?;
    let shadow = |row: &tokio_postgres::Row| LiveShadow { schema: row.get(0), name: row.get(1), in_path: row.get(2) };
    Ok(rows.iter().map(shadow).collect())
}
