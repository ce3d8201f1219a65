//! The embedded directory: patients and their home regions in one file of this machine.
//!
//! All of it is in memory; the file is only appended to. A registration is written (`write(2)`) before anybody can look
//! it up, so that a kill of the proxy loses none; a thread syncs the file to disk every second, so that a loss of power
//! loses a second at most. Patients are stored under HMAC-SHA256: the file without the key names nobody. One process
//! writes it at a time (a lock on the file); any number may read it (`pgward route`).

mod cache;
mod log;
mod map;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pgward_config::PatientRegion;
use pgward_router::{DirectoryLookup, Entry, PatientHasher, PatientKey, Refusal, RefusalKind};

pub use cache::{PatientCache, Resolved};
use log::{Damage, HEADER, REGION_NAME_MAX, Replayed, Row};
use map::Patients;

/// How often what was registered is synced to disk.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// An open directory.
pub struct EmbeddedDirectory {
    shared: Arc<Shared>,
    hasher: PatientHasher,
    header: [u8; HEADER],
    torn_bytes: u64,
    syncing: Option<JoinHandle<()>>,
}

/// What the syncing thread shares with the directory.
struct Shared {
    path: PathBuf,
    file: File,
    patients: Patients,
    /// Region names by number.
    regions: ArcSwap<Vec<PatientRegion>>,
    /// Where the next record goes; `None` in a directory that was opened for reading. Whoever holds it registers.
    end: Mutex<Option<u64>>,
    /// Something was written since the last sync.
    dirty: AtomicBool,
    closing: AtomicBool,
}

/// Why a directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The operating system said no.
    #[error("directory {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Its words.
        source: io::Error,
    },
    /// Another process writes it.
    #[error("directory {path}: another process has it open (is a PgWard running?)")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Some other file.
    #[error("directory {path}: this is not a directory of PgWard; check [directory] path")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A format of another PgWard.
    #[error("directory {path}: format version {version}, this PgWard reads version 1")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u32,
    },
    /// The key is not the one that it was made with.
    #[error("directory {path}: made with another key; check [directory] key")]
    WrongKey {
        /// The file.
        path: PathBuf,
    },
    /// A record in the middle is damaged.
    #[error("directory {path}: damaged at byte {offset}, with good records behind it; restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
}

/// Why patients could not be registered; none of the call's patients was.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A patient is already there with another region.
    #[error("a patient is already registered in region {known}, not {stated}")]
    Contradiction {
        /// What the directory has.
        known: PatientRegion,
        /// What was to be registered.
        stated: PatientRegion,
    },
    /// A region name that cannot be stored.
    #[error("a region name is 1 to {REGION_NAME_MAX} bytes, and a directory holds at most 65 536 of them")]
    RegionName,
    /// The file cannot be written.
    #[error("the directory file cannot be written: {0}")]
    Io(#[from] io::Error),
}

impl From<RegisterError> for Refusal {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Contradiction { known, .. } => {
                Self::new(RefusalKind::RegionContradiction, "the statement's region contradicts the directory")
                    .detail(format!("The patient lives in {known}; the statement says another region."))
                    .hint("Another session registered the patient a moment ago. Correct the region.")
            }
            other => Self::new(RefusalKind::DirectoryUnwritable, "the patient cannot be registered")
                .detail(format!("{other}."))
                .hint("Nothing was executed. Retry when the operator has made room or mended the disk."),
        }
    }
}

impl EmbeddedDirectory {
    /// Opens the directory for reading and writing, creating it if there is no file, and begins to sync it.
    ///
    /// What a torn write left at the end of the file is cut off; [`Self::torn_bytes`] tells how much that was.
    ///
    /// # Errors
    /// See [`DirectoryError`]; the file is not changed then.
    pub fn open(path: &Path, secret: &[u8]) -> Result<Self, DirectoryError> {
        let io = |source| DirectoryError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirectoryError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let header = log::header(secret);
        begin(&file, path, &header).map_err(io)?;
        let mut directory = Self::load(path, file, secret, header)?;
        let shared = &directory.shared;
        if directory.torn_bytes > 0 {
            let end = *shared.end.lock();
            shared.file.set_len(end.unwrap_or(HEADER as u64)).map_err(io)?;
            shared.file.sync_data().map_err(io)?;
        }
        let sync = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("pgward-directory".into());
        directory.syncing = Some(thread.spawn(move || sync_every_second(&sync)).map_err(io)?);
        Ok(directory)
    }

    /// Opens the directory for look-ups alone, beside a process that writes it: what is there at this moment.
    ///
    /// # Errors
    /// See [`DirectoryError`]; a file that does not exist is an [`DirectoryError::Io`] of kind `NotFound`.
    pub fn open_read_only(path: &Path, secret: &[u8]) -> Result<Self, DirectoryError> {
        let file = File::open(path).map_err(|source| DirectoryError::Io { path: path.to_owned(), source })?;
        let directory = Self::load(path, file, secret, log::header(secret))?;
        *directory.shared.end.lock() = None;
        Ok(directory)
    }

    fn load(path: &Path, file: File, secret: &[u8], header: [u8; HEADER]) -> Result<Self, DirectoryError> {
        let patients = Patients::default();
        let loaded = replay(&file, &header, &patients);
        let replayed = match loaded {
            Ok(Ok(replayed)) => replayed,
            Ok(Err(damage)) => return Err(damaged(path, damage)),
            Err(source) => return Err(DirectoryError::Io { path: path.to_owned(), source }),
        };
        let shared = Shared {
            path: path.to_owned(),
            file,
            patients,
            regions: ArcSwap::from_pointee(replayed.regions),
            end: Mutex::new(Some(replayed.end)),
            dirty: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        };
        Ok(Self {
            shared: Arc::new(shared),
            hasher: PatientHasher::for_directory(secret),
            header,
            torn_bytes: replayed.torn,
            syncing: None,
        })
    }

    /// Whether this is the directory of that file and key, so that a reload need not open it again.
    pub fn is(&self, path: &Path, secret: &[u8]) -> bool {
        self.shared.path == path && self.header == log::header(secret)
    }

    /// Bytes that a torn write had left at the end of the file when it was opened.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// How many patients it holds.
    pub fn len(&self) -> usize {
        self.shared.patients.len()
    }

    /// Whether it holds nobody.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Registers patients, all or none, and returns how many were new. A patient that is already there with the same
    /// region is fine. When this returns, the new ones are in the file and can be looked up. One `write(2)` for all.
    ///
    /// # Errors
    /// See [`RegisterError`]; nothing was registered then.
    pub fn register(&self, patients: &[(PatientKey, PatientRegion)]) -> Result<usize, RegisterError> {
        let hashes: Vec<[u8; 16]> = patients.iter().map(|(key, _)| self.stored_hash(key)).collect();
        let mut end = self.shared.end.lock();
        let Some(offset) = *end else {
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "opened for reading").into());
        };
        let mut batch = Batch::new(&self.shared, offset);
        for (hash, (_, region)) in hashes.into_iter().zip(patients) {
            batch.add(hash, region)?;
        }
        if batch.rows.is_empty() {
            return Ok(0);
        }
        if let Err(error) = self.shared.file.write_all_at(&batch.bytes, offset) {
            // What was written of it is cut off; should that fail too, the next registration overwrites it, and
            // a restart finds a torn tail.
            let _ = self.shared.file.set_len(offset);
            return Err(error.into());
        }
        *end = Some(offset + batch.bytes.len() as u64);
        self.shared.dirty.store(true, Ordering::Release);
        self.shared.regions.store(Arc::new(batch.regions));
        for row in &batch.rows {
            self.shared.patients.insert(*row);
        }
        Ok(batch.rows.len())
    }

    fn stored_hash(&self, key: &PatientKey) -> [u8; 16] {
        let mut stored = [0; 16];
        stored.copy_from_slice(&self.hasher.hash(key)[..16]);
        stored
    }
}

impl DirectoryLookup for EmbeddedDirectory {
    fn get(&self, key: &PatientKey) -> Option<Entry> {
        let (region, epoch) = self.shared.patients.get(&self.stored_hash(key))?;
        let region = self.shared.regions.load().get(usize::from(region))?.clone();
        Some(Entry { region, epoch })
    }
}

impl Drop for EmbeddedDirectory {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        if let Some(syncing) = self.syncing.take() {
            syncing.thread().unpark();
            // A panic of the thread was already reported; there is nothing more to do with it here.
            let _ = syncing.join();
        }
    }
}

/// Registrations that will be written together.
struct Batch<'a> {
    shared: &'a Shared,
    offset: u64,
    bytes: Vec<u8>,
    rows: Vec<Row>,
    regions: Vec<PatientRegion>,
    seen: foldhash::HashMap<[u8; 16], u16>,
}

impl<'a> Batch<'a> {
    fn new(shared: &'a Shared, offset: u64) -> Self {
        let regions = Vec::clone(&shared.regions.load());
        Self { shared, offset, bytes: Vec::new(), rows: Vec::new(), regions, seen: foldhash::HashMap::default() }
    }

    fn add(&mut self, hash: [u8; 16], region: &PatientRegion) -> Result<(), RegisterError> {
        let known = self.shared.patients.get(&hash).map(|(region, _)| region).or_else(|| self.seen.get(&hash).copied());
        if let Some(known) = known.map(|number| &self.regions[usize::from(number)]) {
            if known == region {
                return Ok(());
            }
            return Err(RegisterError::Contradiction { known: known.clone(), stated: region.clone() });
        }
        let row = Row { hash, region: self.number(region)?, epoch: 1 };
        log::put_patient(&mut self.bytes, self.offset, &row);
        self.seen.insert(hash, row.region);
        self.rows.push(row);
        Ok(())
    }

    /// The region's number; a new name is put in front of the patient's record.
    fn number(&mut self, region: &PatientRegion) -> Result<u16, RegisterError> {
        if let Some(number) = self.regions.iter().position(|known| known == region) {
            return u16::try_from(number).map_err(|_| RegisterError::RegionName);
        }
        let number = u16::try_from(self.regions.len()).map_err(|_| RegisterError::RegionName)?;
        if region.as_str().is_empty() || region.as_str().len() > REGION_NAME_MAX {
            return Err(RegisterError::RegionName);
        }
        log::put_region(&mut self.bytes, self.offset, number, region.as_str());
        self.regions.push(region.clone());
        Ok(number)
    }
}

/// Writes the header of a new file, or of one whose creation was cut short.
fn begin(mut file: &File, path: &Path, header: &[u8; HEADER]) -> io::Result<()> {
    let mut found = Vec::with_capacity(HEADER);
    file.take(HEADER as u64).read_to_end(&mut found)?;
    if !log::torn_header(&found, header) {
        return Ok(());
    }
    file.write_all_at(header, 0)?;
    file.flush()?;
    file.sync_all()?;
    // The name of a new file is durable only when its folder is.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn replay(mut file: &File, header: &[u8; HEADER], patients: &Patients) -> io::Result<Result<Replayed, Damage>> {
    use std::io::{Seek, SeekFrom};
    file.seek(SeekFrom::Start(0))?;
    let mut input = BufReader::with_capacity(256 * 1024, file);
    let mut found = [0; HEADER];
    match input.read_exact(&mut found) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Err(Damage::Foreign)),
        Err(error) => return Err(error),
    }
    if let Err(damage) = log::check_header(&found, header) {
        return Ok(Err(damage));
    }
    log::replay(input, |row| patients.insert(row))
}

fn damaged(path: &Path, damage: Damage) -> DirectoryError {
    let path = path.to_owned();
    match damage {
        Damage::Foreign => DirectoryError::Foreign { path },
        Damage::Version(version) => DirectoryError::Version { path, version },
        Damage::WrongKey => DirectoryError::WrongKey { path },
        Damage::Record(offset) => DirectoryError::Damaged { path, offset },
    }
}

fn sync_every_second(shared: &Shared) {
    loop {
        let closing = shared.closing.load(Ordering::Acquire);
        if shared.dirty.swap(false, Ordering::AcqRel)
            && let Err(error) = shared.file.sync_data()
        {
            // Written, so a kill of the proxy loses nothing; but a loss of power might.
            tracing::error!(path = %shared.path.display(), %error, "the patient directory cannot be synced to disk");
            shared.dirty.store(true, Ordering::Release);
        }
        if closing {
            return;
        }
        std::thread::park_timeout(SYNC_INTERVAL);
    }
}

#[cfg(test)]
mod tests;
