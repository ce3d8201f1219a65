//! `[directory]`: where a patient's region is looked up.

use std::path::Path;

use crate::model::{Directory, Strategy};
use crate::problem::Problem;
use crate::reader::Reader;
use crate::sources::{Sources, hmac_key, own_file};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Embedded,
    Hash,
}

const KINDS: [(&str, Kind); 2] = [("embedded", Kind::Embedded), ("hash", Kind::Hash)];

pub(crate) fn directory(root: &Reader<'_>, strategy: Strategy, toml: &Path, sources: &Sources<'_>) -> Directory {
    let reader = root.section("directory");
    let fitting = match strategy {
        Strategy::PatientRegion => Kind::Embedded,
        Strategy::Hash => Kind::Hash,
    };
    if !reader.is_present() && fitting == Kind::Embedded {
        root.missing("directory", "a table [directory] with `path` and `key`, where patients' regions are kept");
        return Directory::Hash;
    }
    let kind = reader.word("kind", &KINDS).unwrap_or(fitting);
    if kind != fitting {
        let (word, other) = match strategy {
            Strategy::PatientRegion => ("patient_region", "embedded"),
            Strategy::Hash => ("hash", "hash"),
        };
        reader.push(
            Problem::error(reader.at("kind"), format!("the directory does not fit the strategy `{word}`"))
                .label(format!("expected \"{other}\""))
                .help("strategy `patient_region` needs a directory of patients; strategy `hash` has none"),
        );
    }
    let directory = match kind {
        Kind::Embedded => Directory::Embedded {
            path: own_file(&reader, "path", toml, "the path of the directory's file"),
            key: hmac_key(&reader, "key", toml, sources),
        },
        Kind::Hash => {
            for key in ["path", "key"] {
                if reader.value(key).is_some() {
                    reader.conceal("key");
                    reader.push(
                        Problem::error(reader.at(key), format!("`{key}` has no meaning for a hash directory"))
                            .label("nothing is stored: the hash of a key is its place"),
                    );
                }
            }
            Directory::Hash
        }
    };
    reader.finish();
    directory
}
