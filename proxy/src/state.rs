//! Everything that a decision needs, as one immutable value behind one pointer; and what outlives it.
//!
//! A reload builds a new [`State`] aside and swaps it in. Sessions take it at their next transaction; what is under way
//! goes on with the one that it began with.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use pgward_audit::{AuditLog, NodeName};
use pgward_config::{Config, Directory, Shard};
use pgward_pools::Fleet;
use pgward_router::{Analyser, Cascade, Catalog, Router};

use crate::accepted::Accepted;
use crate::cancel::Limits;
use crate::catalog::LiveCatalog;
use crate::directory::{EmbeddedDirectory, PatientCache};
use crate::greeting::Greetings;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::session::Statements;
use crate::twophase::TwoPhase;

/// Patients kept in the cache in front of the directory.
const CACHED_PATIENTS: usize = 100_000;

/// What a decision needs.
pub(crate) struct State {
    /// Differs between any two states of the process.
    pub(crate) generation: u64,
    pub(crate) config: Arc<Config>,
    pub(crate) router: Arc<Router>,
    pub(crate) analyser: Analyser,
    pub(crate) patients: PatientCache,
    pub(crate) directory: Option<Arc<EmbeddedDirectory>>,
    pub(crate) fleet: Fleet,
    pub(crate) greetings: Greetings,
    pub(crate) accepted: Accepted,
    /// The nodes as audit records name them, by shard and node.
    pub(crate) names: Vec<Vec<NodeName>>,
}

impl State {
    /// The state for a configuration; nodes and directory that did not change are carried over from `previous`.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub(crate) fn new(config: Arc<Config>, catalog: &LiveCatalog, previous: Option<&Self>) -> anyhow::Result<Self> {
        let directory = match &config.directory {
            Directory::Hash => None,
            Directory::Embedded { path, key } => Some(open_directory(path, key.expose(), previous)?),
        };
        let router = Arc::new(Router::new(&config));
        let patients = PatientCache::new(
            Arc::clone(&router),
            directory.clone(),
            config.audit.key.expose().as_bytes(),
            CACHED_PATIENTS,
        );
        Ok(Self {
            generation: previous.map_or(0, |previous| previous.generation + 1),
            analyser: Analyser::new(&config, &merged(&config, catalog)),
            fleet: Fleet::new(&config, previous.map(|previous| &previous.fleet)),
            names: config.shards.iter().map(names).collect(),
            config,
            router,
            patients,
            greetings: Greetings::default(),
            accepted: Accepted::default(),
            directory,
        })
    }
}

fn names(shard: &Shard) -> Vec<NodeName> {
    shard.nodes().map(|node| NodeName::new(shard.id.as_str(), node.id.as_str())).collect()
}

fn open_directory(path: &Path, key: &str, previous: Option<&State>) -> anyhow::Result<Arc<EmbeddedDirectory>> {
    if let Some(directory) = previous.and_then(|previous| previous.directory.as_ref())
        && directory.is(path, key.as_bytes())
    {
        return Ok(Arc::clone(directory));
    }
    let directory = EmbeddedDirectory::open(path, key.as_bytes())
        .with_context(|| format!("the patient directory {} cannot be opened", path.display()))?;
    if directory.torn_bytes() > 0 {
        tracing::warn!(path = %path.display(), bytes = directory.torn_bytes(), "cut a torn record off the directory's end");
    }
    Ok(Arc::new(directory))
}

/// The built-in catalog with what the servers and the operator add.
pub(crate) fn merged(config: &Config, live: &LiveCatalog) -> Catalog {
    let mut catalog = Catalog::builtin();
    for function in &config.functions {
        catalog.add_function(&function.name, function.reads_only);
    }
    for function in &live.functions {
        catalog.add_function(&function.name, function.reads_only);
        if let Some(source) = &function.source {
            catalog.add_source(&function.name, source);
        }
    }
    for cascade in &live.cascades {
        let on_update = |columns: &Vec<String>| columns.iter().map(|column| Arc::from(column.as_str())).collect();
        let patients = Arc::from(cascade.patients.as_str());
        let on_update = cascade.on_update.as_ref().map(on_update);
        catalog.add_cascade(&cascade.table, Cascade { patients, on_delete: cascade.on_delete, on_update });
    }
    for shadow in &live.shadows {
        catalog.add_shadow(&shadow.schema, &shadow.name, shadow.in_path);
    }
    for table in &config.tables {
        if let Some(columns) = &table.columns {
            let columns = columns.iter().map(|name| (Arc::clone(name), 0)).collect();
            catalog.set_columns(&format!("{}.{}", table.schema, table.name), columns);
        }
    }
    for table in &live.tables {
        let full = format!("{}.{}", table.schema, table.name);
        let columns = table.columns.iter().map(|(name, oid)| (Arc::from(name.as_str()), *oid)).collect();
        catalog.set_columns(&full, columns);
        catalog.set_generated(&full, table.generated.iter().map(|name| Arc::from(name.as_str())));
        let declared = config.tables.iter().find(|of| *of.schema == *table.schema && *of.name == *table.name);
        let key = declared.and_then(|declared| declared.key.as_deref());
        if let Some(why) = key.and_then(|key| table.odd_key(key, config.sharding.key_type)) {
            tracing::error!("statements on {full} are refused: {why}");
            catalog.set_odd_key(&full, &why);
        }
        catalog.set_filled(&full, table.filled.iter().map(|name| Arc::from(name.as_str())));
    }
    catalog
}

/// What is one in the process, whatever the configuration.
pub(crate) struct Shared {
    pub(crate) state: ArcSwap<State>,
    pub(crate) audit: AuditLog,
    pub(crate) metrics: Metrics,
    pub(crate) registry: Registry,
    pub(crate) cancel_limits: Limits,
    pub(crate) statements: Statements,
    pub(crate) two_phase: Arc<TwoPhase>,
    /// Makes the verifiers of users who do not exist.
    pub(crate) mock_secret: [u8; 32],
}
