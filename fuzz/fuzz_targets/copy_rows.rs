//! Rows of a COPY into a patient table: however they are cut, the same bytes are released and the same patients found.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_fuzz::copies;
use pgward_router::{CopyRows, Refusal};

const MAX_ROW: usize = 200;

/// Released bytes, rows and patients of rows that come in pieces of this size.
fn cut(copy: usize, data: &[u8], size: usize) -> Result<(usize, u64, Vec<String>), Refusal> {
    let (copy, key_type) = copies(copy);
    let mut cutter = CopyRows::new(&copy, key_type, MAX_ROW)?;
    let (mut released, mut rows, mut patients) = (0, 0, Vec::new());
    let mut fed = 0;
    let mut take = |part: pgward_router::Rows, fed: usize| {
        released += part.release;
        assert!(released <= fed, "more is released than was fed");
        rows += part.rows;
        patients.extend(part.evidence.mentions.iter().map(|mention| format!("{:?} {:?}", mention.key, mention.region)));
    };
    for chunk in data.chunks(size) {
        fed += chunk.len();
        take(cutter.feed(chunk)?, fed);
    }
    take(cutter.finish()?, fed);
    patients.sort();
    patients.dedup();
    Ok((released, rows, patients))
}

fuzz_target!(|data: &[u8]| {
    let [choice, size, data @ ..] = data else { return };
    let copy = usize::from(*choice);
    let whole = cut(copy, data, data.len().max(1));
    let parts = cut(copy, data, usize::from(*size).max(1));
    // A row that is too long is seen earlier in parts; patients of one row must agree.
    if let (Ok(whole), Ok(parts)) = (&whole, &parts) {
        assert_eq!(whole, parts);
        assert_eq!(whole.0, data.len(), "the end leaves nothing");
    } else if data.len() <= MAX_ROW {
        assert_eq!(whole.is_ok(), parts.is_ok(), "{whole:?} {parts:?}");
    }
});
