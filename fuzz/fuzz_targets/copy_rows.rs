//! Rows of a COPY into a patient table: however they are cut, the same bytes are released and the same patients found.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use pgward_fuzz::copies;
use pgward_router::{CopyRows, PatientKey, Refusal, RefusalKind};

const MAX_ROW: usize = 200;

/// What rows come to: released bytes, rows, and patients with the regions that they carry.
type Found = (usize, u64, HashMap<PatientKey, Option<String>>);

/// What rows come to that come in pieces of this size.
fn cut(copy: usize, data: &[u8], size: usize) -> Result<Found, Refusal> {
    let (copy, key_type) = copies(copy);
    let mut cutter = CopyRows::new(&copy, key_type, MAX_ROW)?;
    let mut found = Found::default();
    let mut fed = 0;
    for chunk in data.chunks(size) {
        fed += chunk.len();
        add(&mut found, cutter.feed(chunk)?, fed)?;
    }
    add(&mut found, cutter.finish()?, fed)?;
    Ok(found)
}

fn add((released, rows, patients): &mut Found, part: pgward_router::Rows, fed: usize) -> Result<(), Refusal> {
    *released += part.release;
    assert_eq!(part.pieces.iter().map(|piece| piece.length).sum::<usize>(), part.release, "all of it has an owner");
    assert!(*released <= fed, "more is released than was fed");
    *rows += part.rows;
    for mention in part.evidence.mentions {
        let region = mention.region.map(|region| format!("{region:?}"));
        let first = patients.entry(mention.key).or_default();
        // By the next part, the first region stands in the directory, and is compared with there.
        if first.is_some() && region.is_some() && *first != region {
            return Err(Refusal::new(RefusalKind::RegionContradiction, "another region than in a part before"));
        }
        *first = first.take().or(region);
    }
    Ok(())
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
