//! `pgward check --live`: does every node stand as the TOML says?
//!
//! All nodes are looked at side by side, each within its own deadline; what was seen is judged afterwards by
//! [`judge`], which needs no server.

mod judge;
mod page;

use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use pgward_config::{Config, Node, ServerRole, Table};
use tokio_postgres::Client;

use crate::catalog::{self, LiveCascade, LiveShadow, LiveTable};

/// What was seen of a node.
struct Sight<'a> {
    /// Index of its shard.
    shard: usize,
    node: &'a Node,
    /// Why nothing was seen, in one line.
    seen: Result<Facts, String>,
}

/// A node that answered.
#[derive(Clone, Debug)]
struct Facts {
    in_recovery: bool,
    /// As people write it, e.g. `15.9`.
    version: String,
    /// `server_version_num`
    version_num: i32,
    /// The cluster's system identifier, or why it is not to be had.
    system: Result<String, String>,
    max_connections: i32,
    /// Of those, kept back for superusers and `pg_use_reserved_connections`.
    reserved: i32,
    max_prepared: i32,
    /// Server roles whose strings have escapes, unless the session asks for others.
    escaping: Vec<String>,
    /// The declared tables that exist.
    tables: Vec<LiveTable>,
    /// What rows of patient tables hang on.
    cascades: Vec<LiveCascade>,
    /// What else has a declared table's name.
    shadows: Vec<LiveShadow>,
    /// Server roles that were not let in, each with what the server said.
    refused: Vec<(String, String)>,
}

/// Looks at every node, prints a table of them and every problem with its hint. True when there is no problem.
///
/// # Errors
/// The configuration names no server role to log in as. A node that cannot be reached is a problem, not an error.
pub async fn run(config: &Config, color: bool) -> anyhow::Result<bool> {
    let (role, others) = config.server_roles.split_first().context("no [[server_roles]] to log in as")?;
    let sights = join_all(config.shards.iter().enumerate().flat_map(|(shard, declared)| {
        declared.nodes().map(move |node| async move {
            let seen = look(config, node, role, others).await.map_err(|error| format!("{error:#}"));
            Sight { shard, node, seen }
        })
    }))
    .await;
    let problems = judge::judge(&judge::Declared::of(config), &sights);
    print!("{}", page::page(&sights, &problems, &config.tables, color));
    Ok(!problems.iter().any(judge::Problem::is_error))
}

async fn look(config: &Config, node: &Node, role: &ServerRole, others: &[ServerRole]) -> anyhow::Result<Facts> {
    let connecting = config.proxy.connect_timeout;
    let patience = connecting + config.health.timeout;
    within(patience, async {
        let client = catalog::connect(node, role, connecting).await?;
        let mut facts = facts(&client, &config.tables).await?;
        facts.escaping.extend(escaping(&client, role).await?);
        for other in others {
            match catalog::connect(node, other, connecting).await {
                Ok(client) => facts.escaping.extend(escaping(&client, other).await?),
                Err(error) => facts.refused.push((other.name.to_string(), format!("{error:#}"))),
            }
        }
        Ok(facts)
    })
    .await
}

/// The role, if strings have escapes in its sessions by default.
async fn escaping(client: &Client, role: &ServerRole) -> anyhow::Result<Option<String>> {
    const ESCAPES: &str = "SELECT pg_catalog.current_setting('standard_conforming_strings') <> 'on'";
    let row = client.query_one(ESCAPES, &[]).await.map_err(catalog::plain)?;
    Ok(row.get::<_, bool>(0).then(|| role.name.to_string()))
}

async fn within<T>(patience: Duration, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| anyhow::bail!("no answer within {patience:?}"))
}

async fn facts(client: &Client, tables: &[Table]) -> anyhow::Result<Facts> {
    // Reserved_connections exists from PostgreSQL 16 on.
    const SETTINGS: &str = "
        SELECT pg_catalog.pg_is_in_recovery(),
               pg_catalog.current_setting('server_version'),
               pg_catalog.current_setting('server_version_num')::int,
               pg_catalog.current_setting('max_connections')::int,
               pg_catalog.current_setting('superuser_reserved_connections')::int
                   + coalesce(pg_catalog.current_setting('reserved_connections', true)::int, 0),
               pg_catalog.current_setting('max_prepared_transactions')::int";
    const SYSTEM: &str = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()";
    let row = client.query_one(SETTINGS, &[]).await.map_err(catalog::plain)?;
    let system = client.query_one(SYSTEM, &[]).await.map(|row| row.get(0));
    let version: String = row.get(1);
    Ok(Facts {
        in_recovery: row.get(0),
        // Distributions append their own words.
        version: version.split_whitespace().next().unwrap_or_default().to_owned(),
        version_num: row.get(2),
        system: system.map_err(|error| format!("{:#}", catalog::plain(error))),
        max_connections: row.get(3),
        reserved: row.get(4),
        max_prepared: row.get(5),
        escaping: Vec::new(),
        tables: catalog::live_tables(client, tables).await?,
        cascades: catalog::live_cascades(client, tables).await?,
        shadows: catalog::live_shadows(client, tables).await?,
        refused: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
