//! `demo.json`: everything about a running demo that a script may want to know. It holds passwords, and only its owner
//! may read it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::cluster::{Cluster, DATABASE};
use super::data;
use super::layout::{Layout, PLACES, SERVER_ROLE};
use super::load::Load;
use super::postgres::Postgres;
use super::toml::{Files, write_private};

/// Sample patients of each region.
pub(super) const SAMPLES: usize = 10;

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Ports of PgWard, by name.
    pub listeners: BTreeMap<String, ListenerEntry>,
    /// Health and metrics.
    pub http: String,
    /// Who may come in.
    pub users: Vec<UserEntry>,
    /// The servers.
    pub shards: Vec<ShardEntry>,
    /// Path of `pgward.toml`.
    pub config: PathBuf,
    /// Path of the audit log.
    pub audit: PathBuf,
    /// Path of the directory of patients.
    pub directory: PathBuf,
    /// Path of what PgWard says.
    pub log: PathBuf,
    /// Folder of PostgreSQL's programs.
    pub postgresql: PathBuf,
    /// Process ids.
    pub pids: Pids,
    /// Seed of the patients.
    pub seed: u64,
    /// Rows of all shards together.
    pub counts: BTreeMap<String, u64>,
    /// Ids of some patients of each region.
    pub patients: BTreeMap<String, Vec<String>>,
}

/// A port of PgWard.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListenerEntry {
    /// Connection string, with a user that suits the listener.
    pub url: String,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The region that its clients are taken to be in.
    pub origin: String,
    /// Class of its sessions, where it has one.
    pub class: Option<String>,
}

/// A user of PgWard.
#[derive(Debug, Serialize, Deserialize)]
pub struct UserEntry {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
    /// The highest class that the user may ask for.
    pub ceiling: String,
    /// `care` or `analytics`.
    pub workload: String,
}

/// A shard's servers.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShardEntry {
    /// The shard.
    pub id: String,
    /// Its region.
    pub region: String,
    /// The region of its patients.
    pub patient_region: String,
    /// Takes writes.
    pub primary: NodeEntry,
    /// Serve reads.
    pub replicas: Vec<NodeEntry>,
}

/// A server.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Its name, which `SHOW cluster_name` gives too.
    pub name: String,
    /// Connection string with the role that PgWard uses.
    pub url: String,
    /// Connection string of the superuser.
    pub superuser_url: String,
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Process id of the postmaster.
    pub pid: Option<u32>,
}

/// Process ids.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pids {
    /// `pgward serve`
    pub pgward: u32,
    /// `pgward demo`, which stops everything when it gets SIGTERM.
    pub demo: u32,
    /// The postmasters.
    pub postmasters: BTreeMap<String, u32>,
}

impl Manifest {
    /// Of a running demo.
    ///
    /// # Errors
    /// A secret cannot be read.
    pub fn of(files: &Files, layout: &Layout, cluster: &Cluster, load: &Load, pgward: u32) -> Result<Self> {
        let password = files.secret(SERVER_ROLE)?;
        let node = |server: &Postgres| NodeEntry {
            name: server.name().to_owned(),
            url: format!("postgresql://{SERVER_ROLE}:{password}@127.0.0.1:{}/{DATABASE}", server.port()),
            superuser_url: cluster.superuser_url(server, DATABASE),
            port: server.port(),
            pid: server.pid(),
        };
        let listeners = layout.listeners.iter().map(|listener| {
            let entry = ListenerEntry {
                url: layout.url(listener, listener.user),
                port: listener.port,
                origin: listener.origin.to_owned(),
                class: listener.class.map(str::to_owned),
            };
            (listener.name.to_owned(), entry)
        });
        let users = layout.users.iter().map(|user| UserEntry {
            name: user.name.to_owned(),
            password: user.password.clone(),
            ceiling: user.effective_ceiling().to_owned(),
            workload: user.workload.unwrap_or("care").to_owned(),
        });
        let shards = cluster.shards.iter().zip(PLACES).map(|(shard, place)| ShardEntry {
            id: shard.id.clone(),
            region: place.region.to_owned(),
            patient_region: place.patients.to_owned(),
            primary: node(&shard.primary),
            replicas: shard.replicas.iter().map(node).collect(),
        });
        let postmasters = cluster.nodes().filter_map(|server| Some((server.name().to_owned(), server.pid()?)));
        let samples = data::REGIONS.iter().enumerate().map(|(n, region)| {
            let ids = load.patients_of(n).take(SAMPLES).map(|patient| patient.id.to_string());
            ((*region).to_owned(), ids.collect())
        });
        Ok(Self {
            listeners: listeners.collect(),
            http: format!("http://127.0.0.1:{}", layout.http_port),
            users: users.collect(),
            shards: shards.collect(),
            config: files.config(),
            audit: files.audit(),
            directory: files.directory(),
            log: files.log(),
            postgresql: cluster.installation().bindir().to_owned(),
            pids: Pids { pgward, demo: std::process::id(), postmasters: postmasters.collect() },
            seed: load.seed,
            counts: load.counts(),
            patients: samples.collect(),
        })
    }

    /// Writes the file; it appears at once or not at all.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write(&self, files: &Files) -> Result<()> {
        let path = files.manifest();
        let new = path.with_extension("json.new");
        write_private(&new, &(serde_json::to_string_pretty(self)? + "\n"))?;
        Ok(std::fs::rename(new, path)?)
    }
}
