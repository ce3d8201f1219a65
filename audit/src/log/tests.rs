//! The log on good and bad disks. A [`Disk`] is memory that fails when told to; the real file is tested where the file
//! system itself matters.

mod turns;

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use pgward_config::Secret;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::file::{Found, Sink, Syncer};
use crate::read;
use crate::record::{EventKind, Outcome, Who};

/// A disk in memory, shared between the log and the test.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Default)]
struct Platter {
    content: Vec<u8>,
    /// Room left; `None` for as much as wanted.
    room: Option<usize>,
    broken: bool,
    cannot_truncate: bool,
    writes: usize,
    /// Results of the next calls of fdatasync; then all succeed.
    syncs: VecDeque<io::Result<()>>,
    synced: usize,
}

impl Disk {
    fn set(&self, change: impl FnOnce(&mut Platter)) {
        change(&mut self.0.lock());
    }

    fn records(&self) -> Vec<Value> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("copy");
        fs::write(&path, &self.0.lock().content).unwrap();
        read::records(&path).unwrap()
    }
}

impl Sink for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock();
        disk.writes += 1;
        if disk.broken {
            return Err(ErrorKind::Other.into());
        }
        let count = disk.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if count == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        disk.room = disk.room.map(|room| room - count);
        disk.content.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut disk = self.0.lock();
        if disk.cannot_truncate {
            return Err(ErrorKind::Other.into());
        }
        let freed = disk.content.len() - len as usize;
        disk.content.truncate(len as usize);
        disk.room = disk.room.map(|room| room + freed);
        Ok(())
    }

    fn syncer(&self) -> Syncer {
        let disk = self.clone();
        Box::new(move || {
            let mut disk = disk.0.lock();
            disk.synced += 1;
            disk.syncs.pop_front().unwrap_or(Ok(()))
        })
    }

    fn rotate(&mut self, _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn check(&mut self, _: u64) -> io::Result<Found> {
        Ok(Found::Same)
    }
}

fn config(policy: AuditPolicy) -> Audit {
    Audit {
        path: PathBuf::from("audit.jsonl"),
        policy,
        key: Secret::new("key"),
        rotate_bytes: None,
        spool_bytes: 16 * 1024,
    }
}

fn on_disk(policy: AuditPolicy) -> (Disk, AuditLog) {
    let disk = Disk::default();
    let beginning = Beginning { sink: Box::new(disk.clone()), len: 0, first_seq: 1, next_seq: 1, mended: None };
    (disk, AuditLog::begin(&config(policy), "test", beginning))
}

fn in_folder(folder: &TempDir, rotate_bytes: Option<u64>) -> (PathBuf, AuditLog) {
    let path = folder.path().join("audit.jsonl");
    let config = Audit { path: path.clone(), rotate_bytes, ..config(AuditPolicy::Written) };
    (path, AuditLog::open(&config, "test").unwrap())
}

/// Appends a record whose fingerprint is `name`.
fn append(log: &AuditLog, class: Class, name: &str) -> Result<Receipt, AuditError> {
    append_as(log, class, name, Outcome::Forwarded { reason: "best_replica", permit: "home region" })
}

fn append_as(log: &AuditLog, class: Class, name: &str, outcome: Outcome<'_>) -> Result<Receipt, AuditError> {
    let who = Who::new(1, "user", "127.0.0.1:1", "general", "us-east-1");
    let record = Record {
        who: &who,
        role: None,
        transaction: false,
        kind: "read",
        class,
        fingerprint: name,
        patients: &[],
        evidence: &[],
        home: None,
        target: None,
        candidates: &[],
        outcome,
        decision_time: Duration::from_micros(3),
        config: "c",
    };
    log.append(&record, SystemTime::now())
}

fn normal(log: &AuditLog, name: &str) -> Result<(), AuditError> {
    append(log, Class::Normal, name)?.wait()
}

fn emergency(log: &AuditLog, name: &str) {
    append(log, Class::Emergency, name).unwrap().wait().unwrap();
}

/// What each record is: a decision's fingerprint, or an event's word.
fn story(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["fingerprint"].as_str().or(record["event"].as_str()).unwrap()).collect()
}

#[track_caller]
fn soon(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not within 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn written_records_are_in_the_file_when_append_returns_and_numbers_go_on_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let (path, log) = in_folder(&folder, None);
    normal(&log, "a").unwrap();
    normal(&log, "b").unwrap();
    assert_eq!(story(&read::records(&path).unwrap()), ["a", "b"]);
    drop(log);
    let (_, log) = in_folder(&folder, None);
    normal(&log, "c").unwrap();
    let records = read::records(&path).unwrap();
    assert_eq!(records[2]["seq"], 3);
    assert_eq!(fs::metadata(&path).unwrap().len(), log.status().file_bytes);
}

#[test]
fn a_torn_line_is_cut_off_and_reported() {
    let folder = TempDir::new().unwrap();
    let (path, log) = in_folder(&folder, None);
    normal(&log, "a").unwrap();
    drop(log);
    let mut torn = fs::read(&path).unwrap();
    torn.extend_from_slice(b"{\"seq\":2,\"time\":");
    fs::write(&path, torn).unwrap();
    let (_, log) = in_folder(&folder, None);
    normal(&log, "b").unwrap();
    let records = read::records(&path).unwrap();
    assert_eq!(story(&records), ["a", "audit_log", "b"]);
    assert!(records[1]["detail"].as_str().unwrap().contains("torn last line of 16 bytes"));
}

#[test]
fn two_processes_cannot_write_one_file() {
    let folder = TempDir::new().unwrap();
    let (path, _log) = in_folder(&folder, None);
    let config = Audit { path, ..config(AuditPolicy::Written) };
    assert!(AuditLog::open(&config, "test").unwrap_err().to_string().contains("another process"));
}

#[test]
fn a_full_disk_refuses_ordinary_statements_and_holds_emergencies_until_it_heals() {
    let (disk, log) = on_disk(AuditPolicy::Written);
    normal(&log, "a").unwrap();
    disk.set(|disk| disk.room = Some(100));
    let error = normal(&log, "refused").unwrap_err();
    assert_eq!(error.cause().kind(), ErrorKind::StorageFull);
    emergency(&log, "e1");
    emergency(&log, "e2");
    normal(&log, "refused too").unwrap_err();
    assert_eq!(story(&disk.records()), ["a"], "half a line was taken back");
    assert_eq!(log.status().spooled_records, 2);

    disk.set(|disk| disk.room = None);
    normal(&log, "b").unwrap();
    let records = disk.records();
    assert_eq!(story(&records), ["a", "e1", "e2", "audit_log", "b"]);
    assert_eq!(records[1]["spooled"], true);
    assert!(records[1]["time"].as_str() < records[3]["time"].as_str(), "its own time");
    assert!(records[3]["detail"].as_str().unwrap().contains("2 records were held"));
    assert!(log.status().outage.is_none());
}

#[test]
fn a_failed_truncation_is_made_up_for_before_anything_else_is_written() {
    let (disk, log) = on_disk(AuditPolicy::Written);
    normal(&log, "a").unwrap();
    disk.set(|disk| (disk.room, disk.cannot_truncate) = (Some(50), true));
    normal(&log, "refused").unwrap_err();
    disk.set(|disk| disk.room = None);
    normal(&log, "still refused: the torn line is there").unwrap_err();
    disk.set(|disk| disk.cannot_truncate = false);
    normal(&log, "b").unwrap();
    assert_eq!(story(&disk.records()), ["a", "audit_log", "b"]);
}

#[test]
fn the_log_heals_by_itself() {
    let (disk, log) = on_disk(AuditPolicy::Written);
    disk.set(|disk| disk.broken = true);
    emergency(&log, "e");
    disk.set(|disk| disk.broken = false);
    soon(|| log.status().outage.is_none());
    assert_eq!(story(&disk.records()), ["e", "audit_log"]);
}

#[test]
fn a_full_spool_lets_emergencies_go_on_and_counts_what_is_lost() {
    let (disk, log) = on_disk(AuditPolicy::Written);
    disk.set(|disk| disk.broken = true);
    let long = "x".repeat(1000);
    (0..100).for_each(|_| emergency(&log, &long));
    let Status { spooled_records, spooled_bytes, lost, .. } = log.status();
    assert!(spooled_bytes <= 16 * 1024);
    assert_eq!(spooled_records as u64 + lost, 100);
    disk.set(|disk| disk.broken = false);
    log.flush().unwrap();
    let records = disk.records();
    assert_eq!(records.len(), spooled_records + 1);
    let detail = records.last().unwrap()["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("{lost} found no room and are lost")), "{detail}");
}

#[test]
fn refused_logins_cannot_push_emergencies_out_of_the_spool() {
    let (disk, log) = on_disk(AuditPolicy::Written);
    disk.set(|disk| disk.broken = true);
    let event = Event { kind: EventKind::LoginRefused, who: None, sqlstate: Some("28P01"), detail: "no", config: "c" };
    let refused = (0..1000).filter(|_| log.event(&event, SystemTime::now()).is_err()).count();
    assert!(refused > 0);
    emergency(&log, "e");
    assert!(log.status().spooled_bytes < 8 * 1024);
    disk.set(|disk| disk.broken = false);
    log.flush().unwrap();
    assert!(story(&disk.records()).contains(&"e"));
}

#[test]
fn buffered_records_reach_the_file_soon_and_keep_their_numbers_through_a_failure() {
    let (disk, log) = on_disk(AuditPolicy::Buffered);
    normal(&log, "a").unwrap();
    soon(|| disk.records().len() == 1);
    disk.set(|disk| disk.broken = true);
    normal(&log, "b").unwrap();
    soon(|| log.status().outage.is_some());
    normal(&log, "refused").unwrap_err();
    emergency(&log, "e");
    disk.set(|disk| disk.broken = false);
    soon(|| disk.records().len() == 4);
    assert_eq!(story(&disk.records()), ["a", "b", "e", "audit_log"]);
}

#[test]
fn synced_records_are_answered_in_groups() {
    let (disk, log) = on_disk(AuditPolicy::Synced);
    let receipts: Vec<Receipt> = (0..200).map(|n| append(&log, Class::Normal, &n.to_string()).unwrap()).collect();
    for receipt in receipts {
        receipt.wait().unwrap();
    }
    assert_eq!(disk.records().len(), 200);
    let synced = disk.0.lock().synced;
    assert!((1..=200).contains(&synced), "{synced}");
}

#[test]
fn after_a_failed_sync_nothing_of_the_group_stands_in_the_file_but_its_emergencies_return() {
    let (disk, log) = on_disk(AuditPolicy::Synced);
    normal(&log, "a").unwrap();
    disk.set(|disk| disk.syncs.extend((0..1000).map(|_| Err(ErrorKind::Other.into()))));
    let receipts =
        [append(&log, Class::Emergency, "e").unwrap(), append(&log, Class::Normal, "refused").unwrap_or(Receipt::Done)];
    let [emergency, _] = receipts;
    emergency.wait().unwrap();
    soon(|| log.status().outage.is_some());
    normal(&log, "refused").unwrap_err();
    disk.set(|disk| disk.syncs.clear());
    normal(&log, "b").unwrap();
    let records = disk.records();
    let story = story(&records);
    assert_eq!((story[0], story[1], *story.last().unwrap()), ("a", "e", "b"), "{story:?}");
    assert!(!story[2..].contains(&"e"), "{story:?}");
}

#[test]
fn rotation_keeps_the_sequence_across_files_and_restarts() {
    let folder = TempDir::new().unwrap();
    let (path, log) = in_folder(&folder, Some(2000));
    (0..20).for_each(|n| normal(&log, &n.to_string()).unwrap());
    drop(log);
    let (_, log) = in_folder(&folder, Some(2000));
    normal(&log, "20").unwrap();
    let mut files: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 2);
    assert_eq!(files.remove(0), path);
    files.push(path);
    let records: Vec<Value> = files.iter().flat_map(|file| read::records(file).unwrap()).collect();
    let numbers: Vec<u64> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=21).collect::<Vec<u64>>());
    let second = read::records(&files[1]).unwrap()[0]["seq"].as_u64().unwrap();
    assert!(files[1].to_str().unwrap().ends_with(&format!(".{second:012}")), "{files:?}");
}

#[test]
fn a_renamed_file_is_left_and_a_new_one_begun() {
    let folder = TempDir::new().unwrap();
    let (path, log) = in_folder(&folder, None);
    normal(&log, "a").unwrap();
    let aside = folder.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    log.reopen().unwrap();
    normal(&log, "b").unwrap();
    assert_eq!(story(&read::records(&aside).unwrap()), ["a"]);
    assert_eq!(read::records(&path).unwrap()[0]["seq"], 2);
}

#[test]
fn a_foreign_file_in_its_place_is_not_written_to() {
    let folder = TempDir::new().unwrap();
    let (path, log) = in_folder(&folder, None);
    normal(&log, "a").unwrap();
    fs::rename(&path, folder.path().join("aside")).unwrap();
    fs::write(&path, "precious\n").unwrap();
    assert!(log.reopen().unwrap_err().to_string().contains("not an audit log"));
    normal(&log, "b").unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious\n");
    fs::remove_file(&path).unwrap();
    normal(&log, "c").unwrap();
    assert!(story(&read::records(&path).unwrap()).contains(&"c"));
}

#[test]
fn a_deleted_file_is_written_anew() {
    let folder = TempDir::new().unwrap();
    let (path, log) = in_folder(&folder, None);
    normal(&log, "a").unwrap();
    fs::remove_file(&path).unwrap();
    normal(&log, "b").unwrap();
    soon(|| path.exists() && fs::metadata(&path).unwrap().len() == log.status().file_bytes);
    soon(|| read::records(&path).is_ok_and(|records| story(&records) == ["a", "b", "audit_log"]));
}

#[test]
fn without_its_folder_the_log_refuses_until_the_folder_is_back() {
    let folder = TempDir::new().unwrap();
    let (path, log) = in_folder(&folder, None);
    normal(&log, "a").unwrap();
    fs::remove_dir_all(folder.path()).unwrap();
    soon(|| log.status().outage.is_some());
    normal(&log, "refused").unwrap_err();
    emergency(&log, "e");
    fs::create_dir(folder.path()).unwrap();
    normal(&log, "b").unwrap();
    let records = read::records(&path).unwrap();
    assert_eq!(story(&records)[..2], ["a", "e"]);
    assert!(story(&records).contains(&"b"));
}

#[test]
fn a_device_that_is_full_from_the_beginning_refuses() {
    let config = Audit { path: PathBuf::from("/dev/full"), ..config(AuditPolicy::Written) };
    let log = AuditLog::open(&config, "test").unwrap();
    assert_eq!(normal(&log, "refused").unwrap_err().cause().kind(), ErrorKind::StorageFull);
    emergency(&log, "e");
}

#[test]
fn threads_share_one_sequence() {
    let folder = TempDir::new().unwrap();
    let (path, log) = in_folder(&folder, Some(20_000));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || (0..100).for_each(|n| normal(log, &format!("{thread}-{n}")).unwrap()));
        }
    });
    drop(log);
    let files: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 1 && files.contains(&path));
    let count: usize = files.iter().map(|file| read::records(file).unwrap().len()).sum();
    assert_eq!(count, 400);
}
