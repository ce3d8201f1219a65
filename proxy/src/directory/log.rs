//! The directory's file: a header, then records of 32 bytes that are only ever appended.
//!
//! A record is whole or it is not there: each ends in a checksum that is seeded with the record's own offset, so that
//! bytes that are torn, altered or moved do not pass for a record. Region names are written once and then referred to
//! by number, so that a patient takes 32 bytes whatever the regions are called.
//!
//! ```text
//! header  "PGWARDDR"  version u32  record size u32  key check [16]  zeros [24]  checksum u64     64 bytes
//! record  kind u8  extra u8  region u16  payload [24]  checksum u32                              32 bytes
//!         kind 1, patient: payload = epoch u64, first 16 bytes of the patient's keyed hash
//!         kind 2, part of a region's name: extra = length in this part, 0x80 added if more parts follow
//! ```
//! Numbers are little endian.

use std::io::{self, Read};

use pgward_config::PatientRegion;
use ring::hmac;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Length of the header.
pub(super) const HEADER: usize = 64;
/// Length of a record.
pub(super) const RECORD: usize = 32;
/// A region name is at most this long.
pub(super) const REGION_NAME_MAX: usize = 240;
/// Damage at the end of the file up to this size counts as a torn write; more needs a human. A second of registrations
/// between two syncs is far less.
const TORN_MAX: u64 = 1024 * 1024;

const MAGIC: &[u8; 8] = b"PGWARDDR";
const VERSION: u32 = 1;
const PATIENT: u8 = 1;
const REGION: u8 = 2;
const MORE: u8 = 0x80;
const PART: usize = 24;

/// A patient as the file and the map hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// First 16 bytes of the keyed hash.
    pub(super) hash: [u8; 16],
    /// Number of the region.
    pub(super) region: u16,
    /// Epoch of the entry.
    pub(super) epoch: u64,
}

/// What is wrong with a file.
#[derive(Debug)]
pub(super) enum Damage {
    /// Not a directory of PgWard.
    Foreign,
    /// Of another version.
    Version(u32),
    /// Written with another key.
    WrongKey,
    /// A damaged record at this offset, with good ones behind it.
    Record(u64),
}

/// The header for this key.
pub(super) fn header(secret: &[u8]) -> [u8; HEADER] {
    let check = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"pgward directory, key check");
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(RECORD as u32).to_le_bytes());
    header[16..32].copy_from_slice(&check.as_ref()[..16]);
    let sum = xxh3_64(&header[..56]);
    header[56..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// Compares a file's header with the one that it should have.
pub(super) fn check_header(found: &[u8; HEADER], expected: &[u8; HEADER]) -> Result<(), Damage> {
    if found == expected {
        return Ok(());
    }
    if &found[..8] != MAGIC {
        return Err(Damage::Foreign);
    }
    let version = u32::from_le_bytes([found[8], found[9], found[10], found[11]]);
    if version != VERSION {
        return Err(Damage::Version(version));
    }
    let sum = xxh3_64(&found[..56]).to_le_bytes();
    Err(if found[56..] == sum { Damage::WrongKey } else { Damage::Record(0) })
}

/// True if these first bytes of a file, fewer than a header, may be a header whose writing was cut short.
pub(super) fn torn_header(found: &[u8], expected: &[u8; HEADER]) -> bool {
    found.len() < HEADER && expected.starts_with(found)
}

/// Appends a patient's record to bytes that will be written at `base`.
pub(super) fn put_patient(out: &mut Vec<u8>, base: u64, row: &Row) {
    let mut payload = [0; PART];
    payload[..8].copy_from_slice(&row.epoch.to_le_bytes());
    payload[8..].copy_from_slice(&row.hash);
    put(out, base, PATIENT, 0, row.region, payload);
}

/// Appends the records that name a region to bytes that will be written at `base`.
pub(super) fn put_region(out: &mut Vec<u8>, base: u64, number: u16, name: &str) {
    let mut parts = name.as_bytes().chunks(PART).peekable();
    while let Some(part) = parts.next() {
        let mut payload = [0; PART];
        payload[..part.len()].copy_from_slice(part);
        let more = if parts.peek().is_some() { MORE } else { 0 };
        put(out, base, REGION, part.len() as u8 | more, number, payload);
    }
}

fn put(out: &mut Vec<u8>, base: u64, kind: u8, extra: u8, region: u16, payload: [u8; PART]) {
    let start = out.len();
    out.extend_from_slice(&[kind, extra]);
    out.extend_from_slice(&region.to_le_bytes());
    out.extend_from_slice(&payload);
    let sum = checksum(&out[start..], base + start as u64);
    out.extend_from_slice(&sum);
}

fn checksum(bytes: &[u8], offset: u64) -> [u8; 4] {
    (xxh3_64_with_seed(bytes, offset) as u32).to_le_bytes()
}

/// A record as read.
enum Record {
    Patient(Row),
    RegionPart { number: u16, part: [u8; PART], length: usize, more: bool },
}

fn read(bytes: &[u8; RECORD], offset: u64) -> Option<Record> {
    if bytes[28..] != checksum(&bytes[..28], offset) {
        return None;
    }
    let region = u16::from_le_bytes([bytes[2], bytes[3]]);
    let mut payload = [0; PART];
    payload.copy_from_slice(&bytes[4..28]);
    match (bytes[0], bytes[1]) {
        (PATIENT, 0) => {
            let mut epoch = [0; 8];
            epoch.copy_from_slice(&payload[..8]);
            let mut hash = [0; 16];
            hash.copy_from_slice(&payload[8..]);
            Some(Record::Patient(Row { hash, region, epoch: u64::from_le_bytes(epoch) }))
        }
        (REGION, extra) => {
            let length = usize::from(extra & !MORE);
            (1..=PART).contains(&length).then_some(Record::RegionPart {
                number: region,
                part: payload,
                length,
                more: extra & MORE != 0,
            })
        }
        _ => None,
    }
}

/// What a file's records said.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// Region names by number.
    pub(super) regions: Vec<PatientRegion>,
    /// End of the last good record: where the next one goes.
    pub(super) end: u64,
    /// Bytes behind it that a torn write left.
    pub(super) torn: u64,
}

/// Reads all records behind the header, handing each patient on; `put` answers false for one that cannot be.
pub(super) fn replay(mut input: impl Read, mut put: impl FnMut(Row) -> bool) -> io::Result<Result<Replayed, Damage>> {
    let mut replayed = Replayed { end: HEADER as u64, ..Replayed::default() };
    let mut offset = replayed.end;
    let mut name = Vec::new();
    let mut record = [0; RECORD];
    loop {
        let length = read_up_to(&mut input, &mut record)?;
        if length == 0 && offset == replayed.end {
            return Ok(Ok(replayed));
        }
        let good = if length == RECORD { read(&record, offset) } else { None };
        let accepted = match good {
            None => return torn(input, length, offset, replayed),
            Some(Record::Patient(row)) => {
                name.is_empty() && usize::from(row.region) < replayed.regions.len() && put(row)
            }
            Some(Record::RegionPart { number, part, length, more }) => {
                name.extend_from_slice(&part[..length]);
                let expected = usize::from(number) == replayed.regions.len() && name.len() <= REGION_NAME_MAX;
                if more {
                    offset += RECORD as u64;
                    if expected {
                        // Not yet whole: `end` stays in front of the first part.
                        continue;
                    }
                }
                let text = String::from_utf8(std::mem::take(&mut name)).ok().filter(|_| expected);
                text.map(|text| replayed.regions.push(PatientRegion::new(text))).is_some()
            }
        };
        if !accepted {
            return Ok(Err(Damage::Record(offset)));
        }
        offset += RECORD as u64;
        replayed.end = offset;
    }
}

/// From the first bad record on: a torn tail if it is short and nothing good follows, else damage.
fn torn(
    mut input: impl Read,
    length: usize,
    offset: u64,
    mut replayed: Replayed,
) -> io::Result<Result<Replayed, Damage>> {
    let mut last = length as u64;
    let mut record = [0; RECORD];
    let mut at = offset;
    loop {
        replayed.torn = at + last - replayed.end;
        let next = read_up_to(&mut input, &mut record)?;
        if next == 0 {
            return Ok(Ok(replayed));
        }
        at += RECORD as u64;
        last = next as u64;
        if replayed.torn > TORN_MAX || (next == RECORD && read(&record, at).is_some()) {
            return Ok(Err(Damage::Record(offset)));
        }
    }
}

/// Fills the buffer unless the input ends before.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn row(n: u8, region: u16) -> Row {
        Row { hash: [n; 16], region, epoch: 1 }
    }

    /// Two regions (the second with a name of three parts) and three patients, without the header.
    fn records() -> Vec<u8> {
        let mut out = Vec::new();
        let base = HEADER as u64;
        put_region(&mut out, base, 0, "us-east");
        put_patient(&mut out, base, &row(1, 0));
        put_region(&mut out, base, 1, &"long".repeat(15));
        put_patient(&mut out, base, &row(2, 1));
        put_patient(&mut out, base, &row(3, 1));
        out
    }

    fn replay_bytes(bytes: &[u8]) -> (Vec<Row>, Result<Replayed, Damage>) {
        let mut rows = Vec::new();
        let replayed = replay(bytes, |row| {
            rows.push(row);
            true
        });
        (rows, replayed.unwrap())
    }

    #[test]
    fn what_was_put_is_replayed() {
        let bytes = records();
        let (rows, replayed) = replay_bytes(&bytes);
        let replayed = replayed.unwrap();
        assert_eq!(rows, [row(1, 0), row(2, 1), row(3, 1)]);
        assert_eq!(replayed.regions, [PatientRegion::new("us-east"), PatientRegion::new("long".repeat(15))]);
        assert_eq!((replayed.end, replayed.torn), ((HEADER + bytes.len()) as u64, 0));
    }

    #[test]
    fn a_file_cut_anywhere_keeps_its_whole_records() {
        let bytes = records();
        for cut in 0..bytes.len() {
            let (rows, replayed) = replay_bytes(&bytes[..cut]);
            let replayed = replayed.unwrap();
            let whole = cut / RECORD;
            let patients = [0, 0, 1, 1, 1, 1, 2][whole];
            assert_eq!(rows.len(), patients, "cut at {cut}");
            assert_eq!(replayed.end + replayed.torn, (HEADER + cut) as u64, "cut at {cut}");
            // Never the middle of a region's name.
            assert!(!matches!((replayed.end as usize - HEADER) / RECORD, 3 | 4), "cut at {cut}");
        }
    }

    #[test]
    fn an_altered_byte_is_damage_or_a_torn_tail() {
        let bytes = records();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 0x10;
            let (_, replayed) = replay_bytes(&altered);
            if at / RECORD == bytes.len() / RECORD - 1 {
                assert_eq!(replayed.unwrap().torn, RECORD as u64, "byte {at}");
            } else {
                assert!(matches!(replayed, Err(Damage::Record(_))), "byte {at}");
            }
        }
    }

    #[test]
    fn zeros_at_the_end_are_torn_unless_they_are_many() {
        let mut bytes = records();
        bytes.resize(bytes.len() + 4096, 0);
        assert_eq!(replay_bytes(&bytes).1.unwrap().torn, 4096);
        bytes.resize(bytes.len() + TORN_MAX as usize, 0);
        assert!(matches!(replay_bytes(&bytes).1, Err(Damage::Record(_))));
    }

    #[test]
    fn headers_tell_foreign_version_key_and_damage() {
        let good = header(b"key");
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            bytes
        };
        assert!(check_header(&good, &good).is_ok());
        assert!(matches!(check_header(&with(0, b'X'), &good), Err(Damage::Foreign)));
        assert!(matches!(check_header(&with(8, 9), &good), Err(Damage::Version(9))));
        assert!(matches!(check_header(&with(40, 1), &good), Err(Damage::Record(0))));
        assert!(matches!(check_header(&header(b"other"), &good), Err(Damage::WrongKey)));
    }
}
