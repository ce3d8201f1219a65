#![allow(clippy::unwrap_used)]

use super::*;

fn shards(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn decide(log: &CommitLog, gid: &str) {
    assert!(matches!(log.decide(gid, &shards(&["east", "west"])), Decided::Commit));
}

/// A log with one transaction that is done and one that is not, and its file.
fn written() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("commits");
    let log = CommitLog::open(&path, "first").unwrap();
    decide(&log, "one");
    decide(&log, "two");
    log.committed("one", &shards(&["east", "west"]));
    log.committed("two", &shards(&["west"]));
    (dir, path)
}

#[test]
fn what_is_decided_and_not_done_is_found_again() {
    let (_dir, path) = written();
    let log = CommitLog::open(&path, "second").unwrap();
    assert_eq!(log.name(), "first");
    // That one shard has committed is not kept: it is asked again.
    assert_eq!(log.open_transactions(), Open::from([("two".to_owned(), shards(&["east", "west"]))]));
    assert_eq!((log.verdict("two"), log.verdict("one")), (Verdict::Commit, Verdict::RollBack));
    log.committed("two", &shards(&["east"]));
    assert_eq!(log.open_transactions().len(), 1);
    log.committed("two", &shards(&["west"]));
    drop(log);
    assert!(CommitLog::open(&path, "third").unwrap().open_transactions().is_empty());
}

#[test]
fn what_cannot_be_brought_to_either_answer_is_left_until_the_file_is_read_again() {
    let (_dir, path) = written();
    let log = CommitLog::open(&path, "second").unwrap();
    // Neither written nor cut.
    log.written.lock().file = File::open(&path).unwrap();
    assert!(matches!(log.decide("three", &shards(&["east", "west"])), Decided::InDoubt(_)));
    assert_eq!(log.verdict("three"), Verdict::Leave);
    drop(log);
    assert_eq!(CommitLog::open(&path, "second").unwrap().verdict("three"), Verdict::RollBack);
}

#[test]
fn nobody_waits_for_the_disk_to_ask_what_is_known() {
    let (_dir, path) = written();
    let log = CommitLog::open(&path, "second").unwrap();
    let disk = log.written.lock();
    std::thread::scope(|scope| {
        let deciding = scope.spawn(|| decide(&log, "three"));
        assert_eq!((log.verdict("two"), log.verdict("one")), (Verdict::Commit, Verdict::RollBack));
        assert_eq!(log.open_transactions().len(), 1);
        assert!(!deciding.is_finished());
        drop(disk);
        deciding.join().unwrap();
    });
    assert_eq!(log.verdict("three"), Verdict::Commit);
    assert!(log.known.lock().doubtful.is_empty());
}

#[test]
fn one_process_has_it_open() {
    let (_dir, path) = written();
    let _log = CommitLog::open(&path, "second").unwrap();
    assert!(CommitLog::open(&path, "second").unwrap_err().to_string().contains("another process"));
}

#[test]
fn a_file_cut_anywhere_has_what_was_written_whole() {
    let (_dir, path) = written();
    let bytes = std::fs::read(&path).unwrap();
    let ends: Vec<usize> = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    for cut in 0..=bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let expected: &[&str] = [&[][..], &[], &["one"], &["one", "two"], &["two"]][whole];
        let log = CommitLog::open(&path, "first").unwrap();
        let open: Vec<String> = log.open_transactions().into_keys().collect();
        assert_eq!(open, expected, "cut at {cut}");
        // What is decided next stands where the torn line was.
        decide(&log, "three");
        drop(log);
        assert!(CommitLog::open(&path, "first").unwrap().open_transactions().contains_key("three"), "cut at {cut}");
    }
}

#[test]
fn a_damaged_line_in_the_middle_is_no_torn_end() {
    let (_dir, path) = written();
    let bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    let mut damaged = bytes.clone();
    damaged[middle] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let said = CommitLog::open(&path, "first").unwrap_err().to_string();
    assert!(said.contains("damaged at byte") && said.contains("identifiers with \":first:\""), "{said}");
    std::fs::write(&path, "something else\n".repeat(40)).unwrap();
    assert!(CommitLog::open(&path, "first").is_err());
    // As a loss of power may leave it.
    std::fs::write(&path, [&bytes[..], &[0; 100]].concat()).unwrap();
    assert_eq!(CommitLog::open(&path, "first").unwrap().open_transactions().len(), 1);
}

#[test]
fn ends_are_on_disk_before_a_decision_stands_behind_them() {
    let (_dir, path) = written();
    let log = CommitLog::open(&path, "second").unwrap();
    let ends = || log.written.lock().ends;
    log.committed("two", &shards(&["east", "west"]));
    assert_eq!(ends(), Ends::Written);
    decide(&log, "three");
    assert_eq!(ends(), Ends::Synced);
    // What could not be synced is written anew; where that cannot be, nothing is decided.
    log.written.lock().ends = Ends::Lost;
    let length = || std::fs::metadata(&path).unwrap().len();
    let long = length();
    decide(&log, "four");
    assert!(ends() == Ends::Synced && length() < long);
    log.written.lock().ends = Ends::Lost;
    log.known.lock().doubtful.insert("five".to_owned());
    assert!(matches!(log.decide("six", &shards(&["east", "west"])), Decided::Not(_)));
    drop(log);
    let open = CommitLog::open(&path, "second").unwrap().open_transactions();
    assert_eq!(open.into_keys().collect::<Vec<_>>(), ["four", "three"]);
}

#[test]
fn a_file_that_has_grown_is_written_anew_with_what_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("commits");
    let log = CommitLog::open(&path, "first").unwrap();
    decide(&log, "open");
    let long = "x".repeat(100_000);
    for n in 0..6 {
        let gid = format!("{n}{long}");
        decide(&log, &gid);
        log.committed(&gid, &shards(&["east", "west"]));
    }
    let grown = std::fs::metadata(&path).unwrap().len();
    assert!(grown < RENEW_AFTER + 250_000, "{grown}");
    decide(&log, "two");
    assert!(CommitLog::open(&path, "second").unwrap_err().to_string().contains("another process"));
    drop(log);
    let log = CommitLog::open(&path, "second").unwrap();
    assert_eq!(log.open_transactions().into_keys().collect::<Vec<_>>(), ["open", "two"]);
    assert_eq!(log.name(), "first");
}
