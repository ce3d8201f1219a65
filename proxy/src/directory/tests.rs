#![allow(clippy::unwrap_used)]
//! What a directory promises across restarts, kills, wrong keys and damaged files.

use std::os::unix::fs::PermissionsExt;

use super::log::RECORD;
use super::*;

const SECRET: &[u8] = b"directory secret";

fn key(n: i64) -> PatientKey {
    PatientKey::Bigint(n)
}

fn patients(numbers: std::ops::Range<i64>, region: &str) -> Vec<(PatientKey, PatientRegion)> {
    numbers.map(|n| (key(n), PatientRegion::new(region))).collect()
}

fn region_of(directory: &EmbeddedDirectory, n: i64) -> Option<String> {
    directory.get(&key(n)).map(|entry| entry.region.to_string())
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("patients.dir");
    (folder, path)
}

#[test]
fn what_was_registered_is_there_after_a_restart() {
    let (_folder, path) = file();
    let directory = EmbeddedDirectory::open(&path, SECRET).unwrap();
    assert_eq!(directory.register(&patients(0..100, "us-east")).unwrap(), 100);
    assert_eq!(directory.register(&patients(50..150, "us-east")).unwrap(), 50);
    assert_eq!(directory.register(&patients(200..210, &"r".repeat(REGION_NAME_MAX))).unwrap(), 10);
    drop(directory);
    let directory = EmbeddedDirectory::open(&path, SECRET).unwrap();
    assert_eq!((directory.len(), directory.torn_bytes()), (160, 0));
    assert_eq!(region_of(&directory, 149).unwrap(), "us-east");
    assert_eq!(region_of(&directory, 205).unwrap(), "r".repeat(REGION_NAME_MAX));
    assert_eq!(region_of(&directory, 150), None);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_file_holds_no_key_in_clear() {
    let (_folder, path) = file();
    let directory = EmbeddedDirectory::open(&path, SECRET).unwrap();
    let patient = PatientKey::Text((*b"MRN-1234567").into());
    directory.register(&[(patient, PatientRegion::new("us-east"))]).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"1234567"));
}

#[test]
fn a_contradiction_registers_nobody() {
    let (_folder, path) = file();
    let directory = EmbeddedDirectory::open(&path, SECRET).unwrap();
    directory.register(&patients(1..2, "us-east")).unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    let mut mixed = patients(5..6, "eu-west");
    mixed.extend(patients(1..2, "eu-west"));
    assert!(matches!(directory.register(&mixed), Err(RegisterError::Contradiction { .. })));
    let mut twice = patients(7..8, "eu-west");
    twice.extend(patients(7..8, "us-east"));
    assert!(matches!(directory.register(&twice), Err(RegisterError::Contradiction { .. })));
    assert_eq!((directory.len(), region_of(&directory, 5), region_of(&directory, 7)), (1, None, None));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), length);
}

#[test]
fn one_process_writes_and_others_read() {
    let (_folder, path) = file();
    let directory = EmbeddedDirectory::open(&path, SECRET).unwrap();
    directory.register(&patients(1..4, "us-east")).unwrap();
    assert!(matches!(EmbeddedDirectory::open(&path, SECRET), Err(DirectoryError::Locked { .. })));
    let reader = EmbeddedDirectory::open_read_only(&path, SECRET).unwrap();
    assert_eq!(reader.len(), 3);
    assert!(matches!(reader.register(&patients(9..10, "us-east")), Err(RegisterError::Io(_))));
    assert_eq!(directory.register(&patients(9..10, "us-east")).unwrap(), 1);
}

#[test]
fn a_torn_tail_is_cut_off_and_reported() {
    let (_folder, path) = file();
    let whole = {
        let directory = EmbeddedDirectory::open(&path, SECRET).unwrap();
        directory.register(&patients(0..10, "us-east")).unwrap();
        drop(directory);
        std::fs::read(&path).unwrap()
    };
    for cut in [1, RECORD - 1, RECORD + 5] {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let lost = cut.div_ceil(RECORD);
        let directory = EmbeddedDirectory::open(&path, SECRET).unwrap();
        assert_eq!(directory.len(), 10 - lost);
        assert_eq!(directory.torn_bytes() as usize, (RECORD - cut % RECORD) % RECORD);
        assert_eq!(directory.register(&patients(0..10, "us-east")).unwrap(), lost);
        drop(directory);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn a_creation_that_was_cut_short_is_finished() {
    let (_folder, path) = file();
    std::fs::write(&path, &log::header(SECRET)[..20]).unwrap();
    assert!(EmbeddedDirectory::open(&path, SECRET).unwrap().is_empty());
}

#[test]
fn wrong_keys_foreign_files_and_damage_are_errors_and_change_nothing() {
    let (_folder, path) = file();
    let directory = EmbeddedDirectory::open(&path, SECRET).unwrap();
    directory.register(&patients(0..10, "us-east")).unwrap();
    assert!(directory.is(&path, SECRET) && !directory.is(&path, b"other"));
    drop(directory);
    assert!(matches!(EmbeddedDirectory::open(&path, b"other"), Err(DirectoryError::WrongKey { .. })));
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[HEADER + 2 * RECORD + 7] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let offset = (HEADER + 2 * RECORD) as u64;
    let opened = EmbeddedDirectory::open(&path, SECRET).map(|_| ());
    assert!(matches!(opened, Err(DirectoryError::Damaged { offset: at, .. }) if at == offset));
    assert_eq!(std::fs::read(&path).unwrap(), damaged);
    for foreign in ["[proxy]\n", &"not a directory at all ".repeat(10)] {
        std::fs::write(&path, foreign).unwrap();
        assert!(matches!(EmbeddedDirectory::open(&path, SECRET), Err(DirectoryError::Foreign { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), foreign);
    }
}

#[test]
fn many_sessions_register_and_look_up_at_once() {
    let (_folder, path) = file();
    let directory = EmbeddedDirectory::open(&path, SECRET).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..200 {
                    directory.register(&patients(n..n + 1, "us-east")).unwrap();
                    assert_eq!(region_of(&directory, n).unwrap(), "us-east");
                }
            });
        }
    });
    assert_eq!(directory.len(), 200);
    drop(directory);
    assert_eq!(EmbeddedDirectory::open(&path, SECRET).unwrap().len(), 200);
}
