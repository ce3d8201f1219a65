//! What is left when everybody has gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pgward_tests::{Deployment, answers};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::script::UNCOMMITTED;
use crate::{SHARDS, in_time};

/// A pool as `pgward status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pool {
    in_use: usize,
    waiting: usize,
    open: usize,
    idle: usize,
    max: usize,
}

/// The state of a PgWard as it sees itself.
struct Status {
    text: String,
    clients: usize,
    /// By node, e.g. `us-east-patients/primary`, and kind.
    pools: BTreeMap<(String, String), Pool>,
}

impl Status {
    async fn ask(pgward: &Deployment) -> Self {
        let (socket, config) = (pgward.files().dir.join("pgward.sock"), pgward.files().config());
        let call = move || pgward::control::call(&socket, &config, pgward::control::Command::Status).unwrap();
        let text = tokio::task::spawn_blocking(call).await.unwrap().text;
        let clients = text.lines().find_map(|line| line.strip_prefix("clients")).unwrap().trim().parse().unwrap();
        let mut pools = BTreeMap::new();
        for (node, listed) in text.lines().filter_map(|line| line.split_once("  in use: ")) {
            let node = node.split_whitespace().next().unwrap();
            for pool in listed.split("), ") {
                let kind = pool.split(' ').next().unwrap();
                pools.insert((node.to_owned(), kind.to_owned()), Pool::of(pool));
            }
        }
        Self { text, clients, pools }
    }

    fn open(&self) -> usize {
        self.pools.values().map(|pool| pool.open).sum()
    }
}

impl Pool {
    /// `general 3/30 (1 kept, 8 open, 5 idle)`
    fn of(text: &str) -> Self {
        let (in_use, max) = text.split(' ').nth(1).unwrap().split_once('/').unwrap();
        let numbers = text.split_once('(').unwrap().1.trim_end_matches(')').split(", ");
        let count = |what: &str| {
            let mut named = numbers.clone().filter_map(|number| number.split_once(' '));
            named.find(|(_, name)| *name == what).map_or(0, |(number, _)| number.parse().unwrap())
        };
        Self {
            in_use: in_use.parse().unwrap(),
            waiting: count("waiting"),
            open: count("open"),
            idle: count("idle"),
            max: max.parse().unwrap(),
        }
    }

    fn is_quiet(self) -> bool {
        self.in_use == 0 && self.waiting == 0 && self.open == self.idle
    }
}

/// Descriptors that PgWard has open beyond those of its servers.
pub(crate) async fn descriptors(pgward: &Deployment) -> usize {
    let pid = pgward.with_instance(|instance| instance.pid());
    let all = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    all.saturating_sub(Status::ask(pgward).await.open())
}

/// PgWard is as it was before: no session, no permit, no server and no descriptor is missing or left.
pub(crate) async fn assert_quiet(pgward: &Deployment, descriptors_before: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = Status::ask(pgward).await;
        let servers = servers(pgward).await;
        let quiet = status.clients == 0
            && status.pools.values().all(|pool| pool.is_quiet())
            && servers.iter().all(|(node, servers)| servers.are_those_of(node, &status))
            && descriptors(pgward).await <= descriptors_before;
        if quiet {
            println!("{}", status.text);
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not quiet: {}\n{servers:?}\n{} descriptors, {descriptors_before} before\n{}",
            status.text,
            descriptors(pgward).await,
            pgward.log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// PgWard's connections as a server sees them: process id, and state where that is not idle.
#[derive(Debug)]
struct Servers(BTreeMap<i32, Option<String>>);

impl Servers {
    /// As many as the pools have, all idle.
    fn are_those_of(&self, node: &str, status: &Status) -> bool {
        let open: usize = status.pools.iter().filter(|((of, _), _)| of == node).map(|(_, pool)| pool.open).sum();
        self.0.len() == open && self.0.values().all(Option::is_none)
    }
}

async fn servers(pgward: &Deployment) -> BTreeMap<String, Servers> {
    let sql = "SELECT pid, nullif(state, 'idle') FROM pg_stat_activity
               WHERE usename = 'pgward_app' AND application_name <> 'pgward probe' AND backend_type = 'client backend'";
    let mut servers = BTreeMap::new();
    for node in pgward.cluster().nodes() {
        let rows = pgward.on_server(node.name()).await.query(sql, &[]).await.unwrap();
        servers.insert(node.name().to_owned(), Servers(rows.iter().map(|row| (row.get(0), row.get(1))).collect()));
    }
    servers
}

/// The shards have nothing of those who vanished but what they committed.
pub(crate) async fn assert_nothing_left(pgward: &Deployment) {
    let sql = format!(
        "SELECT (SELECT count(*) FROM allergies WHERE substance = '{UNCOMMITTED}')
             || ' uncommitted, ' || (SELECT count(*) FROM pg_prepared_xacts)
             || ' prepared transactions, ' || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
             || ' advisory locks, ' || (SELECT count(*) FROM pg_class WHERE relpersistence = 't')
             || ' temporary tables'"
    );
    for shard in SHARDS {
        let server = pgward.on_server(&format!("{shard}/primary")).await;
        let left = answers(&server, &sql).await;
        assert_eq!(left, "0 uncommitted, 0 prepared transactions, 0 advisory locks, 0 temporary tables", "{shard}");
    }
}

/// Each idle server, taken through its pool by a transaction, is as a new one: no setting, role, channel, cursor, lock
/// or statement of a client.
pub(crate) async fn assert_servers_are_clean(pgward: &Deployment) {
    for (shard, region) in SHARDS.iter().zip(["us-east", "us-west"]) {
        let patient = pgward.patient(region, 13).id;
        let mut unseen = idle(pgward, shard).await;
        let deadline = Instant::now() + Duration::from_secs(30);
        while !unseen.is_empty() {
            let before = Status::ask(pgward).await;
            for pid in probe(pgward, shard, &before, patient).await {
                unseen.remove(&pid);
            }
            // A probe's read goes to the primary while the replica is not fit for it, and a pool may close what is idle:
            // only a server that stays and is never to be had is lost.
            let there = idle(pgward, shard).await;
            unseen.retain(|pid, _| there.contains_key(pid));
            assert!(
                unseen.is_empty() || Instant::now() < deadline,
                "not to be had of {shard}: {unseen:?}\nbefore the last probes:\n{}\nnow:\n{}\nthe last records:\n{}\n{}",
                before.text,
                Status::ask(pgward).await.text,
                last_records(pgward),
                pgward.log(),
            );
        }
    }
}

fn last_records(pgward: &Deployment) -> String {
    let records = pgward.records().all;
    records[records.len().saturating_sub(40)..].iter().map(|record| format!("{record}\n")).collect()
}

/// PgWard's servers of a shard: their nodes by process id.
async fn idle(pgward: &Deployment, shard: &str) -> BTreeMap<i32, String> {
    let all = servers(pgward).await;
    let of_shard = all.into_iter().filter(|(node, _)| node.split('/').next() == Some(shard));
    of_shard.flat_map(|(node, servers)| servers.0.into_keys().map(move |pid| (pid, node.clone()))).collect()
}

/// Takes as many servers at once as each pool of the shard has idle; asserts that they are clean; their process ids.
async fn probe(pgward: &Deployment, shard: &str, status: &Status, patient: uuid::Uuid) -> BTreeSet<i32> {
    let pool = |node: &str, kind: &str| status.pools[&(format!("{shard}/{node}"), kind.to_owned())];
    let mut probes = Vec::new();
    let mut probe = |listener, user, begin, count| probes.extend((0..count).map(|_| (listener, user, begin)));
    // Emergencies use up their own pool first, and then all that nobody else uses of the general one.
    let emergencies = pool("primary", "emergency").max + pool("primary", "general").open;
    probe("emergency", "dispatcher", "BEGIN", emergencies);
    probe("general", "analyst", "BEGIN", pool("primary", "background").open);
    probe("general", "app", "BEGIN READ ONLY", pool("replica-1", "readonly").open);
    probe("general", "analyst", "BEGIN READ ONLY", pool("replica-1", "background").open);

    let (mut seen, mut holders) = (BTreeSet::new(), Vec::new());
    for (listener, user, begin) in probes {
        let client = pgward.connect(listener, user).await;
        client.batch_execute(begin).await.unwrap();
        seen.insert(in_time("a probe", clean(&client, patient)).await);
        holders.push(client);
    }
    seen
}

/// Asserts that this session's server is clean; its process id.
async fn clean(client: &Client, patient: uuid::Uuid) -> i32 {
    let sql = format!(
        "SELECT pg_backend_pid(), concat_ws(', ',
            session_user, current_user,
            (SELECT string_agg(name || ' = ' || setting, ', ') FROM pg_settings
              WHERE source = 'session' AND setting IS DISTINCT FROM reset_val AND name NOT LIKE 'transaction\\_%'),
            (SELECT 'listens to ' || min(channel) FROM pg_listening_channels() channel),
            (SELECT 'has cursor ' || min(name) FROM pg_cursors),
            (SELECT 'has prepared ' || min(name) FROM pg_prepared_statements WHERE from_sql),
            (SELECT 'has lock ' || min(objid::text) FROM pg_locks
              WHERE locktype = 'advisory' AND pid = pg_backend_pid()))
         FROM patients WHERE id = '{patient}'"
    );
    let rows = client.simple_query(&sql).await.unwrap_or_else(|error| panic!("{error:?}"));
    let row = rows.iter().find_map(|row| if let SimpleQueryMessage::Row(row) = row { Some(row) } else { None });
    let row = row.unwrap();
    assert_eq!(row.get(1), Some("pgward_app, pgward_app"));
    row.get(0).unwrap().parse().unwrap()
}

/// Audit records are numbered without a gap, over all files of the log; how many there are.
pub(crate) fn assert_audit_has_no_gap(pgward: &Deployment) -> u64 {
    let current = pgward.files().audit();
    let rotated =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("audit.jsonl."));
    let files = std::fs::read_dir(&pgward.files().dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(rotated).collect();
    files.sort();
    let (mut expected, mut records) = (None, 0);
    for file in files.into_iter().chain([current]) {
        for line in std::io::BufReader::new(std::fs::File::open(&file).unwrap()).lines() {
            let record: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            let seq = record["seq"].as_u64().unwrap();
            assert_eq!(seq, expected.unwrap_or(seq), "{record}");
            expected = Some(seq + 1);
            records += 1;
        }
    }
    records
}
