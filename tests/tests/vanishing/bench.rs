//! pgbench by all three protocols at once, with a ledger in which each of its transactions writes a row.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use pgward_tests::Deployment;
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

const PROTOCOLS: [&str; 3] = ["simple", "extended", "prepared"];

/// A read by itself, then a transaction that writes twice and reads. Client and number tell its row from any other.
const SCRIPT: &str = "\\set n :n + 1
SELECT family_name FROM patients WHERE id = :patient;
BEGIN;
INSERT INTO observations (patient_id, loinc, name, value, unit, observed_at)
    VALUES (:patient, 'ledger-PROTOCOL', 'client ' || :client_id, :n, 'no', now());
SELECT name, dose FROM medications WHERE patient_id = :patient;
UPDATE patients SET updated_at = now() WHERE id = :patient;
COMMIT;
";

/// The patients that pgbench reads and writes, on both shards.
pub(crate) fn patients(pgward: &Deployment) -> Vec<Uuid> {
    let of = |region| (0..4).map(move |n| pgward.patient(region, n).id);
    of("us-east").chain(of("us-west")).collect()
}

/// pgbench under way, once for each protocol.
pub(crate) struct Bench {
    running: Vec<(&'static str, Child)>,
    _scripts: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn start(pgward: &Deployment, seconds: u64) -> Self {
        let scripts = tempfile::tempdir().unwrap();
        let running = PROTOCOLS.map(|protocol| {
            let mut command = std::process::Command::new("pgbench");
            // Put into the text with the simple protocol; a parameter with the others.
            let quote = if protocol == "simple" { "'" } else { "" };
            for (n, id) in patients(pgward).iter().enumerate() {
                let file = scripts.path().join(format!("{protocol}-{n}"));
                let script = SCRIPT.replace("PROTOCOL", protocol).replace(":patient", &format!(":p{n}"));
                std::fs::write(&file, script).unwrap();
                command.arg("-f").arg(file).arg("-D").arg(format!("p{n}={quote}{id}{quote}"));
            }
            // A thread for each client: where they share one, all of them wait while one of them prepares.
            command.args(["-n", "-c", "4", "-j", "4", "-R", "80", "-D", "n=0", "-M", protocol]);
            // Ended by us before.
            command.args(["-T", &(seconds + 600).to_string()]).arg(pgward.url("general", "app"));
            (protocol, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        });
        Self { running: running.into(), _scripts: scripts }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.running.iter_mut().all(|(_, child)| child.try_wait().unwrap().is_none())
    }

    /// Ends it: no client may have seen an error. Answers with the transactions of each protocol.
    pub(crate) fn end(self) -> BTreeMap<&'static str, u64> {
        // All of them at once, as their own clocks would, if they are not over: those who failed are told below.
        for (_, child) in &self.running {
            let _over = kill_process(Pid::from_child(child), Signal::ALARM);
        }
        self.running.into_iter().map(|(protocol, child)| (protocol, transactions(protocol, child))).collect()
    }
}

fn transactions(protocol: &str, child: Child) -> u64 {
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let failed = !output.status.success() || err.contains("error") || err.contains("aborted");
    assert!(!failed, "pgbench -M {protocol}: {out}\n{err}");
    let count = |line: &str| line.strip_prefix("number of transactions actually processed: ").map(str::to_owned);
    out.lines().find_map(count).unwrap_or_else(|| panic!("{out}\n{err}")).split('/').next().unwrap().parse().unwrap()
}

/// What pgbench says it did is what the shards have, each transaction once.
pub(crate) async fn assert_ledger(pgward: &Deployment, done: &BTreeMap<&'static str, u64>) {
    for (protocol, done) in done {
        let mut numbers = BTreeMap::<String, Vec<i64>>::new();
        for shard in ["us-east-patients/primary", "us-west-patients/primary"] {
            let server = pgward.on_server(shard).await;
            let rows = "SELECT name, value::int8 FROM observations WHERE loinc = 'ledger-' || $1";
            for row in server.query(rows, &[protocol]).await.unwrap() {
                numbers.entry(row.get(0)).or_default().push(row.get(1));
            }
        }
        let mut rows = 0;
        for (client, mut numbers) in numbers {
            numbers.sort_unstable();
            assert!(numbers.iter().copied().eq(1..=numbers.len() as i64), "{protocol}, {client}: {numbers:?}");
            rows += numbers.len() as u64;
        }
        assert_eq!(rows, *done, "rows of pgbench -M {protocol}, and the transactions that it counts");
        assert!(rows > 0, "pgbench -M {protocol} has done nothing");
    }
}
