//! What the benches share: the reference deployment, the statements that are measured, and parameters for them.
//!
//! `cargo bench -p pgward-benches` takes about half a minute; each bench is one step of a statement's way through the
//! proxy. How the whole way compares with other proxies is for `make bench`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgward_config::{Config, Sources, parse_with};
use pgward_router::{Analyser, Catalog, DirectoryLookup, Entry, NodeView, Params, PatientKey, Views};

/// A patient, as literals carry it.
pub const PATIENT: &str = "018f4e9a-3c5d-7b21-9f60-5a2b1c3d4e5f";

/// The read of `benches/pgbench/patient_read.sql`, with a parameter.
pub const READ: &str =
    "SELECT id, mrn, family_name, given_name, birth_date, sex, critical FROM patients WHERE id = $1;";

/// The join of `benches/pgbench/chart_read.sql`, with a parameter.
pub const CHART: &str = "SELECT p.family_name, p.birth_date, e.started_at, e.icd10, m.name, m.dose FROM patients p \
     JOIN encounters e ON e.patient_id = p.id JOIN medications m ON m.patient_id = p.id WHERE p.id = $1;";

/// A statement with the patient put into the text, as the simple protocol sends it.
pub fn with_literal(statement: &str) -> String {
    statement.replace("$1", &format!("'{PATIENT}'"))
}

/// The configuration that ships.
pub fn config() -> Config {
    let env = |name: &str| Some(format!("value-of-{name}"));
    let file = |_: &Path| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    let sources = Sources { env: &env, file: &file, real: &Path::to_path_buf, salt: &|_| [7; 16] };
    let text = include_str!("../../pgward.toml");
    parse_with(text, Path::new("pgward.toml"), &sources).unwrap_or_else(|report| panic!("{report}")).config
}

/// An analyser for it, with nothing in its cache.
pub fn analyser(config: &Config) -> Analyser {
    Analyser::new(config, &Catalog::builtin())
}

/// Parameters of one declared type and format.
pub struct Values<'a> {
    /// Their bytes, `$1` first.
    pub values: &'a [&'a [u8]],
    /// Whether they are in binary format.
    pub binary: bool,
    /// Their type.
    pub oid: u32,
}

impl Params for Values<'_> {
    fn value(&self, n: u16) -> Option<Option<&[u8]>> {
        self.values.get(usize::from(n).checked_sub(1)?).map(|value| Some(*value))
    }
    fn binary(&self, _: u16) -> bool {
        self.binary
    }
    fn oid(&self, _: u16) -> u32 {
        self.oid
    }
}

/// A directory in which everybody lives in us-east.
pub struct AllInUsEast(Entry);

impl Default for AllInUsEast {
    fn default() -> Self {
        Self(Entry { region: pgward_config::PatientRegion::new(Arc::from("us-east")), epoch: 1 })
    }
}

impl DirectoryLookup for AllInUsEast {
    fn get(&self, _: &PatientKey) -> Option<Entry> {
        Some(self.0.clone())
    }
}

/// A primary and two replicas, all well.
pub fn views(_shard: usize) -> Views {
    let node = |connections, response_ms| NodeView {
        up: true,
        lag: Some(Duration::ZERO),
        connections,
        response_ms,
        cpu_percent: None,
    };
    Views::from_slice(&[node(9, 0.4), node(3, 0.3), node(4, 0.3)])
}
