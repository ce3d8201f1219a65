//! Ends the servers of a process that is gone.
//!
//! Destructors stop servers when a demo ends or a test panics, but not when the process is killed with SIGKILL, and
//! not for the cluster that the tests of one binary share in a `static`. So a small shell process holds the reading end
//! of a pipe whose writing end only we hold: when we are gone, in whatever way, it reads the end of its input, ends
//! each process that it was told of, and removes the folder if it was told to. (Linux' parent-death signal would not
//! do: it is sent when the *thread* that started the child ends.)

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// What becomes of the folder when its owner is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// It stays.
    Kept,
    /// It is removed.
    Removed,
}

/// Watches over the processes of one folder for as long as it lives; see the module.
#[derive(Debug)]
pub struct Guardian {
    shell: Child,
    told: Mutex<Option<ChildStdin>>,
}

impl Guardian {
    /// Watches the processes of this folder.
    ///
    /// # Errors
    /// There is no `/bin/sh`.
    pub fn of(dir: &Path, folder: Folder) -> Result<Self> {
        let removed = if folder == Folder::Removed { "removed" } else { "kept" };
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "pgward-guardian"])
            .arg(dir)
            .arg(removed)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own: Ctrl-C on the terminal is not meant for it.
            .process_group(0)
            .spawn()
            .context("cannot start the shell that watches over the servers")?;
        let told = Mutex::new(shell.stdin.take());
        Ok(Self { shell, told })
    }

    /// Tells it of a process to end. The process is ended only if its command line names the folder, so that a number
    /// that was given to another process meanwhile does no harm.
    pub fn watch(&self, pid: u32) {
        if let Some(told) = self.told.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // A guardian that is gone leaves the destructors, which do the same.
            let _ = writeln!(told, "{pid}");
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.told.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = self.shell.wait();
    }
}

/// `$1` the folder, `$2` what becomes of it. SIGQUIT is PostgreSQL's immediate shutdown; a stopped process must be
/// continued to act on it, its children too.
const SCRIPT: &str = r#"
trap '' HUP INT TERM QUIT
dir=$1
ours() {
    args=$(tr '\0' ' ' 2>/dev/null </proc/"$1"/cmdline || ps -o args= -p "$1" 2>/dev/null) || return 1
    case $args in *"$dir"*) return 0 ;; *) return 1 ;; esac
}
children() {
    grep -l "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status 2>/dev/null | cut -d/ -f3
}
pids=
while read -r pid; do pids="$pids $pid"; done
left=
for pid in $pids; do
    ours "$pid" || continue
    left="$left $pid"
    kill -CONT $(children "$pid") "$pid" 2>/dev/null
    kill -QUIT "$pid" 2>/dev/null
done
tries=0
for pid in $left; do
    while ours "$pid" && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
    ours "$pid" && kill -KILL $(children "$pid") "$pid" 2>/dev/null
done
[ "$2" = removed ] && rm -rf "$dir"
exit 0
"#;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn ends_what_names_its_folder_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let sleeper = |arg: &Path| {
            Command::new("/bin/sh").args(["-c", "while :; do sleep 0.05; done", "x"]).arg(arg).spawn().unwrap()
        };
        let mut ours = sleeper(dir.path());
        let mut foreign = sleeper(Path::new("/elsewhere"));
        let guardian = Guardian::of(dir.path(), Folder::Removed).unwrap();
        guardian.watch(ours.id());
        guardian.watch(foreign.id());
        drop(guardian);

        let deadline = Instant::now() + Duration::from_secs(5);
        while ours.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "still running");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(foreign.try_wait().unwrap().is_none(), "a foreign process was ended");
        assert!(!dir.path().exists());
        foreign.kill().unwrap();
        foreign.wait().unwrap();
    }
}
