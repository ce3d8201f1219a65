//! A client vanishes at any byte: the next one, on the same server connection, sees nothing of it.
//!
//! Pools of one connection make sure that it is the same one, or a new one in its place.

use bytes::BytesMut;
use pgward::demo::data::Patient;
use pgward_tests::{Deployment, Options, WireClient};
use pgward_wire::frontend;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{in_time, start, until};

const PRIMARY: &str = "us-east-patients/primary";

/// What a vanished client leaves, if it leaves anything, has this name.
const TRACE: &str = "vanished";

/// One deployment for all of these tests, used by one at a time: each looks at the same few connections.
async fn narrow() -> MutexGuard<'static, Narrow> {
    static NARROW: OnceCell<Mutex<Narrow>> = OnceCell::const_new();
    let tune = |layout: &mut pgward::demo::layout::Layout| {
        layout.pools = [(1, 1), (1, 1), (1, 1), (1, 1)];
        layout.wait_timeout = Some("20s");
    };
    let options = Options { shards: 1, replicas: 1, patients: 8, tune };
    NARROW.get_or_init(|| async { Mutex::new(Narrow::start(options).await) }).await.lock().await
}

/// A deployment with a listener that asks for no password: a proof for each of a thousand sessions would take most of
/// the time.
struct Narrow {
    pgward: Deployment,
    /// Port of that listener.
    trusting: u16,
}

impl Narrow {
    async fn start(options: Options) -> Self {
        let pgward = start(options).await;
        let trusting = pgward::demo::ports::free().unwrap();
        let listener = format!(
            "[[listeners]]\nname = \"trusting\"\naddress = \"127.0.0.1:{trusting}\"\norigin = \"us-east-1\"\n\
             auth = \"trust\"\n\n[http]\n"
        );
        let config = std::fs::read_to_string(pgward.files().config()).unwrap();
        std::fs::write(pgward.files().config(), config.replacen("[http]\n", &listener, 1)).unwrap();
        pgward.with_instance(|instance| instance.signal(rustix::process::Signal::HUP)).unwrap();
        until("the trusting listener is open", || async { TcpStream::connect(("127.0.0.1", trusting)).await.is_ok() })
            .await;
        Self { pgward, trusting }
    }
}

impl std::ops::Deref for Narrow {
    type Target = Deployment;

    fn deref(&self) -> &Deployment {
        &self.pgward
    }
}

/// Bytes of a session behind its login, and what has happened when all of them were sent.
struct Recording {
    bytes: BytesMut,
    /// Rows that the whole recording leaves.
    rows: i64,
}

fn query(bytes: &mut BytesMut, sql: &str) {
    frontend::put_query(bytes, sql.as_bytes());
}

fn insert(patient: &Patient) -> String {
    format!(
        "INSERT INTO allergies (patient_id, substance, reaction, severity) \
         VALUES ('{}', '{TRACE}', 'Hives', 'mild')",
        patient.id
    )
}

fn message(bytes: &mut BytesMut, tag: u8, body: &[u8]) {
    bytes.extend_from_slice(&[tag]);
    bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
}

/// Parse, Bind, Execute, Sync of an INSERT, the patient as text.
fn extended(bytes: &mut BytesMut, patient: &Patient) {
    let sql = format!(
        "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, '{TRACE}', 'Hives', 'mild')"
    );
    frontend::put_parse(bytes, b"mine", sql.as_bytes(), &[]);
    let id = patient.id.to_string();
    let mut bind = BytesMut::from(&b"\0mine\0\0\0\0\x01"[..]);
    bind.extend_from_slice(&u32::try_from(id.len()).unwrap().to_be_bytes());
    bind.extend_from_slice(id.as_bytes());
    bind.extend_from_slice(&[0, 0]);
    message(bytes, b'B', &bind);
    message(bytes, b'E', b"\0\0\0\0\0");
    message(bytes, b'S', b"");
}

/// Cuts a session of these bytes after every `step` bytes, and looks after each cut.
async fn cut_everywhere(pgward: &Narrow, recording: &Recording, step: usize) {
    let witness = pgward.app().await;
    let patient = pgward.patient("us-east", 1);
    let offsets = (0..=recording.bytes.len()).step_by(step).chain([recording.bytes.len()]);
    for offset in offsets {
        // Shown with a failure.
        println!("cut at {offset} of {}", recording.bytes.len());
        vanish(pgward, &recording.bytes[..offset]).await;
        let rows = in_time("the witness", no_trace(&witness, &patient)).await;
        assert!(rows == 0 || (rows == recording.rows && offset == recording.bytes.len()), "{rows} rows at {offset}");
        wipe(&witness, &patient).await;
    }
}

/// Logs in, sends these bytes, and is gone: by a reset half of the time, as when a machine loses its power.
async fn vanish(pgward: &Narrow, bytes: &[u8]) {
    let mut client = WireClient::login(pgward.trusting, "app", "").await;
    client.send(bytes).await;
    drop(client);
}

/// Allergies that are there, after the session that wrote them is over; and that nothing else is.
async fn no_trace(witness: &Client, patient: &Patient) -> i64 {
    // Through the pool's only connection: its state, and that its answer is the one to this question.
    let sql = format!(
        "SELECT current_setting('application_name') || '|' || current_setting('search_path') || '|' || \
         (xact_start = query_start) || '|' || (SELECT count(*) FROM allergies WHERE patient_id = '{0}' AND substance = '{TRACE}') \
         FROM pg_stat_activity, patients WHERE pid = pg_backend_pid() AND patients.id = '{0}' FOR UPDATE OF patients",
        patient.id
    );
    let answer = witness.simple_query(&sql).await.unwrap().iter().find_map(row).unwrap();
    let parts: Vec<&str> = answer.split('|').collect();
    assert_eq!(parts[..3], ["pgward", "\"$user\", public", "true"], "{answer}");
    parts[3].parse().unwrap()
}

fn row(message: &SimpleQueryMessage) -> Option<String> {
    match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }
}

async fn wipe(witness: &Client, patient: &Patient) {
    let sql = format!("DELETE FROM allergies WHERE patient_id = '{}' AND substance = '{TRACE}'", patient.id);
    witness.simple_query(&sql).await.unwrap();
}

/// No connection beyond the pools' own, and none with a transaction.
async fn nothing_leaks(pgward: &Deployment) {
    let server = pgward.on_server(PRIMARY).await;
    let sql = "SELECT count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity \
               WHERE usename = 'pgward_app' AND application_name <> 'pgward probe'";
    until("the server has the pools' connections only, and they idle", || async {
        let row = server.query_one(sql, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1)) <= (3, 0) && row.get::<_, i64>(1) == 0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_vanishes_while_it_logs_in_leaves_nothing() {
    let pgward = narrow().await;
    let (_, startup) = pgward_wire::login::Login::new("app", Some("x"), "healthcare", &[("search_path", "pg_catalog")]);
    for offset in 0..=startup.len() {
        let mut stream = TcpStream::connect(("127.0.0.1", pgward.port("general"))).await.unwrap();
        stream.write_all(&startup[..offset]).await.unwrap();
    }
    let patient = pgward.patient("us-east", 1);
    let witness = pgward.app().await;
    assert_eq!(no_trace(&witness, &patient).await, 0);
    until("no client but the witness is left", || async { clients(&pgward).await == 1 }).await;
    nothing_leaks(&pgward).await;
}

/// Clients by `pgward status`.
async fn clients(pgward: &Deployment) -> usize {
    let (socket, config) = (pgward.files().dir.join("pgward.sock"), pgward.files().config());
    let call = move || pgward::control::call(&socket, &config, pgward::control::Command::Status).unwrap();
    let reply = tokio::task::spawn_blocking(call).await.unwrap();
    let line = reply.text.lines().find_map(|line| line.strip_prefix("clients")).unwrap().trim().to_owned();
    line.parse().unwrap()
}

#[tokio::test]
async fn a_client_that_vanishes_in_a_query_leaves_nothing() {
    let pgward = narrow().await;
    let patient = pgward.patient("us-east", 1);
    let mut bytes = BytesMut::new();
    query(&mut bytes, &insert(&patient));
    cut_everywhere(&pgward, &Recording { bytes, rows: 1 }, 1).await;
    nothing_leaks(&pgward).await;
}

#[tokio::test]
async fn a_client_that_vanishes_in_the_extended_protocol_leaves_nothing() {
    let pgward = narrow().await;
    let mut bytes = BytesMut::new();
    extended(&mut bytes, &pgward.patient("us-east", 1));
    cut_everywhere(&pgward, &Recording { bytes, rows: 1 }, 1).await;
    nothing_leaks(&pgward).await;
}

#[tokio::test]
async fn a_client_that_vanishes_in_a_transaction_leaves_nothing() {
    let pgward = narrow().await;
    let patient = pgward.patient("us-east", 1);
    let mut bytes = BytesMut::new();
    for sql in [
        "SET application_name = 'somebody'",
        "BEGIN",
        "SET search_path = pg_catalog, public",
        "SET LOCAL work_mem = '1MB'",
        &insert(&patient),
        "SAVEPOINT here",
        &insert(&patient),
    ] {
        query(&mut bytes, sql);
    }
    cut_everywhere(&pgward, &Recording { bytes, rows: 0 }, 3).await;
    nothing_leaks(&pgward).await;
}

#[tokio::test]
async fn a_client_that_vanishes_in_a_copy_leaves_no_row() {
    let pgward = narrow().await;
    let patient = pgward.patient("us-east", 1);
    let mut bytes = BytesMut::new();
    query(&mut bytes, "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN");
    for _ in 0..3 {
        message(&mut bytes, b'd', format!("{}\t{TRACE}\tHives\tmild\n", patient.id).as_bytes());
    }
    message(&mut bytes, b'c', b"");
    cut_everywhere(&pgward, &Recording { bytes, rows: 3 }, 2).await;
    nothing_leaks(&pgward).await;
}

#[tokio::test]
async fn a_session_that_was_pinned_leaves_nothing() {
    let pgward = narrow().await;
    let patient = pgward.patient("us-east", 1);
    let mut bytes = BytesMut::new();
    for sql in ["LISTEN somewhere", "SET search_path = pg_catalog", "PREPARE p AS SELECT 1", &insert(&patient)] {
        query(&mut bytes, sql);
    }
    cut_everywhere(&pgward, &Recording { bytes, rows: 1 }, 3).await;
    nothing_leaks(&pgward).await;
}
