//! Brings a whole demo up, step by step, and holds it; dropping it stops everything.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::cluster::{Cluster, Spec};
use super::guardian::Folder;
use super::instance::Instance;
use super::layout::{Layout, PLACES, SERVER_ROLE};
use super::load::{Load, Progress};
use super::manifest::Manifest;
use super::postgres::Shutdown;
use super::steps::Steps;
use super::toml::Files;
use super::{ports, schema};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The folder; it need not exist.
    pub dir: PathBuf,
    /// What becomes of it.
    pub folder: Folder,
    /// The general port; the emergency port and the strict port follow.
    pub port: u16,
    /// Replicas of each shard.
    pub replicas: usize,
    /// The patients.
    pub load: Load,
    /// The binary `pgward`.
    pub program: PathBuf,
}

/// A demo that is up.
#[derive(Debug)]
pub struct Running {
    // Dropped in this order: first nobody comes in any more, then the servers stop.
    instance: Instance,
    cluster: Cluster,
    /// Its files.
    pub files: Files,
    /// Its ports and users.
    pub layout: Layout,
    /// Its patients.
    pub load: Load,
}

/// The port of the first server, when it is free: in the reference configuration's numbers.
const FIRST_SERVER_PORT: u16 = 5501;

impl Running {
    /// Brings everything up. Gives up soon after `cancelled` is set.
    ///
    /// # Errors
    /// Something does not start. Whatever had been started is stopped.
    pub async fn start(wanted: &Wanted, cancelled: &Arc<AtomicBool>, steps: &mut Steps) -> Result<Self> {
        let layout = layout(wanted.port)?;
        let loaded = Loaded::of(wanted);
        let kept = loaded.check()?;
        let files = Files::of(&wanted.dir)?;
        // Of an earlier demo that was killed.
        let _ = std::fs::remove_file(files.manifest());

        let spec = spec(wanted, &layout, &files, cancelled)?;
        let count = PLACES.len() * (1 + wanted.replicas);
        steps.begin(format!("Starting {count} PostgreSQL servers"));
        let dir = wanted.dir.clone();
        let cluster = tokio::task::spawn_blocking(move || Cluster::start(&dir, &spec)).await??;
        cluster.await_streaming().await?;
        steps.done(&format!("PostgreSQL {}, replicas stream", cluster.installation().major()));

        if !kept {
            steps.begin("Making tables and roles");
            schema::create(&cluster, SERVER_ROLE, &files.secret(SERVER_ROLE)?).await?;
            cluster.await_replay().await?;
            steps.done(&format!("{} ICD-10 codes as reference", schema::icd10().count()));
        }

        steps.begin("Starting PgWard");
        files.write(&layout, &cluster)?;
        let mut instance = Instance::start(&wanted.program, &files.config(), &files.log())?;
        cluster.watch(instance.pid());
        let (http_port, wish) = (layout.http_port, Arc::clone(cancelled));
        let ready = tokio::task::spawn_blocking(move || instance.await_ready(http_port, &wish).map(|()| instance));
        let instance = ready.await??;
        steps.done(&format!("pid {}, port {}", instance.pid(), wanted.port));

        let running = Self { instance, cluster, files, layout, load: wanted.load };
        if kept {
            steps.begin("Patients");
            steps.done("those of the earlier start");
        } else {
            running.load(cancelled, steps).await?;
            running.cluster.await_replay().await?;
            loaded.note()?;
        }
        running.manifest()?.write(&running.files)?;
        Ok(running)
    }

    async fn load(&self, cancelled: &AtomicBool, steps: &mut Steps) -> Result<()> {
        let listener = self.layout.listener("general").context("the layout has no general listener")?;
        let url = self.layout.url(listener, listener.user);
        let rows: u64 = self.load.counts().values().sum();
        steps.begin(format!("Loading {} patients through PgWard", self.load.patients));
        let progress = Progress::default();
        let loading = self.load.run(&url, &progress);
        tokio::pin!(loading);
        loop {
            tokio::select! {
                done = &mut loading => break done?,
                () = tokio::time::sleep(Duration::from_millis(100)) => {
                    ensure!(!cancelled.load(Ordering::Relaxed), "interrupted");
                    steps.update(&format!("{} of {rows} rows", progress.rows()));
                }
            }
        }
        if self.cluster.shards.iter().all(|shard| !shard.replicas.is_empty()) {
            self.load.await_replicas(&url, self.cluster.shards.len()).await?;
        }
        ensure!(progress.rows() == rows, "only {} of {rows} rows were loaded", progress.rows());
        steps.done(&format!("{rows} rows by COPY and INSERT"));
        Ok(())
    }

    /// What `demo.json` says.
    ///
    /// # Errors
    /// A secret cannot be read.
    pub fn manifest(&self) -> Result<Manifest> {
        Manifest::of(&self.files, &self.layout, &self.cluster, &self.load, self.instance.pid())
    }

    /// The servers.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The PgWard process.
    pub fn instance(&mut self) -> &mut Instance {
        &mut self.instance
    }

    /// Stops PgWard, then the servers.
    ///
    /// # Errors
    /// PgWard cannot be stopped.
    pub fn stop(mut self, how: Shutdown) -> Result<()> {
        // Scripts that wait for the file must not find the one of a demo that is gone.
        let _ = std::fs::remove_file(self.files.manifest());
        self.instance.stop()?;
        self.cluster.stop(how);
        Ok(())
    }
}

fn spec(wanted: &Wanted, layout: &Layout, files: &Files, cancelled: &Arc<AtomicBool>) -> Result<Spec> {
    Ok(Spec {
        shards: PLACES.iter().map(|place| (place.shard.to_owned(), wanted.replicas)).collect(),
        max_connections: layout.max_connections,
        first_port: Some(FIRST_SERVER_PORT),
        superuser_password: files.secret("superuser")?,
        template: None,
        folder: wanted.folder,
        cancelled: Arc::clone(cancelled),
    })
}

fn layout(port: u16) -> Result<Layout> {
    ensure!((1..=u16::MAX - 3).contains(&port), "--port must be between 1 and {}", u16::MAX - 3);
    if let Some(taken) = (port..port + 3).find(|port| !ports::is_free(*port)) {
        bail!(
            "port {taken} is taken (`ss -ltnp 'sport = :{taken}'` shows by whom): choose another with --port; the demo \
             listens on three ports in a row, and on the next, where that is free, for health and metrics"
        );
    }
    let http_port = ports::free_preferring(port + 3)?;
    if http_port != port + 3 {
        eprintln!("  port {} is taken: health and metrics are on port {http_port}", port + 3);
    }
    Ok(Layout::demo(port, http_port))
}

/// Stands in the folder while it is being filled.
const BEGUN: &str = "being-filled";

/// What a start makes in its folder.
const OURS: [&str; 8] =
    [BEGUN, "servers", "secrets", "pgward.toml", "pgward.log", "pgward.sock", "audit.jsonl", "directory.db"];

/// What a kept folder holds: a note that is written when everything is in.
struct Loaded<'a> {
    dir: &'a Path,
    note: String,
}

impl<'a> Loaded<'a> {
    fn of(wanted: &'a Wanted) -> Self {
        let Load { seed, patients } = wanted.load;
        let note = format!("patients {patients}, seed {seed}, replicas {}\n", wanted.replicas);
        Self { dir: &wanted.dir, note }
    }

    /// Whether the folder holds just this, from an earlier start.
    fn check(&self) -> Result<bool> {
        let (path, dir) = (self.dir.join("loaded"), self.dir.display());
        if let Ok(note) = std::fs::read_to_string(&path) {
            ensure!(
                note == self.note,
                "{dir} holds a demo with {}; start it with the same figures, or choose another --dir",
                note.trim_end()
            );
            return Ok(true);
        }
        let begun = self.dir.join(BEGUN);
        if begun.exists() {
            // An earlier start did not come to its end.
            for entry in std::fs::read_dir(self.dir)?
                .flatten()
                .filter(|entry| OURS.contains(&&*entry.file_name().to_string_lossy()))
            {
                let path = entry.path();
                if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }?;
            }
        }
        let used = std::fs::read_dir(self.dir).is_ok_and(|mut entries| entries.next().is_some());
        ensure!(!used, "{dir} is not empty, and not a demo's: choose another --dir");
        std::fs::create_dir_all(self.dir)?;
        std::fs::write(begun, "")?;
        Ok(false)
    }

    fn note(&self) -> Result<()> {
        std::fs::write(self.dir.join("loaded"), &self.note)?;
        Ok(std::fs::remove_file(self.dir.join(BEGUN))?)
    }
}
