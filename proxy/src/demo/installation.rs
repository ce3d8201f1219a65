//! The PostgreSQL installation that servers are started from, and the account that they run as.
//!
//! PostgreSQL refuses to run as root, so root starts servers as the user `postgres` that every package of it makes;
//! anybody else starts them as themselves. Programs are looked for where distributions put them, and the newest
//! installation wins: Debian keeps `initdb` and `postgres` out of PATH. [`CHOICE`] names another.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Oldest major version that the demo and the tests run on: the oldest that the PostgreSQL project still maintained
/// when PgWard began.
const OLDEST: u32 = 13;

/// Environment variable that chooses the installation: a major version, or the folder of `initdb` and `postgres`.
const CHOICE: &str = "PGWARD_PG";

/// PostgreSQL's programs and the account to run them as.
#[derive(Clone, Debug)]
pub struct Installation {
    bindir: PathBuf,
    major: u32,
    account: Option<Account>,
}

/// The account that root hands servers to.
#[derive(Clone, Copy, Debug)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Installation {
    /// The newest usable installation of this machine, or the one that [`CHOICE`] names.
    ///
    /// # Errors
    /// None is found, not the one that was chosen, or all are too old; or we are root and there is no user `postgres`,
    /// or none that may run these programs. The message says what to install.
    pub fn find() -> Result<Self> {
        let choice = std::env::var_os(CHOICE).filter(|choice| !choice.is_empty());
        let (dirs, wanted) = match &choice {
            None => (candidates(), None),
            Some(choice) => match choice.to_str().and_then(|choice| choice.parse::<u32>().ok()) {
                Some(major) => (candidates(), Some(major)),
                None => (complete([PathBuf::from(choice)]), None),
            },
        };
        let versions = dirs.into_iter().filter_map(|dir| Some((major_version(&dir)?, dir)));
        let Some((major, bindir)) = versions.filter(|(major, _)| wanted.is_none_or(|wanted| wanted == *major)).max()
        else {
            let chosen = choice.map(|choice| format!(" of {CHOICE}={}", choice.display())).unwrap_or_default();
            bail!("no PostgreSQL server programs{chosen} found (initdb, postgres)\n{HOW_TO_INSTALL}");
        };
        ensure!(
            major >= OLDEST,
            "PostgreSQL {major} in {} is too old: {OLDEST} or newer is needed\n{HOW_TO_INSTALL}",
            bindir.display()
        );
        let found = Self { bindir, major, account: account()? };
        let asked = found.command("postgres").arg("--version").output();
        ensure!(
            asked.is_ok_and(|output| output.status.success()),
            "the servers' account cannot run the programs in {}: they must be where it may pass through",
            found.bindir.display()
        );
        Ok(found)
    }

    /// Major version, e.g. 15.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The folder of the programs.
    pub fn bindir(&self) -> &Path {
        &self.bindir
    }

    /// A command that runs this program of PostgreSQL (or any other program, if it is an absolute path) as the
    /// servers' account. It starts in `/`, because that account may not be allowed into our own working directory.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(self.bindir.join(program.as_ref()));
        command.current_dir("/").stdin(Stdio::null());
        if let Some(Account { uid, gid }) = self.account {
            // std drops the supplementary groups too when root changes the uid.
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Gives a file or folder to the servers' account; nothing to do when that is us.
    pub fn give(&self, path: &Path) -> Result<()> {
        let Some(Account { uid, gid }) = self.account else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).with_context(|| format!("cannot give {} to postgres", path.display()))
    }

    /// Lets the servers' account pass through a folder of ours; what is in it stays closed.
    pub fn let_pass(&self, path: &Path) -> Result<()> {
        if self.account.is_some() {
            let mode = std::fs::metadata(path)?.permissions().mode();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | 0o011))?;
        }
        Ok(())
    }

    /// Makes a folder that the servers' account owns and can reach.
    ///
    /// # Errors
    /// A folder above it is closed to that account, as `/root` is.
    pub fn folder(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        self.give(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
        let reached = self.command("/bin/sh").args(["-c", "cd \"$1\"", "sh"]).arg(path).output()?;
        ensure!(
            reached.status.success(),
            "the user postgres, which the servers run as, cannot enter {}: choose a folder that others may pass \
             through, e.g. under /tmp or /var/tmp",
            path.display()
        );
        Ok(())
    }

    /// Runs a command to its end and returns what it printed.
    ///
    /// # Errors
    /// It cannot be started or fails; the error carries what it said.
    pub fn run(&self, command: &mut Command) -> Result<String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = command.output().with_context(|| format!("cannot run {name}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name} failed ({}): {}", output.status, said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

const HOW_TO_INSTALL: &str = "install it: Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install \
     postgresql-server postgresql-contrib; macOS: brew install postgresql; or put its bin folder into PATH";

/// Where distributions keep each version in a folder of its own: the folder above, how the versions' folders begin.
const HOMES: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
];

/// Every folder that holds both `initdb` and `postgres`.
fn candidates() -> BTreeSet<PathBuf> {
    let mut dirs: Vec<PathBuf> = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        dirs.push(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    for (home, prefix) in HOMES {
        let versions = std::fs::read_dir(home).into_iter().flatten().flatten();
        let named = versions.filter(|version| version.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()));
        dirs.extend(named.map(|version| version.path().join("bin")));
    }
    dirs.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    complete(dirs)
}

fn complete(dirs: impl IntoIterator<Item = PathBuf>) -> BTreeSet<PathBuf> {
    let complete = |dir: &PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    dirs.into_iter().filter(complete).filter_map(|dir| dir.canonicalize().ok()).collect()
}

/// 15 for a `postgres` that says `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_version(bindir: &Path) -> Option<u32> {
    let output = Command::new(bindir.join("postgres")).arg("--version").output().ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

fn parse_major(said: &str) -> Option<u32> {
    let version = said.split_once("(PostgreSQL) ")?.1;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn account() -> Result<Option<Account>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let id = |flag| {
        let output = Command::new("id").args([flag, "postgres"]).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().ok()
    };
    match (id("-u"), id("-g")) {
        (Some(uid), Some(gid)) => Ok(Some(Account { uid, gid })),
        _ => bail!(
            "PostgreSQL does not run as root, and there is no user `postgres` to run it as: install your \
             distribution's PostgreSQL package, which makes that user, or `useradd --system postgres`, or run this \
             as an ordinary user"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_of_releases_and_betas() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(parse_major("something else 15.2"), None);
    }
}
