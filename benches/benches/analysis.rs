//! From a statement's text to its analysis: a shape that is in the cache, and one that PostgreSQL's parser has to read.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pgward_benches::{CHART, READ, analyser, config, with_literal};

fn analysis(criterion: &mut Criterion) {
    let config = config();
    let mut group = criterion.benchmark_group("analysis");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800)).sample_size(20);
    let mut rows = String::from("INSERT INTO encounters (patient_id, started_at, icd10) VALUES ");
    let row = format!("('{}', now(), 'E11.9')", pgward_benches::PATIENT);
    rows.push_str(&[row.as_str(); 20].join(", "));
    for (name, sql) in [
        ("patient read, parameter", READ.to_owned()),
        ("patient read, literal", with_literal(READ)),
        ("chart read, literal", with_literal(CHART)),
        ("insert of 20 rows", rows),
    ] {
        let warm = analyser(&config);
        warm.analyse(sql.as_bytes()).expect("the statement is well formed");
        group.bench_function(format!("cached/{name}"), |b| b.iter(|| warm.analyse(black_box(sql.as_bytes()))));
        group.bench_function(format!("cold/{name}"), |b| {
            b.iter_batched_ref(|| analyser(&config), |cold| cold.analyse(sql.as_bytes()), BatchSize::LargeInput)
        });
    }
}

criterion_group!(benches, analysis);
criterion_main!(benches);
