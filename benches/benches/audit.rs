//! One record of a decision into the audit log: encoding it, and for policy `written` the write(2) too.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use pgward_audit::{AuditLog, Candidate, NodeName, Outcome, Place, Record, Who};
use pgward_config::{AuditPolicy, Class, PoolKind};

fn audit(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let who = Who::new(7, "ehr_app", "10.1.2.3:50123", "us-east", "us-east-1");
    let patients = [*b"5bdcc146bf60754e6a042426089575c7"];
    let nodes = ["us-east-patients/replica-1", "us-east-patients/replica-2"]
        .map(|node| NodeName::new("us-east-patients", node));
    let candidate = |node, score| Candidate { node, score, passed_over: None };
    let record = Record {
        who: &who,
        role: None,
        transaction: false,
        kind: "read",
        class: Class::Normal,
        fingerprint: "9a3c5d7b219f605a",
        patients: &patients,
        evidence: &[Place::Param(1)],
        home: Some("us-east"),
        target: Some((&nodes[0], PoolKind::ReadOnly)),
        candidates: &[candidate(&nodes[0], 1.5), candidate(&nodes[1], 2.25)],
        outcome: Outcome::Forwarded { reason: "best replica", permit: "home region" },
        decision_time: Duration::from_nanos(1234),
        config: "0123456789abcdef",
    };
    let mut group = criterion.benchmark_group("audit");
    // Short: the file grows by 700 MB a second.
    group.warm_up_time(Duration::from_millis(20)).measurement_time(Duration::from_millis(150)).sample_size(10);
    for (name, policy) in [("buffered", AuditPolicy::Buffered), ("written", AuditPolicy::Written)] {
        let mut config = pgward_benches::config().audit;
        (config.path, config.policy) = (folder.path().join(name), policy);
        let log = AuditLog::open(&config, "bench").expect("the log opens in a temporary folder");
        let now = SystemTime::now();
        group.bench_function(name, |b| b.iter(|| log.append(black_box(&record), now)));
    }
}

criterion_group!(benches, audit);
criterion_main!(benches);
