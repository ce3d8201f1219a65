//! From evidence to a node: the permit, the shard, the pool, and the best replica.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use pgward_benches::{AllInUsEast, PATIENT, READ, Values, analyser, config, views};
use pgward_config::Class;
use pgward_router::{Ask, Facts, Router, Transaction};

fn decision(criterion: &mut Criterion) {
    let config = config();
    let (analyser, router, directory) = (analyser(&config), Router::new(&config), AllInUsEast::default());
    let mut group = criterion.benchmark_group("decision");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800)).sample_size(20);
    let values = [PATIENT.as_bytes()];
    let params = Values { values: &values, binary: false, oid: 0 };
    let update = "UPDATE patients SET critical = NOT critical, updated_at = now() WHERE id = $1;";
    for (name, sql, class) in
        [("read", READ, Class::Normal), ("write", update, Class::Normal), ("emergency", READ, Class::Emergency)]
    {
        let facts =
            Facts { listener: &config.listeners[0], user: &config.users[0], class, transaction: Transaction::None };
        let analysed = analyser.analyse(sql.as_bytes()).expect("the statement is well formed");
        let evidence = analyser.evidence(&analysed, 0, sql.as_bytes(), &params).expect("it names a patient");
        let located = [router.locate(&evidence.mentions[0].key, &directory)];
        let ask = Ask::new(&analysed.shape.statements[0], &evidence, &located);
        let decide = || router.decide_all(black_box(&facts), &[ask], &views, &[]);
        assert!(decide().is_ok(), "{name}");
        group.bench_function(name, |b| b.iter(decide));
    }
    let evidence = |sql: &str| analyser.analyse(sql.as_bytes());
    let whole = |sql: &str| {
        let analysed = evidence(sql).expect("the statement is well formed");
        let seen = analyser.evidence(&analysed, 0, sql.as_bytes(), &params).expect("it names a patient");
        let located = [router.locate(&seen.mentions[0].key, &directory)];
        let facts = Facts {
            listener: &config.listeners[0],
            user: &config.users[0],
            class: Class::Normal,
            transaction: Transaction::None,
        };
        router.decide_all(&facts, &[Ask::new(&analysed.shape.statements[0], &seen, &located)], &views, &[])
    };
    group.bench_function("text to target, cached shape", |b| b.iter(|| whole(black_box(READ))));
}

criterion_group!(benches, decision);
criterion_main!(benches);
