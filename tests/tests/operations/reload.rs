//! Shards and replicas come and go by reload, and no client sees an error.

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use pgward::demo::layout::Layout;
use pgward_tests::{Deployment, Options, answered_by, sqlstate};

use crate::load::Load;
use crate::pgbench::Pgbench;
use crate::{start, watchful};

/// The control socket answers when the new configuration is in force.
pub(crate) fn reload(pgward: &Deployment, toml: &str) -> (bool, String) {
    reload_with(pgward, toml, &[])
}

fn reload_with(pgward: &Deployment, toml: &str, options: &[&str]) -> (bool, String) {
    let config = pgward.files().config();
    std::fs::write(&config, toml).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pgward-under-test"))
        .args(["reload", "--config"])
        .arg(&config)
        .args(options)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_and_a_shard_come_and_go_under_load() {
    let pgward = start(Options { shards: 2, replicas: 2, patients: 80, tune: watchful }).await;
    let whole = std::fs::read_to_string(pgward.files().config()).unwrap();
    let replica = pgward.node("us-east-patients/replica-2").port();
    let without_replica: String =
        whole.lines().filter(|line| !line.contains(&format!(":{replica}/"))).map(|line| format!("{line}\n")).collect();
    let west = whole.find("[[shards]]\nid = \"us-west-patients\"").unwrap();
    let end = west + whole[west..].find("[pools.").unwrap();
    let without_shard = [&whole[..west], &whole[end..]].concat();

    let patients = [pgward.patient("us-east", 0), pgward.patient("us-east", 1)];
    let load = Load::start(&pgward, 8, &patients).await;
    for toml in [&without_replica, &whole, &without_shard, &whole] {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let (accepted, said) = reload(&pgward, toml);
        assert!(accepted, "{said}");
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    let outcome = load.stop().await;
    assert!(outcome.errors.is_empty(), "{} answered, then {:?}", outcome.answered, outcome.errors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_shard_serves_nobody_and_a_refused_file_changes_nothing() {
    let pgward = start(Options { shards: 2, replicas: 1, patients: 80, tune: watchful }).await;
    let whole = std::fs::read_to_string(pgward.files().config()).unwrap();
    let client = pgward.app().await;
    let patient = pgward.patient("us-west", 0);

    let (accepted, said) = reload(&pgward, &whole.replace("key_type = \"uuid\"", "key_typ = \"uuid\""));
    assert!(!accepted);
    assert!(said.contains("key_type"), "{said}");
    assert_eq!(answered_by(&client, &patient).await, "us-west-patients/replica-1");

    let west = whole.find("[[shards]]\nid = \"us-west-patients\"").unwrap();
    let end = west + whole[west..].find("[pools.").unwrap();
    let (accepted, said) = reload(&pgward, &[&whole[..west], &whole[end..]].concat());
    assert!(accepted, "{said}");
    let read = format!("SELECT 1 FROM patients WHERE id = '{}'", patient.id);
    assert_eq!(sqlstate(client.simple_query(&read).await), "PW010");

    assert!(reload(&pgward, &whole).0);
    assert_eq!(answered_by(&client, &patient).await, "us-west-patients/replica-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patients_leave_their_shard_only_when_their_rows_are_said_to_have_been_moved() {
    let pgward = start(Options { shards: 2, replicas: 0, patients: 80, ..Options::default() }).await;
    let whole = std::fs::read_to_string(pgward.files().config()).unwrap();
    let (east, west) = ("patient_regions = [\"us-east\"]", "patient_regions = [\"us-west\"]");
    assert!(whole.contains(east) && whole.contains(west), "{whole}");
    let swapped = whole.replace(east, "…").replace(west, east).replace("…", west);
    let client = pgward.app().await;
    let patient = pgward.patient("us-east", 0);

    let (accepted, said) = reload(&pgward, &swapped);
    assert!(!accepted);
    for words in ["nothing was changed", "patient region `us-east`, from `us-east-patients` (", "--rows-moved"] {
        assert!(said.contains(words), "{words:?} in {said}");
    }
    assert_eq!(answered_by(&client, &patient).await, "us-east-patients/primary");

    let (accepted, said) = reload_with(&pgward, &swapped, &["--rows-moved"]);
    assert!(accepted && said.contains("said to have been moved"), "{said}");
    let elsewhere = client.query("SELECT 1 FROM patients WHERE id = $1", &[&patient.id]).await.unwrap();
    assert!(elsewhere.is_empty(), "nobody has moved it");
    assert!(reload_with(&pgward, &whole, &["--rows-moved"]).0);
    assert_eq!(answered_by(&client, &patient).await, "us-east-patients/primary");

    // Nor in two steps.
    let start = whole.find("[[shards]]\nid = \"us-west-patients\"").unwrap();
    let end = start + whole[start..].find("[pools.").unwrap();
    let without = [&whole[..start], &whole[end..]].concat();
    assert!(reload(&pgward, &without).0);
    let (accepted, said) = reload(&pgward, &without.replace(east, "patient_regions = [\"us-east\", \"us-west\"]"));
    assert!(!accepted && said.contains("patient region `us-west`, from `us-west-patients` ("), "{said}");
    assert!(reload(&pgward, &whole).0, "back to where they are");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_no_server_has_refuses_the_file() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 40, ..Options::default() }).await;
    let whole = std::fs::read_to_string(pgward.files().config()).unwrap();
    for (from, to) in [("key = \"id\"", "key = \"nope\""), ("region_column = \"region\"", "region_column = \"nope\"")] {
        assert!(whole.contains(from), "{whole}");
        let (accepted, said) = reload(&pgward, &whole.replace(from, to));
        assert!(!accepted && said.contains("table public.patients has no column \"nope\""), "{said}");
    }
    assert!(reload(&pgward, &whole).0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_stays_on_one_shard_where_it_is_told_to() {
    let pgward = start(Options { shards: 2, replicas: 0, patients: 80, ..Options::default() }).await;
    let whole = std::fs::read_to_string(pgward.files().config()).unwrap();
    let client = pgward.app().await;
    let ids = ["us-east", "us-west"].map(|region| pgward.patient(region, 0).id);
    let rows = ids.map(|id| format!("{id}\tTold\tRash\tmild\n")).concat();
    let copy = async || {
        let statement = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN";
        let mut sink = std::pin::pin!(client.copy_in(statement).await.unwrap());
        sink.send(bytes::Bytes::from(rows.clone())).await?;
        sink.finish().await
    };
    assert_eq!(copy().await.unwrap(), 2);
    let (accepted, said) = reload(&pgward, &whole.replace("[sharding]", "[sharding]\ncopy_across_shards = false"));
    assert!(accepted, "{said}");
    assert_eq!(sqlstate(copy().await), "PW002");
    assert!(reload(&pgward, &whole).0);
    assert_eq!(copy().await.unwrap(), 2);
}

/// By SIGHUP; waits until the log says what came of it, and answers with that.
async fn hang_up(pgward: &Deployment, toml: &str) -> String {
    let log = || std::fs::read_to_string(pgward.files().log()).unwrap();
    let before = log().len();
    std::fs::write(pgward.files().config(), toml).unwrap();
    pgward.with_instance(|instance| instance.signal(rustix::process::Signal::HUP)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let said = log()[before..].to_owned();
        // Whatever follows the first line is written with it.
        if said.contains("reloaded ") || said.contains("reload refused") {
            return said;
        }
        assert!(Instant::now() < deadline, "nothing came of SIGHUP: {said}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The servers share the machine with 16 clients that never rest: a probe may take its time.
fn patient(layout: &mut Layout) {
    layout.health = "interval = \"1s\"\ntimeout = \"3s\"\n".to_owned();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_reloaded_under_pgbench_and_no_client_sees_an_error() {
    let pgward = start(Options { shards: 2, replicas: 2, patients: 80, tune: patient }).await;
    let whole = std::fs::read_to_string(pgward.files().config()).unwrap();
    let replica = format!(":{}/", pgward.node("us-east-patients/replica-2").port());
    let without_replica: String =
        whole.lines().filter(|line| !line.contains(&replica)).map(|line| format!("{line}\n")).collect();
    let west = whole.find("[[shards]]\nid = \"us-west-patients\"").unwrap();
    let end = west + whole[west..].find("[pools.").unwrap();
    let without_shard = [&whole[..west], &whole[end..]].concat();
    let resized = whole.replace("[pools.general]\nmin = 2\nmax = 30", "[pools.general]\nmin = 1\nmax = 6");
    assert_ne!(resized, whole);
    let newcomer =
        "[[users]]\nname = \"nurse-of-the-night\"\npassword = { file = \"secrets/user-nurse\" }\n\n[[users]]\n";
    let with_user = whole.replacen("[[users]]\n", newcomer, 1);
    let topology = [&without_replica, &whole, &without_shard, &whole];
    let rest = [&resized, &with_user, &whole];

    for (protocol, steps) in [("simple", &topology[..]), ("prepared", &rest)] {
        let mut pgbench = Pgbench::start(&pgward, protocol);
        tokio::time::sleep(Duration::from_millis(500)).await;
        for (n, toml) in steps.iter().enumerate() {
            if n % 2 == 0 {
                let said = hang_up(&pgward, toml).await;
                assert!(said.contains("reloaded "), "{said}");
            } else {
                let (accepted, said) = reload(&pgward, toml);
                assert!(accepted, "{said}");
            }
            if **toml == with_user {
                let url = pgward.url("general", "nurse").replace("nurse:", "nurse-of-the-night:");
                let client = pgward::demo::cluster::connect(&url).await.unwrap();
                answered_by(&client, &pgward.patient("us-west", 0)).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let refused = hang_up(&pgward, &whole.replace("max = 30", "maxx = 30")).await;
        assert!(refused.contains("nothing was changed") && refused.contains("maxx"), "{refused}");
        assert!(pgbench.is_running(), "all of it happened under load");
        std::fs::write(pgward.files().config(), &whole).unwrap();
        let processed = tokio::task::spawn_blocking(|| pgbench.end()).await.unwrap();
        assert!(processed > 16, "{processed}");
    }
}
