#![allow(clippy::unwrap_used)]
//! What people read: the table and the JSON of a decision and of a refusal.

use super::*;

fn explanation(outcome: Outcome) -> Explanation {
    let patient = |hash: &str, seen: &str, shard: Option<&str>| Patient {
        hash: hash.into(),
        seen: seen.into(),
        known: shard.is_some(),
        region: shard.map(|_| "us-east".into()),
        shard: shard.map(Into::into),
        epoch: shard.map(|_| 1),
        registered: false,
    };
    Explanation {
        user: "ward".into(),
        listener: "main".into(),
        origin: "us-east-1".into(),
        class: "normal",
        transaction: "none",
        fingerprint: Some("f1f2".into()),
        statements: vec![Explained {
            kind: Some("read"),
            reads_only: true,
            tables: vec![Table { name: "public.patients".into(), kind: "patient", written: false }],
            patients: vec![
                patient("aaaa", "$1", Some("us-east-patients")),
                patient("bbbb", "literal at character 34", None),
            ],
            home: Some("us-east".into()),
            permit: Some("home region".into()),
        }],
        outcome,
        notes: vec!["offline".into()],
    }
}

fn forwarded() -> Outcome {
    let considered =
        |node: &str, passed_over, chosen| Considered { node: node.into(), score: 1.5, passed_over, chosen };
    Outcome::Forwarded(Box::new(Forwarded {
        shard: "us-east-patients".into(),
        node: "us-east-patients/replica-1".into(),
        role: "replica",
        region: "us-east-1".into(),
        pool: "readonly",
        reason: "best replica",
        because: "a read uses the replica with the lowest score",
        candidates: vec![
            considered("us-east-patients/primary", Some("down"), false),
            considered("us-east-patients/replica-1", None, true),
        ],
    }))
}

#[test]
fn a_decision_as_a_table() {
    let expected = "\
asked by     user ward, listener main, origin us-east-1
class        normal
transaction  none
kind         read (nothing but reads was found)
tables       public.patients (patient)
patients     aaaa by $1: us-east on us-east-patients, epoch 1
             bbbb by literal at character 34: unknown to the directory
home region  us-east
permit       home region
candidates   us-east-patients/primary        1.50  down
             us-east-patients/replica-1      1.50  chosen
target       us-east-patients/replica-1 (replica in us-east-1)
shard        us-east-patients
pool         readonly
reason       best replica: a read uses the replica with the lowest score
audit        forwarded, read, best replica, 2 patient hashes, fingerprint f1f2
note         offline
";
    assert_eq!(explanation(forwarded()).to_string(), expected);
}

#[test]
fn a_refusal_as_a_table_and_as_json() {
    let refusal = Refusal::new(crate::RefusalKind::UnknownPatient, "the directory does not know this patient")
        .detail("The patient was named by parameter $1.")
        .hint("Register the patient.");
    let explanation = explanation(refused(&refusal));
    let table = explanation.to_string();
    for row in [
        "refused      PW004 unknown patient: the directory does not know this patient\n",
        "detail       The patient was named by parameter $1.\n",
        "hint         Register the patient.\n",
        "audit        refused, PW004 unknown patient, 2 patient hashes, fingerprint f1f2\n",
    ] {
        assert!(table.contains(row), "{table}");
    }
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["outcome"], "refused");
    assert_eq!(json["sqlstate"], "PW004");
    assert_eq!(json["statements"][0]["patients"][0]["hash"], "aaaa");
}

#[test]
fn places_are_counted_in_characters() {
    let sql = "SELECT 'é', '7'".as_bytes();
    let at = sql.iter().rposition(|byte| *byte == b'7').unwrap() as u32 - 1;
    assert_eq!(seen(sql, Whence::Literal { ordinal: 1, at }), "literal at character 13");
    assert_eq!(seen(sql, Whence::Param(2)), "$2");
}
