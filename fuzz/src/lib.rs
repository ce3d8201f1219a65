//! What the targets have in common: the reference deployment's tables, and parameters from a target's bytes.

pub mod scanner;
use std::path::Path;
use std::sync::Arc;

use pgward_config::{Config, KeyType};
use pgward_router::{Action, Analyser, Catalog, CopyFrom, Params};

/// The reference deployment.
pub fn config() -> Config {
    let text = include_str!("../../pgward.toml");
    let secret = |_: &str| Some("0123456789abcdef0123456789abcdef".to_owned());
    match pgward_config::parse(text, Path::new("pgward.toml"), &secret) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("the reference configuration has a mistake: {}", report.render(false)),
    }
}

/// An analyser with the reference deployment's tables and an empty cache.
pub fn analyser() -> Analyser {
    let mut catalog = Catalog::builtin();
    catalog.set_columns("public.patients", vec![(Arc::from("id"), 20), (Arc::from("home_region"), 25)]);
    Analyser::new(&config(), &catalog)
}

/// The nth of some COPY statements into a patient table.
pub fn copies(n: usize) -> (CopyFrom, KeyType) {
    const COPIES: [&str; 10] = [
        "COPY patients (id, home_region) FROM STDIN",
        "COPY patients (home_region, id, name) FROM STDIN (DELIMITER '|', NULL 'x', HEADER)",
        "COPY patients (name, id) FROM STDIN (FORMAT csv)",
        "COPY patients (id) FROM STDIN (FORMAT csv, HEADER)",
        "COPY patients (id) FROM STDIN",
        "COPY patients (name, home_region, id) FROM STDIN (FORMAT csv, QUOTE '''', ESCAPE '\\', DELIMITER ';')",
        "COPY patients (name, id) FROM STDIN (FORMAT csv, NULL '\\N')",
        "COPY patients FROM STDIN",
        "COPY patients (name, id) FROM STDIN (FORMAT binary)",
        "COPY patients FROM STDIN BINARY",
    ];
    thread_local! {
        static ANALYSER: Analyser = analyser();
    }
    ANALYSER.with(|analyser| {
        let analysed = analyser.analyse(COPIES[n % COPIES.len()].as_bytes()).expect("the statement is well formed");
        match &analysed.shape.statements[0].action {
            Action::CopyFrom(copy) => (CopyFrom::clone(copy), analyser.key_type()),
            other => panic!("not a COPY: {other:?}"),
        }
    })
}

/// Parameters: each a byte for its type and format, a byte for its length (255: NULL), and as many bytes.
pub struct Values(Vec<(u8, Option<Vec<u8>>)>);

impl Values {
    /// Cuts parameters from bytes.
    pub fn new(mut bytes: &[u8]) -> Self {
        let mut values = Vec::new();
        while let [form, len, rest @ ..] = bytes {
            let (value, rest) = rest.split_at(if *len == 255 { 0 } else { usize::from(*len).min(rest.len()) });
            values.push((*form, (*len != 255).then(|| value.to_vec())));
            bytes = rest;
        }
        Self(values)
    }

    fn at(&self, n: u16) -> Option<&(u8, Option<Vec<u8>>)> {
        usize::from(n).checked_sub(1).and_then(|n| self.0.get(n))
    }
}

impl Params for Values {
    fn value(&self, n: u16) -> Option<Option<&[u8]>> {
        self.at(n).map(|(_, value)| value.as_deref())
    }
    fn binary(&self, n: u16) -> bool {
        self.at(n).is_some_and(|(form, _)| form % 2 == 1)
    }
    fn oid(&self, n: u16) -> u32 {
        // Open, then bigint, integer, smallint, text, uuid, bigint[], text[].
        const TYPES: [u32; 8] = [0, 20, 23, 21, 25, 2950, 1016, 1009];
        self.at(n).map_or(0, |(form, _)| TYPES[usize::from(form / 2) % TYPES.len()])
    }
}
