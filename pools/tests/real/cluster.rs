//! A PostgreSQL cluster in a temporary folder, just as much as these tests need.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "a password";

/// A running server; stopped and removed when dropped.
pub(crate) struct Cluster {
    folder: TempDir,
    frozen: AtomicBool,
    pub(crate) port: u16,
}

impl Cluster {
    /// A primary with the roles `app` (superuser) and `report`, both with SCRAM.
    pub(crate) fn primary() -> Self {
        let cluster = Self::empty();
        let passwords = cluster.folder.path().join("password");
        std::fs::write(&passwords, PASSWORD).unwrap();
        let login = ["-U", "app", "--auth=scram-sha-256", "--pwfile"];
        run(tool("initdb").args(["--no-sync", "-D"]).arg(cluster.data()).args(login).arg(passwords));
        cluster.start();
        cluster.psql(&format!("CREATE ROLE report LOGIN PASSWORD '{PASSWORD}'"));
        cluster
    }

    /// A streaming replica of it.
    pub(crate) fn replica(&self) -> Self {
        let replica = Self::empty();
        run(tool("pg_basebackup")
            .env("PGPASSWORD", PASSWORD)
            .args(["-R", "--no-sync", "-c", "fast", "-U", "app", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-D"])
            .arg(replica.data()));
        replica.start();
        replica
    }

    pub(crate) fn start(&self) {
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1 -c fsync=off -c shared_buffers=8MB -c max_connections=40",
            self.port,
            self.folder.path().display()
        );
        let log = self.folder.path().join("log");
        run(tool("pg_ctl").args(["start", "-w", "-D"]).arg(self.data()).arg("-l").arg(log).args(["-o", &options]));
    }

    /// Stops all its processes where they are: connections stay, and nothing answers.
    pub(crate) fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
        self.signal("-STOP");
    }

    /// Lets a frozen one go on.
    pub(crate) fn thaw(&self) {
        if self.frozen.swap(false, Ordering::Relaxed) {
            self.signal("-CONT");
        }
    }

    fn signal(&self, signal: &str) {
        let Ok(pids) = std::fs::read_to_string(self.data().join("postmaster.pid")) else { return };
        let postmaster = pids.lines().next().unwrap();
        let children = Command::new("ps").args(["-o", "pid=", "--ppid", postmaster]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        // A child may end meanwhile.
        let _ = Command::new("kill").args([signal, postmaster]).args(children.split_whitespace()).status();
    }

    /// Stops it as a power cut would.
    pub(crate) fn kill(&self) {
        self.thaw();
        let _ = tool("pg_ctl")
            .args(["stop", "-m", "immediate", "-D"])
            .arg(self.data())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }

    /// Runs SQL on the server itself; the value that it prints.
    pub(crate) fn psql(&self, sql: &str) -> String {
        let port = self.port.to_string();
        let mut psql = tool("psql");
        psql.env("PGPASSWORD", PASSWORD).args([
            "-XAtq",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "app",
            "-d",
            "postgres",
            "-c",
            sql,
        ]);
        run(&mut psql).trim().to_owned()
    }

    fn empty() -> Self {
        let folder = TempDir::new().unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(folder.path()));
        }
        Self { folder, frozen: AtomicBool::new(false), port: free_port() }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port where nobody listens.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The folder that `PGWARD_PG` names, itself or by a major version, or the newest that Debian's packages made.
fn bin() -> PathBuf {
    let versions = Path::new("/usr/lib/postgresql");
    let newest = || {
        let names = std::fs::read_dir(versions).unwrap().map(|version| version.unwrap().file_name());
        names.filter_map(|name| name.to_str()?.parse::<u32>().ok()).max().unwrap()
    };
    match std::env::var("PGWARD_PG").unwrap_or_default() {
        folder if folder.contains('/') => PathBuf::from(folder),
        version => versions.join(version.parse().unwrap_or_else(|_| newest()).to_string()).join("bin"),
    }
}

/// PostgreSQL refuses to run as root.
fn tool(name: &str) -> Command {
    let path = bin().join(name);
    if !is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(path).current_dir("/tmp");
    command
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

fn run(command: &mut Command) -> String {
    // The server that pg_ctl starts would inherit a pipe and keep it open.
    let is_start = command.get_args().any(|argument| argument == "start");
    let stdout = if is_start { Stdio::null() } else { Stdio::piped() };
    let output = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}
