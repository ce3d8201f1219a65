//! A running `pgward serve`, as a process of its own, so that it can be killed, and its CPU measured, like any other.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(60);

/// A PgWard process; killed when it is dropped.
#[derive(Debug)]
pub struct Instance {
    child: Child,
    log: PathBuf,
}

impl Instance {
    /// Runs `program serve --config config`. What it says goes to the end of `log`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(program: &Path, config: &Path, log: &Path) -> Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(config);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // A group of its own: Ctrl-C on the terminal reaches us, and we stop it in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until `/health/ready` says so on this port.
    ///
    /// # Errors
    /// The process ends, or is not ready in time; the error carries the end of its log.
    pub fn await_ready(&mut self, http_port: u16, cancelled: &AtomicBool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            ensure!(!cancelled.load(Ordering::Relaxed), "interrupted");
            if let Some(status) = self.ended() {
                bail!("pgward ended while starting ({status}); it said:\n{}", self.log_end());
            }
            let answer = match readiness(http_port) {
                Ok(page) if page.starts_with("HTTP/1.1 200") => return Ok(()),
                Ok(page) => page.lines().last().unwrap_or_default().to_owned(),
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                bail!("pgward is not ready after {PATIENCE:?} ({answer}); it said:\n{}", self.log_end());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, if it did.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The last lines of the log.
    pub fn log_end(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Sends a signal, e.g. SIGHUP to reload.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).context("pgward is gone")
    }

    /// SIGTERM, and SIGKILL to one that does not end in time. Returns how it ended.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn stop(&mut self) -> Result<std::process::ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn kill(&mut self) -> Result<std::process::ExitStatus> {
        // A process that has just ended by itself is fine too.
        let _ = self.child.kill();
        Ok(self.child.wait()?)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn readiness(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
