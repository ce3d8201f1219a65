//! The decisions to commit, on disk before the first server hears of one.
//!
//! A file of lines beside the patient directory: a checksum, then JSON. `commit` names a transaction and the shards that
//! have prepared it; `done` says that all of them have committed it. What stands there without its `done` is to be
//! committed wherever it is found prepared; what does not stand there was never decided, and is rolled back. A `done` is
//! synced before the next `commit` is written, no sooner: so only the end of the file may be torn. It is a
//! file of its own since the audit log may be rotated and carried away, and since most lines are of no use a moment
//! later: when it has grown, a new one with what is open takes its place.
//!
//! The name that the file has been given by chance stands in every transaction's identifier, so that a proxy decides
//! about no transaction whose decision stands in another file.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// A file that has grown by so much is written anew.
const RENEW_AFTER: u64 = 256 * 1024;

/// What is open: the shards that are not known to have committed, by transaction.
pub(super) type Open = BTreeMap<String, Vec<String>>;

/// The file.
#[derive(Debug)]
pub(super) struct CommitLog {
    path: PathBuf,
    name: String,
    /// Held while the disk is waited for.
    written: Mutex<Written>,
    /// Never held so, and taken behind the other.
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Written {
    file: File,
    end: u64,
    renew_at: u64,
    /// Which file bears the name is not on disk yet.
    unnamed: bool,
    ends: Ends,
}

/// Whether the `done` lines are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Synced,
    Written,
    /// A sync has failed: the next may say that all is well though it is not.
    Lost,
}

#[derive(Debug, Default)]
struct Known {
    open: Open,
    /// Whether these are on disk is not known: they are being written, or a restart must read the file.
    doubtful: HashSet<String>,
}

/// What became of a decision.
#[derive(Debug)]
pub(crate) enum Decided {
    /// It is on disk: from now on the transaction is committed, whatever happens.
    Commit,
    /// It is not: the transaction is rolled back.
    Not(io::Error),
    /// It may be: nothing is done about the transaction before a restart has read the file.
    InDoubt(io::Error),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// The name of the file.
    Log(String),
    Commit(String, Vec<String>),
    Done(String),
}

impl CommitLog {
    /// Opens the file, and makes it if there is none, with `name` for its name. A line that was not written whole is cut
    /// off: its decision was never acted upon.
    pub(super) fn open(path: &Path, name: &str) -> anyhow::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        lock(&file)?;
        let mut bytes = Vec::new();
        (&file).read_to_end(&mut bytes)?;
        let read = read(&bytes)?;
        let name = read.name.unwrap_or_else(|| name.to_owned());
        let mut end = read.end;
        if end == 0 {
            let head = encode(&Line::Log(name.clone()))?;
            file.write_all_at(&head, 0)?;
            end = head.len() as u64;
        }
        file.set_len(end)?;
        file.sync_all()?;
        sync_name(path).context("its folder cannot be synced")?;
        let written = Written { file, end, renew_at: end + RENEW_AFTER, unnamed: false, ends: Ends::Synced };
        let known = Known { open: read.open, ..Known::default() };
        Ok(Self { path: path.to_owned(), name, written: Mutex::new(written), known: Mutex::new(known) })
    }

    /// The name that stands in the identifiers of its transactions.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Decides that a transaction which all these shards have prepared is committed. Blocks until that is on disk.
    pub(super) fn decide(&self, gid: &str, shards: &[String]) -> Decided {
        let written = &mut *self.written.lock();
        if let Err(error) = self.sync_ends(written) {
            return Decided::Not(error);
        }
        // Stays so if this thread does not come to an end.
        self.known.lock().doubtful.insert(gid.to_owned());
        let decided = self.write_decision(written, gid, shards);
        let known = &mut *self.known.lock();
        if !matches!(decided, Decided::InDoubt(_)) {
            known.doubtful.remove(gid);
        }
        if matches!(decided, Decided::Commit) {
            known.open.insert(gid.to_owned(), shards.to_vec());
        }
        decided
    }

    fn write_decision(&self, written: &mut Written, gid: &str, shards: &[String]) -> Decided {
        let ready = self.name_file(written).and_then(|()| encode(&Line::Commit(gid.to_owned(), shards.to_vec())));
        let line = match ready {
            Ok(line) => line,
            Err(error) => return Decided::Not(error),
        };
        let synced = written.file.write_all_at(&line, written.end).and_then(|()| written.file.sync_data());
        let Err(error) = synced else {
            written.end += line.len() as u64;
            return Decided::Commit;
        };
        // It may be there in part, or whole: only when it is certainly gone it is not decided.
        match written.file.set_len(written.end).and_then(|()| written.file.sync_all()) {
            Ok(()) => Decided::Not(error),
            Err(_) => Decided::InDoubt(error),
        }
    }

    /// These shards have committed it. Not synced: what is lost of it is found out again. Blocks while a decision is
    /// written.
    pub(super) fn committed(&self, gid: &str, on: &[String]) {
        {
            let known = &mut *self.known.lock();
            let Some(shards) = known.open.get_mut(gid) else { return };
            shards.retain(|shard| !on.contains(shard));
            if !shards.is_empty() {
                return;
            }
            known.open.remove(gid);
        }
        let written = &mut *self.written.lock();
        // What is in doubt stands in this very file, or does not.
        let renews = written.end >= written.renew_at && self.known.lock().doubtful.is_empty();
        let noted = match renews {
            true => self.renew(written),
            false => encode(&Line::Done(gid.to_owned())).and_then(|line| {
                written.file.write_all_at(&line, written.end)?;
                written.end += line.len() as u64;
                if written.ends == Ends::Synced {
                    written.ends = Ends::Written;
                }
                Ok(())
            }),
        };
        if let Err(error) = noted {
            tracing::warn!(path = %self.path.display(), %error, "the end of a transaction could not be noted");
            written.renew_at = written.end + RENEW_AFTER;
        }
    }

    /// No decision stands behind lines that a loss of power may leave a hole of: a hole with lines behind it is damage.
    fn sync_ends(&self, written: &mut Written) -> io::Result<()> {
        if written.ends == Ends::Written {
            written.ends = if written.file.sync_data().is_ok() { Ends::Synced } else { Ends::Lost };
        }
        match written.ends {
            Ends::Lost if self.known.lock().doubtful.is_empty() => self.renew(written),
            Ends::Lost => Err(io::Error::other("its last lines are lost, and a restart must read the others")),
            _ => Ok(()),
        }
    }

    /// Puts a file with what is open in the place of the one at hand.
    fn renew(&self, written: &mut Written) -> io::Result<()> {
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        lock(&file).map_err(io::Error::other)?;
        let mut bytes = encode(&Line::Log(self.name.clone()))?;
        let open = self.open_transactions();
        for (gid, shards) in &open {
            bytes.extend(encode(&Line::Commit(gid.clone(), shards.clone()))?);
        }
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        written.file = file;
        written.end = bytes.len() as u64;
        written.renew_at = written.end + RENEW_AFTER;
        written.unnamed = true;
        written.ends = Ends::Synced;
        self.name_file(written)
    }

    /// Nothing is decided in a file that may not bear the name after a loss of power.
    fn name_file(&self, written: &mut Written) -> io::Result<()> {
        if written.unnamed {
            sync_name(&self.path)?;
            written.unnamed = false;
        }
        Ok(())
    }

    /// What is decided and not known to be committed everywhere.
    pub(super) fn open_transactions(&self) -> Open {
        self.known.lock().open.clone()
    }

    /// What is to be done with a transaction that was found prepared and that no session owns.
    pub(super) fn verdict(&self, gid: &str) -> Verdict {
        let known = self.known.lock();
        match (known.open.contains_key(gid), known.doubtful.contains(gid)) {
            (true, _) => Verdict::Commit,
            (_, true) => Verdict::Leave,
            _ => Verdict::RollBack,
        }
    }
}

/// What is to be done with a prepared transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Commit,
    RollBack,
    /// Whether it was decided is not known.
    Leave,
}

fn lock(file: &File) -> anyhow::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => bail!("another process has it open (is a PgWard running?)"),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// The name of a file is durable only when its folder is.
fn sync_name(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn encode(line: &Line) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(line)?;
    Ok(format!("{:016x} {json}\n", xxh3_64(json.as_bytes())).into_bytes())
}

/// What a file says.
#[derive(Debug, Default)]
struct Found {
    /// `None` in a file that has not been begun.
    name: Option<String>,
    open: Open,
    /// Behind the last line that is whole.
    end: u64,
}

/// A bad line is passed over only where nothing stands behind it.
fn read(bytes: &[u8]) -> anyhow::Result<Found> {
    let mut found = Found::default();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(whole) = line.strip_suffix(b"\n").and_then(decode) else {
            let behind = &bytes[usize::try_from(found.end)? + line.len()..];
            if behind.iter().any(|byte| *byte != 0) {
                bail!(
                    "damaged at byte {}, with lines behind it. No older copy of it may take its place, whose decisions \
                     are others: look into pg_prepared_xacts of all primaries for identifiers with \":{}:\" in them, and \
                     end each alike on all its shards, by COMMIT PREPARED where a \"commit\" line of this file names it \
                     or the data shows that a shard has committed it; then move the file away",
                    found.end,
                    found.name.as_deref().unwrap_or_default()
                );
            }
            break;
        };
        match whole {
            Line::Log(name) => found.name = Some(name),
            _ if found.name.is_none() => bail!("this is not a commit log of PgWard"),
            Line::Commit(gid, shards) => drop(found.open.insert(gid, shards)),
            Line::Done(gid) => drop(found.open.remove(&gid)),
        }
        found.end += line.len() as u64;
    }
    if found.end == 0 && bytes.len() > 256 {
        bail!("this is not a commit log of PgWard");
    }
    Ok(found)
}

fn decode(line: &[u8]) -> Option<Line> {
    let (sum, json) = line.split_at_checked(17)?;
    let expected = format!("{:016x} ", xxh3_64(json));
    (sum == expected.as_bytes()).then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
mod tests;
