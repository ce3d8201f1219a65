//! Reload: the new configuration is read and validated aside and applied in one swap; one that is refused changes
//! nothing and says why.

use std::sync::Arc;
use std::time::Duration;

use pgward_audit::EventKind;
use pgward_config::Config;
use tokio::runtime::Handle;

use crate::catalog::{self, LiveCatalog};
use crate::control::Reply;
use crate::descriptors;
use crate::serve::Proxy;
use crate::state::State;

mod refused;

pub(crate) use refused::lacking;
use refused::{Refused, moves};

/// A server that does not tell its catalog in this time is asked again later.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long until it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Whether whoever asks for a reload says that rows have followed their patients to other shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    Moved,
    Unmoved,
}

/// What the shards' catalogs say together.
pub(crate) struct Catalogs {
    pub(crate) found: LiveCatalog,
    /// Every shard has told its own.
    pub(crate) complete: bool,
}

impl Proxy {
    /// Reads the configuration anew and puts it in force.
    pub(crate) async fn reload(&self, rows: Rows) -> Reply {
        let mut served = self.reloading.lock().await;
        let outcome = self.try_reload(rows, &served).await;
        if outcome.is_ok() {
            *served = Arc::new(pgward_config::remembering(&served, &self.shared.state.load().config));
        }
        match outcome {
            Ok(text) => {
                self.shared.metrics.reloads.increment(1);
                self.record(EventKind::Reload, &text);
                tracing::info!("{text}");
                Reply::ok(text)
            }
            Err(Refused { text, reason }) => {
                self.shared.metrics.reloads_failed.increment(1);
                self.record(EventKind::ReloadRefused, &reason);
                Reply::error(format!("reload refused, nothing was changed\n{text}"))
            }
        }
    }

    async fn try_reload(&self, rows: Rows, served: &Config) -> Result<String, Refused> {
        let loaded = pgward_config::load(&self.config_path).map_err(|report| Refused::mistakes(&report))?;
        let warnings: Vec<String> = loaded.warnings_report().lines().collect();
        let old = self.shared.state.load_full();
        let config = Arc::new(loaded.config);
        let refused = |error: anyhow::Error| Refused::of(format!("{error:#}"));
        let moves = moves(&old, served, &config);
        if rows == Rows::Unmoved && !moves.is_empty() {
            return Err(Refused::moves(&moves));
        }
        let catalogs = live_catalog(&self.control, &config).await;
        if let Some(why) = lacking(&config, &catalogs.found).into_iter().find(|why| !why.is_known(&old.config)) {
            return Err(Refused::of(why.to_string()));
        }
        let state = State::new(Arc::clone(&config), &catalogs.found, Some(&old)).map_err(refused)?;
        let changes = pgward_config::diff(&old.config, &config);
        let bound = self.bind_new(&config.listeners).map_err(refused)?;
        state.fleet.start(&self.data, &self.control);
        // Nodes are used when a probe has found them up: those of a new shard are looked at before anybody asks for it.
        // One that does not answer in time is left to its probes.
        let _ = tokio::time::timeout(PATIENCE, state.fleet.settled()).await;
        self.shared.state.store(Arc::new(state));
        self.accept_from(bound, &config.listeners);
        let mut text = match changes.is_empty() {
            true => format!("reloaded {}: nothing has changed", self.config_path.display()),
            false => format!("reloaded {}\n  {}", self.config_path.display(), changes.join("\n  ")),
        };
        for places in moves {
            text.push_str(&format!("\n  looked for elsewhere, and said to have been moved: {places}"));
        }
        for key in pgward_config::needs_restart(&self.first_config, &config) {
            text.push_str(&format!("\n  needs a restart: {key}"));
        }
        for warning in warnings.into_iter().chain(descriptors::shortage(&config).map(|why| format!("warning: {why}"))) {
            text.push_str(&format!("\n  {warning}"));
        }
        Ok(text)
    }

    /// Asks for the shards' catalogs until every shard has told its own.
    pub(crate) async fn complete_catalog(&self) {
        loop {
            tokio::time::sleep(ASK_AGAIN).await;
            let _one_at_a_time = self.reloading.lock().await;
            let old = self.shared.state.load_full();
            let catalogs = live_catalog(&self.control, &old.config).await;
            if !catalogs.complete {
                continue;
            }
            match State::new(Arc::clone(&old.config), &catalogs.found, Some(&old)) {
                Ok(state) => {
                    state.fleet.start(&self.data, &self.control);
                    self.shared.state.store(Arc::new(state));
                    tracing::info!("every shard has told its catalog");
                }
                Err(error) => tracing::error!("the servers' catalogs cannot be put in force: {error:#}"),
            }
            return;
        }
    }
}

/// What the shards' catalogs say: of each shard the first node that answers, all shards at once. A function that may
/// write on one shard may write.
pub(crate) async fn live_catalog(control: &Handle, config: &Arc<Config>) -> Catalogs {
    let asked: Vec<_> = (0..config.shards.len())
        .map(|shard| {
            let config = Arc::clone(config);
            control.spawn(async move { of_shard(&config, shard).await })
        })
        .collect();
    let mut catalogs = Catalogs { found: LiveCatalog::default(), complete: true };
    for answer in asked {
        match answer.await.ok().flatten() {
            Some(of_shard) => {
                catalogs.found.functions.extend(of_shard.functions);
                catalogs.found.cascades.extend(of_shard.cascades);
                catalogs.found.shadows.extend(of_shard.shadows);
                for table in of_shard.tables {
                    let mut known = catalogs.found.tables.iter_mut();
                    match known.find(|known| known.schema == table.schema && known.name == table.name) {
                        Some(known) => known.join(&table),
                        None => catalogs.found.tables.push(table),
                    }
                }
            }
            None => catalogs.complete = false,
        }
    }
    catalogs
}

async fn of_shard(config: &Config, shard: usize) -> Option<LiveCatalog> {
    let role = config.server_roles.first()?;
    for node in config.shards[shard].nodes() {
        match catalog::catalog(node, role, &config.tables, PATIENCE).await {
            Ok(found) => return Some(found),
            Err(error) => tracing::warn!("{error:#}"),
        }
    }
    None
}
