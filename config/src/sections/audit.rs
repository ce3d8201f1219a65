//! `[audit]`: where the record of every decision goes.

use std::path::Path;

use crate::model::{Audit, AuditPolicy};
use crate::problem::Problem;
use crate::reader::Reader;
use crate::sources::{Sources, hmac_key, own_file};

const POLICIES: [(&str, AuditPolicy); 3] =
    [("buffered", AuditPolicy::Buffered), ("written", AuditPolicy::Written), ("synced", AuditPolicy::Synced)];
/// About two million records: a file that tools still open.
const ROTATE_BYTES: u64 = 1 << 30;
/// A file that is rotated more often than this is a mistake of units.
const ROTATE_BYTES_LEAST: u64 = 4 << 10;
/// About thirty thousand emergency records: ten minutes at 50 000 emergency requests a minute would not fit anywhere,
/// a full disk is noticed within one.
const SPOOL_BYTES: u64 = 16 << 20;
const SPOOL_BYTES_LEAST: u64 = 4 << 10;

pub(crate) fn audit(root: &Reader<'_>, toml: &Path, sources: &Sources<'_>) -> Option<Audit> {
    let reader = root.section("audit");
    if !reader.is_present() {
        root.missing("audit", "a table [audit] with `path` and `key`: nothing is served without a record");
        return None;
    }
    // Survives a kill of the proxy at the price of one write(2).
    let policy = reader.word("policy", &POLICIES).unwrap_or(AuditPolicy::Written);
    if policy == AuditPolicy::Buffered {
        reader.push(
            Problem::warning(reader.at("policy"), "statements are forwarded before their record is in the file")
                .label("a kill of the proxy loses the records that were not written yet"),
        );
    }
    let never = reader.value("rotate_bytes").and_then(|value| value.get_ref().as_str()) == Some("never");
    let audit = Audit {
        path: own_file(&reader, "path", toml, "the path of the file of records"),
        policy,
        key: hmac_key(&reader, "key", toml, sources),
        rotate_bytes: if never { None } else { Some(reader.size_or("rotate_bytes", ROTATE_BYTES_LEAST, ROTATE_BYTES)) },
        spool_bytes: usize::try_from(reader.size_or("spool_bytes", SPOOL_BYTES_LEAST, SPOOL_BYTES))
            .unwrap_or(usize::MAX),
    };
    reader.finish();
    Some(audit)
}
