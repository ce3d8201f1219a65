//! A statement gets the same answer on whichever way it comes: each refusal has its SQLSTATE and each route its node, in a
//! message of its own or among others, by the extended protocol, in a transaction, as a cursor, by COPY; and each leaves
//! the same records.

mod cases;
mod expected;
mod session;

use cases::{Case, refused, routed};
use expected::expected;
use pgward_tests::WireClient;
use session::Session;

use crate::shared;

/// The ways in which a statement may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// A Query.
    Simple,
    /// The second of two statements of a Query.
    Several,
    /// Parse, Bind, Execute and Sync of the unnamed statement.
    Unnamed,
    /// The same with the patient as a parameter.
    Parameter,
    /// A named statement with a parameter, described and executed twice, as drivers do it.
    Named,
    /// Behind another statement, before the same Sync.
    Pipelined,
    /// Behind another statement and its Sync, in the same write.
    BehindSync,
    /// In a transaction, behind another statement.
    Transaction,
    /// The same by the extended protocol.
    Extended,
    /// With its BEGIN and COMMIT in one Query.
    Block,
    /// First in a READ ONLY transaction.
    ReadOnly,
    /// As DECLARE and FETCH in a transaction.
    Cursor,
    /// `COPY (…) TO STDOUT`
    Copy,
    /// PREPARE and EXECUTE.
    Prepare,
    /// In the text of a DO.
    Do,
}

const PATHS: [Path; 15] = [
    Path::Simple,
    Path::Several,
    Path::Unnamed,
    Path::Parameter,
    Path::Named,
    Path::Pipelined,
    Path::BehindSync,
    Path::Transaction,
    Path::Extended,
    Path::Block,
    Path::ReadOnly,
    Path::Cursor,
    Path::Copy,
    Path::Prepare,
    Path::Do,
];

/// A record of a decision as `kind node`, or `refused SQLSTATE`.
fn told(record: &serde_json::Value) -> String {
    let of = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    match &*of("outcome") {
        "refused" => format!("refused {}", of("sqlstate")),
        _ => format!("{} {}", of("kind"), any_replica(&of("node"))),
    }
}

/// Which of a shard's replicas answers is up to their scores.
fn any_replica(text: &str) -> String {
    text.replace("replica-1", "replica").replace("replica-2", "replica")
}

async fn check(cases: Vec<Case>) {
    let pgward = shared().await;
    let mut wrong = Vec::new();
    for case in cases {
        let before = case.before(pgward);
        let since = pgward.records().all.len();
        let mut sessions = Vec::new();
        for path in PATHS {
            let password = format!("demo-{}", case.user);
            let client = WireClient::login(pgward.port(case.listener), case.user, &password).await;
            let mut session = Session { client, answers: Vec::new() };
            session.say(&case, path, &before).await;
            sessions.push((path, session));
        }
        // None of them is closed yet: an address is one session's.
        let records = pgward.records();
        for (path, session) in sessions {
            let records = records.decisions_from(since, case.listener, &session.client.address());
            let records: Vec<String> = records.into_iter().map(told).collect();
            let answers: Vec<String> = session.answers.iter().map(|answer| any_replica(answer)).collect();
            let expected = expected(&case, path);
            if (&answers, &records) != (&expected.0, &expected.1) {
                let sql = case.literal();
                wrong.push(format!(
                    "{}, {path:?}: {sql}\n  {answers:?} {records:?}\n  {expected:?} expected",
                    case.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_statement_reaches_the_same_node_on_every_path() {
    check(routed(shared().await)).await;
}

#[tokio::test]
async fn a_refusal_is_the_same_on_every_path() {
    check(refused(shared().await)).await;
}
