//! Reading a log back: strict, for tests, verifiers and the continuation of a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

/// All records of one file, in order. Every line must be a JSON object with a number one above the line before it,
/// and the last one must be complete.
///
/// # Errors
/// The file cannot be read, or a line breaks these rules; the error names the line.
pub fn records(path: &Path) -> io::Result<Vec<Value>> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut records = Vec::new();
    let mut line = Vec::new();
    let mut last = None;
    while reader.read_until(b'\n', &mut line)? > 0 {
        let broken = |what: &str| {
            let place = format!("{}:{}: {what}", path.display(), records.len() + 1);
            io::Error::new(io::ErrorKind::InvalidData, place)
        };
        let whole = line.strip_suffix(b"\n").ok_or_else(|| broken("the last line is torn"))?;
        let record: Value = serde_json::from_slice(whole).map_err(|error| broken(&error.to_string()))?;
        let seq = record["seq"].as_u64().ok_or_else(|| broken("no seq"))?;
        if let Some(last) = last
            && seq != last + 1
        {
            return Err(broken(&format!("seq {seq} follows {last}")));
        }
        last = Some(seq);
        records.push(record);
        line.clear();
    }
    Ok(records)
}

/// The sequence number of one line, `None` if it is not a record.
pub(crate) fn seq(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(line).ok()?["seq"].as_u64()
}
