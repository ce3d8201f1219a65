//! Shards of real PostgreSQL servers on this machine: for each shard a primary and its streaming replicas.
//!
//! `initdb` makes each shard's first data folder, so that every shard has a system identifier of its own as in a real
//! deployment; the replicas are copies of it from before its first start, which is a valid base backup and costs no
//! transfer. Or all folders are copies of a [`Template`], where somebody starts many clusters one after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::guardian::{Folder, Guardian};
use super::installation::Installation;
use super::ports;
use super::postgres::{Postgres, Shutdown, Surroundings};

/// The superuser of every server; PgWard never logs in as it.
pub const SUPERUSER: &str = "postgres";

/// The database with the patients on every server.
pub const DATABASE: &str = "healthcare";

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The shards, with the number of replicas of each.
    pub shards: Vec<(String, usize)>,
    /// `max_connections` of every server, at least 100: `initdb` noted that a replica needs so many.
    pub max_connections: u32,
    /// The n-th server of the m-th shard takes port `first_port + 10 * m + n` when it is free; other ports, and all
    /// without this, are drawn.
    pub first_port: Option<u16>,
    /// Password of [`SUPERUSER`].
    pub superuser_password: String,
    /// Data folders to copy from instead of running `initdb`.
    pub template: Option<Template>,
    /// What becomes of the folder when this process is killed.
    pub folder: Folder,
    /// Set from outside to give up a start that is under way.
    pub cancelled: Arc<AtomicBool>,
}

/// A stopped primary's data folder for each shard, in one folder: `<dir>/<shard>`.
#[derive(Clone, Debug)]
pub struct Template {
    /// The folder.
    pub dir: PathBuf,
}

/// One shard's servers.
#[derive(Debug)]
pub struct ShardServers {
    /// The shard.
    pub id: String,
    /// Takes writes.
    pub primary: Postgres,
    /// Stream from the primary.
    pub replicas: Vec<Postgres>,
}

impl ShardServers {
    /// The primary, then the replicas.
    pub fn nodes(&self) -> impl Iterator<Item = &Postgres> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }
}

/// Running shards. Dropping it stops every server, also those that are paused.
#[derive(Debug)]
pub struct Cluster {
    /// In the order of the [`Spec`].
    pub shards: Vec<ShardServers>,
    superuser_password: String,
    surroundings: Arc<Surroundings>,
}

impl Cluster {
    /// Makes the data folders in `dir/servers` (where there are none from an earlier start) and starts all servers. Blocks
    /// for a few seconds. Replicas accept connections when this returns; they may not have begun to stream: see
    /// [`Cluster::await_streaming`].
    ///
    /// # Errors
    /// Something does not start, or the start was cancelled; whatever had been started is stopped.
    pub fn start(dir: &Path, spec: &Spec) -> Result<Self> {
        let installation = Installation::find()?;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        let home = dir.canonicalize()?;
        installation.let_pass(&home)?;
        let dir = &home.join("servers");
        installation.folder(dir)?;
        let password_file = dir.join(".superuser");
        std::fs::write(&password_file, &spec.superuser_password)?;
        installation.give(&password_file)?;
        let guardian = Guardian::of(&home, spec.folder)?;
        let surroundings = Arc::new(Surroundings { installation, guardian, cancelled: Arc::clone(&spec.cancelled) });
        let shards: Vec<Result<ShardServers>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..spec.shards.len())
                .map(|n| {
                    let surroundings = &surroundings;
                    scope.spawn(move || start_shard(dir, spec, n, surroundings))
                })
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|shard| shard.unwrap_or_else(|_| Err(anyhow!("starting a shard panicked")))).collect()
        });
        std::fs::remove_file(&password_file)?;
        let shards = shards.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(Self { shards, superuser_password: spec.superuser_password.clone(), surroundings })
    }

    /// A superuser's connection string to this server of ours, for tokio-postgres and psql alike.
    pub fn superuser_url(&self, server: &Postgres, database: &str) -> String {
        format!("postgresql://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.superuser_password, server.port())
    }

    /// A superuser's session on this server.
    ///
    /// # Errors
    /// The server does not let us in.
    pub async fn superuser(&self, server: &Postgres, database: &str) -> Result<tokio_postgres::Client> {
        connect(&self.superuser_url(server, database)).await.with_context(|| format!("on {}", server.name()))
    }

    /// Waits until every replica streams from its primary.
    ///
    /// # Errors
    /// One does not within half a minute.
    pub async fn await_streaming(&self) -> Result<()> {
        for shard in self.shards.iter().filter(|shard| !shard.replicas.is_empty()) {
            let client = self.superuser(&shard.primary, "postgres").await?;
            let deadline = Instant::now() + Duration::from_secs(30);
            let wanted = i64::try_from(shard.replicas.len())?;
            loop {
                let row =
                    client.query_one("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", &[]).await?;
                let streaming: i64 = row.get(0);
                if streaming >= wanted {
                    break;
                }
                self.surroundings.still_wanted()?;
                ensure!(
                    Instant::now() < deadline,
                    "only {streaming} of {wanted} replicas of {} stream; see {}",
                    shard.id,
                    shard.replicas[0].log().display()
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Waits until every replica has replayed what its primary has written so far.
    ///
    /// # Errors
    /// One has not within half a minute.
    pub async fn await_replay(&self) -> Result<()> {
        for shard in &self.shards {
            let primary = self.superuser(&shard.primary, "postgres").await?;
            let row = primary.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?;
            let written: String = row.get(0);
            for replica in &shard.replicas {
                let client = self.superuser(replica, "postgres").await?;
                let replayed = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{written}'::pg_lsn, false)");
                let deadline = Instant::now() + Duration::from_secs(30);
                while !client.query_one(&replayed, &[]).await?.get::<_, bool>(0) {
                    self.surroundings.still_wanted()?;
                    ensure!(Instant::now() < deadline, "{} does not catch up", replica.name());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        Ok(())
    }

    /// Every server.
    pub fn nodes(&self) -> impl Iterator<Item = &Postgres> {
        self.shards.iter().flat_map(ShardServers::nodes)
    }

    /// The server that listens on this port.
    pub fn by_port(&self, port: u16) -> Option<&Postgres> {
        self.nodes().find(|node| node.port() == port)
    }

    /// Has this process ended too, should we be killed. Its command line must name `dir`.
    pub fn watch(&self, pid: u32) {
        self.surroundings.guardian.watch(pid);
    }

    /// Which PostgreSQL this is.
    pub fn installation(&self) -> &Installation {
        &self.surroundings.installation
    }

    /// Stops every server; replicas and primaries at once, since a primary waits for its replicas to have everything.
    pub fn stop(&self, how: Shutdown) {
        self.nodes().for_each(|node| node.ask_to_stop(how));
        self.nodes().for_each(Postgres::await_stop);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop(Shutdown::Immediate);
    }
}

impl Template {
    /// Makes a template for the shards of `spec` in `dir`: `initdb`, one start in which `prepare` fills the primaries, a
    /// clean stop. The folder stays until somebody removes it. Blocks for a few seconds.
    ///
    /// # Errors
    /// The servers do not start, or `prepare` fails.
    pub fn make(dir: &Path, spec: &Spec, prepare: impl FnOnce(&Cluster) -> Result<()>) -> Result<Self> {
        ensure!(spec.template.is_none(), "a template is not made from a template");
        let shards = spec.shards.iter().map(|(id, _)| (id.clone(), 0)).collect();
        let cluster = Cluster::start(dir, &Spec { shards, folder: Folder::Kept, ..spec.clone() })?;
        prepare(&cluster)?;
        cluster.stop(Shutdown::Fast);
        for shard in &cluster.shards {
            std::fs::rename(shard.primary.dir(), dir.join(format!("{}.data", shard.id)))?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    fn data_of(&self, shard: &str) -> PathBuf {
        self.dir.join(format!("{shard}.data"))
    }
}

/// A client session whose connection runs on a task of its own.
///
/// # Errors
/// The server is not reached or does not let us in.
pub async fn connect(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    // What goes wrong on the connection shows in the client's calls.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

fn start_shard(dir: &Path, spec: &Spec, n: usize, surroundings: &Arc<Surroundings>) -> Result<ShardServers> {
    let (id, replicas) = &spec.shards[n];
    let home = dir.join(id);
    surroundings.installation.folder(&home)?;
    let names = std::iter::once("primary".to_owned()).chain((1..=*replicas).map(|n| format!("replica-{n}")));
    let mut servers = Vec::new();
    for (place, name) in names.enumerate() {
        let wished = spec.first_port.and_then(|first| first.checked_add(u16::try_from(10 * n + place).ok()?));
        let port = wished.map_or_else(ports::free, ports::free_preferring)?;
        servers.push(Postgres::new(format!("{id}/{name}"), home.join(&name), port, Arc::clone(surroundings)));
    }
    let primary = servers.remove(0);
    if !primary.dir().exists() {
        make_primary(dir, spec, id, primary.dir(), &surroundings.installation)?;
        for replica in &servers {
            copy(primary.dir(), replica.dir(), &surroundings.installation)?;
        }
    }
    surroundings.still_wanted()?;
    primary.start_on_a_free_port()?;
    for replica in &servers {
        follow(replica, primary.port(), spec, &surroundings.installation)?;
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = servers.iter().map(|replica| scope.spawn(|| replica.start_on_a_free_port())).collect();
        let mut joined = threads.into_iter().map(|thread| thread.join());
        joined.try_for_each(|started| started.unwrap_or_else(|_| bail!("starting a replica panicked")))
    })?;
    Ok(ShardServers { id: id.clone(), primary, replicas: servers })
}

fn make_primary(dir: &Path, spec: &Spec, id: &str, data: &Path, installation: &Installation) -> Result<()> {
    match &spec.template {
        Some(template) => copy(&template.data_of(id), data, installation)?,
        None => initdb(dir, data, installation)?,
    }
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"))?;
    file.write_all(settings(spec.max_connections, installation.major()).as_bytes())?;
    Ok(())
}

fn initdb(dir: &Path, data: &Path, installation: &Installation) -> Result<()> {
    let attempt = |locale: &str| {
        let mut command = installation.command("initdb");
        command.arg("--pgdata").arg(data).arg("--pwfile").arg(dir.join(".superuser"));
        command.args(["--no-sync", "--encoding=UTF8", "--username", SUPERUSER]).arg(format!("--locale={locale}"));
        // Passwords over TCP; there are no Unix sockets (settings), whose paths would have to be short.
        command.args(["--auth-host=scram-sha-256", "--auth-local=reject"]);
        installation.run(&mut command).map(drop)
    };
    // C.UTF-8 sorts alike everywhere, but not every system has it.
    attempt("C.UTF-8").or_else(|_| attempt("C"))
}

/// For a server that may be lost at any time and shares a laptop with eleven others.
fn settings(max_connections: u32, major: u32) -> String {
    // From 18 on, three workers for each server would do what the backends can do themselves.
    let io = if major >= 18 { "io_method = sync\n" } else { "" };
    format!(
        "\n# Of the demo and the tests of PgWard.
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = {max_connections}
max_prepared_transactions = 32
shared_buffers = 32MB
max_wal_size = 256MB
max_parallel_workers_per_gather = 0
jit = off
{io}
# Nothing here has to survive a loss of power.
fsync = off
full_page_writes = off

wal_level = replica
wal_keep_size = 64MB
wal_retrieve_retry_interval = 250ms
wal_receiver_status_interval = 1s
hot_standby = on
hot_standby_feedback = on

log_line_prefix = '%m [%p] %q%u@%d '
timezone = 'UTC'
log_timezone = 'UTC'
"
    )
}

/// Makes a data folder that of a standby of the primary on this port.
fn follow(replica: &Postgres, primary_port: u16, spec: &Spec, installation: &Installation) -> Result<()> {
    let signal = replica.dir().join("standby.signal");
    std::fs::write(&signal, "")?;
    installation.give(&signal)?;
    let conf = replica.dir().join("postgresql.auto.conf");
    std::fs::write(
        &conf,
        format!(
            "primary_conninfo = 'host=127.0.0.1 port={primary_port} user={SUPERUSER} password={} \
             application_name={}'\n",
            spec.superuser_password,
            replica.name()
        ),
    )?;
    installation.give(&conf)
}

/// Copies a data folder, sharing blocks where the file system can.
fn copy(from: &Path, to: &Path, installation: &Installation) -> Result<()> {
    // The template may be in a folder that only we may enter, so this runs as ourselves and keeps the owners.
    let output = std::process::Command::new("cp").arg("-a").arg(from).arg(to).output()?;
    ensure!(
        output.status.success(),
        "cannot copy {} to {}: {}",
        from.display(),
        to.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    installation.give(to)
}
