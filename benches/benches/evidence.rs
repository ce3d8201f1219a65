//! From an analysis to the patients that a statement touches, wherever their keys stand.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use pgward_benches::{PATIENT, READ, Values, analyser, config, with_literal};
use pgward_router::{NoParams, Params};

/// `uuid` in pg_type.
const UUID: u32 = 2950;
const BINARY: [u8; 16] =
    [0x01, 0x8f, 0x4e, 0x9a, 0x3c, 0x5d, 0x7b, 0x21, 0x9f, 0x60, 0x5a, 0x2b, 0x1c, 0x3d, 0x4e, 0x5f];

fn evidence(criterion: &mut Criterion) {
    let analyser = analyser(&config());
    let mut group = criterion.benchmark_group("evidence");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800)).sample_size(20);
    let patients: Vec<String> = (0..20).map(|n| format!("'018f4e9a-3c5d-7b21-9f60-5a2b1c3d4e{n:02x}'")).collect();
    let list = format!("SELECT id, mrn FROM patients WHERE id IN ({})", patients.join(", "));
    let rows: Vec<String> = patients.iter().map(|id| format!("({id}, now(), 'E11.9')")).collect();
    let insert = format!("INSERT INTO encounters (patient_id, started_at, icd10) VALUES {}", rows.join(", "));
    let (literal, text, binary) = (with_literal(READ), [PATIENT.as_bytes()], [&BINARY[..]]);
    let cases: [(&str, &str, &dyn Params); 5] = [
        ("literal", &literal, &NoParams),
        ("parameter, text", READ, &Values { values: &text, binary: false, oid: 0 }),
        ("parameter, binary", READ, &Values { values: &binary, binary: true, oid: UUID }),
        ("IN list of 20", &list, &NoParams),
        ("INSERT of 20 rows", &insert, &NoParams),
    ];
    for (name, sql, params) in cases {
        let analysed = analyser.analyse(sql.as_bytes()).expect("the statement is well formed");
        let read = || analyser.evidence(&analysed, 0, black_box(sql.as_bytes()), params);
        assert!(read().is_ok_and(|evidence| !evidence.mentions.is_empty()), "{name}");
        group.bench_function(name, |b| b.iter(read));
    }
}

criterion_group!(benches, evidence);
criterion_main!(benches);
