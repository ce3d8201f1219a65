//! One PostgreSQL server: a data folder, a port, and the processes that serve it.
//!
//! A server can be stopped as an administrator would, crashed as a machine would, and paused as a network would; the
//! tests of failures are made of these. It is stopped when it is dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::guardian::Guardian;
use super::installation::Installation;
use super::ports;

/// How long a server may take to start or to stop. Far more than it needs, for machines under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the servers of one folder have in common.
#[derive(Debug)]
pub struct Surroundings {
    /// Where the programs are and who runs them.
    pub installation: Installation,
    /// Ends the servers should we be killed.
    pub guardian: Guardian,
    /// Set when whoever asked for the servers no longer wants them: what is under way gives up.
    pub cancelled: Arc<AtomicBool>,
}

impl Surroundings {
    /// # Errors
    /// The start was cancelled.
    pub fn still_wanted(&self) -> Result<()> {
        ensure!(!self.cancelled.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Ends sessions, writes a checkpoint, lets replicas catch up.
    Fast,
    /// Ends everything at once; the next start recovers.
    Immediate,
}

/// A PostgreSQL server of ours.
#[derive(Debug)]
pub struct Postgres {
    name: String,
    dir: PathBuf,
    port: Mutex<u16>,
    process: Mutex<Option<Child>>,
    surroundings: Arc<Surroundings>,
}

impl Postgres {
    /// A server over this data folder, not started. Its name becomes its `cluster_name`, so that one can ask a session
    /// where it is; its log is beside the data folder.
    pub fn new(name: String, dir: PathBuf, port: u16, surroundings: Arc<Surroundings>) -> Self {
        Self { name, dir, port: Mutex::new(port), process: Mutex::new(None), surroundings }
    }

    /// E.g. `us-east-patients/primary`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        *self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file that the server logs to.
    pub fn log(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    /// Process id of the postmaster, while one runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Child::id)
    }

    /// Starts the server and waits until it accepts connections; a running one is left as it is.
    ///
    /// # Errors
    /// The server ends, or is not ready in time; the error carries the end of its log.
    pub fn start(&self) -> Result<()> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if process.is_some() {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        let (child, ready) = loop {
            let log_before = std::fs::metadata(self.log()).map_or(0, |log| log.len());
            let mut child = self.spawn()?;
            self.surroundings.guardian.watch(child.id());
            let ready = self.wait_until_ready(&mut child, log_before);
            if Instant::now() > deadline || !ready.as_ref().is_err_and(|error| error.is::<StillEnding>()) {
                break (child, ready);
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        *process = Some(child);
        drop(process);
        if ready.is_err() {
            self.crash();
        }
        ready
    }

    /// As [`Postgres::start`], taking another port when somebody else has taken ours meanwhile. Only for the first
    /// start: nobody may know the port yet.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_on_a_free_port(&self) -> Result<()> {
        for _ in 0..5 {
            match self.start() {
                Err(error) if error.downcast_ref::<PortTaken>().is_some() => {
                    *self.port.lock().unwrap_or_else(PoisonError::into_inner) = ports::free()?;
                }
                done => return done,
            }
        }
        self.start()
    }

    fn spawn(&self) -> Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        self.surroundings.installation.give(&self.log())?;
        let mut command = self.surroundings.installation.command("postgres");
        command
            .arg("-D")
            .arg(&self.dir)
            .args(["-p", &self.port().to_string()])
            .args(["-c", &format!("cluster_name={}", self.name)])
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null());
        // A group of its own: Ctrl-C on the terminal reaches us, and we stop the servers in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().with_context(|| format!("cannot start {}", self.name))
    }

    /// The eighth line of postmaster.pid says `ready` once connections are accepted; pg_ctl waits for the same.
    fn wait_until_ready(&self, child: &mut Child, log_before: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let pid = child.id().to_string();
        loop {
            self.surroundings.still_wanted()?;
            if let Some(status) = child.try_wait()? {
                let said = self.log_since(log_before);
                if said.contains("could not bind") {
                    return Err(PortTaken.into());
                }
                if said.contains("pre-existing shared memory block") {
                    return Err(StillEnding.into());
                }
                bail!("{} ended while starting ({status}); it said:\n{said}", self.name);
            }
            let file = std::fs::read_to_string(self.dir.join("postmaster.pid")).unwrap_or_default();
            let lines: Vec<&str> = file.lines().map(str::trim).collect();
            if lines.first() == Some(&pid.as_str()) && lines.get(7) == Some(&"ready") {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} is not ready after {PATIENCE:?}; it said:\n{}", self.name, self.log_since(log_before));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_since(&self, start: u64) -> String {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let since = log.get(usize::try_from(start).unwrap_or(0)..).unwrap_or_default();
        let text = String::from_utf8_lossy(since);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Stops the server and waits for its end; nothing happens when it does not run.
    pub fn stop(&self, how: Shutdown) {
        self.ask_to_stop(how);
        self.await_stop();
    }

    /// First half of [`Postgres::stop`]: many servers are stopped at once by asking all before waiting for any.
    pub fn ask_to_stop(&self, how: Shutdown) {
        self.resume();
        let signal = match how {
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
        };
        if let Some(pid) = self.pid() {
            send(pid, signal);
        }
    }

    /// Second half of [`Postgres::stop`].
    pub fn await_stop(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(child) = process.as_mut() else { return };
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                kill_all(child.id());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        *process = None;
    }

    /// SIGKILL for the server and all its processes, as when the machine loses its power; waits for the end.
    pub fn crash(&self) {
        if let Some(pid) = self.pid() {
            kill_all(pid);
        }
        self.await_stop();
    }

    /// SIGSTOP for the server and all its processes: it keeps its connections and answers nothing, as behind a
    /// network that drops every packet.
    pub fn pause(&self) {
        let Some(pid) = self.pid() else { return };
        // The postmaster first, so that no new child appears.
        send(pid, Signal::STOP);
        children(pid).into_iter().for_each(|child| send(child, Signal::STOP));
    }

    /// Ends a [`Postgres::pause`].
    pub fn resume(&self) {
        let Some(pid) = self.pid() else { return };
        children(pid).into_iter().for_each(|child| send(child, Signal::CONT));
        send(pid, Signal::CONT);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop(Shutdown::Immediate);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the port was taken")]
struct PortTaken;

/// Processes of a crashed server have been killed but not ended, which only their parent, who is gone, could wait for.
#[derive(Debug, thiserror::Error)]
#[error("processes of the server's last life have not ended")]
struct StillEnding;

fn kill_all(pid: u32) {
    // Stopped first: a postmaster that sees one child die would start another.
    send(pid, Signal::STOP);
    children(pid).into_iter().for_each(|child| send(child, Signal::KILL));
    send(pid, Signal::KILL);
}

/// To a process that is gone already the signal does no harm: its number is ours until we have waited for it.
fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
}

/// The processes whose parent is this one. Each child of a postmaster leads its own process group, so that no signal
/// to a group reaches them all.
fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return children_by_ps(parent) };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

/// The fourth field of /proc/PID/stat, counted after the command's name in brackets, which may hold anything.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn children_by_ps(parent: u32) -> Vec<u32> {
    let output = std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::parse::<u32>);
            let pid = fields.next()?.ok()?;
            (fields.next()?.ok()? == parent).then_some(pid)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn finds_the_children_of_a_process() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        assert!(!children(child.id()).contains(&std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
