//! The rows of a COPY sent without waiting for the server's invitation, cut anywhere: answered as by a server itself.

use std::time::Duration;

use bytes::BytesMut;
use pgward_tests::{SERVER_PASSWORD, WireClient};
use pgward_wire::{frame, frontend};

use crate::{shared, told};

/// Messages of a client.
#[derive(Debug, Default)]
struct Script {
    bytes: BytesMut,
    /// How often it is told ReadyForQuery.
    ready: usize,
}

impl Script {
    fn query(mut self, sql: &str) -> Self {
        frontend::put_query(&mut self.bytes, sql.as_bytes());
        self.answered()
    }

    /// Parse, Bind and Execute.
    fn run(self, sql: &str) -> Self {
        self.run_as("", "", sql)
    }

    fn run_as(mut self, name: &str, portal: &str, sql: &str) -> Self {
        frontend::put_parse(&mut self.bytes, name.as_bytes(), sql.as_bytes(), &[]);
        let portal = [portal.as_bytes(), b"\0"].concat();
        let bind = [&portal, name.as_bytes(), b"\0\0\0\0\0\0\0"].concat();
        self.message(b'B', &bind).message(b'E', &[&portal[..], &[0; 4]].concat())
    }

    fn message(mut self, tag: u8, body: &[u8]) -> Self {
        frame::put(&mut self.bytes, tag, body);
        self
    }

    fn rows(self, rows: &str) -> Self {
        self.message(b'd', rows.as_bytes())
    }

    fn done(self) -> Self {
        self.message(b'c', b"")
    }

    fn fail(self) -> Self {
        self.message(b'f', b"enough\0")
    }

    fn flush(self) -> Self {
        self.message(b'H', b"")
    }

    fn sync(self) -> Self {
        self.message(b'S', b"")
    }

    fn answered(mut self) -> Self {
        self.ready += 1;
        self
    }
}

/// Sends the parts with a pause between them; what answers the script.
async fn play(client: &mut WireClient, script: &Script, parts: &[&[u8]]) -> Vec<String> {
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.send(part).await;
    }
    let mut answers = Vec::new();
    for _ in 0..script.ready {
        answers.extend(client.until_ready().await.iter().map(told));
    }
    answers
}

/// Numbers that are as good as random (a linear congruential generator).
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// Plays each script whole, cut in two at every byte, and cut into more parts at random, through PgWard; and whole on
/// the server: the answers and the rows that are left must be the same. `invited`: the server's invitation to send
/// rows is among the answers. `taken` deletes the rows and tells what they were.
async fn compare(node: &str, taken: &str, scripts: &[Script], invited: bool) {
    let pgward = shared().await;
    let witness = pgward.on_server(node).await;
    let mut direct = WireClient::login(pgward.node(node).port(), "postgres", SERVER_PASSWORD).await;
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let mut state = 1;
    let answered = |mut answers: Vec<String>| {
        // A server that another session had set otherwise reports what it is brought back to, whenever that is.
        answers.retain(|answer| answer != "S" && (invited || answer != "G"));
        answers
    };
    for (n, script) in scripts.iter().enumerate() {
        let bytes = &script.bytes[..];
        let expected = answered(play(&mut direct, script, &[bytes]).await);
        let left = pgward_tests::answers(&witness, taken).await;
        for round in 0..bytes.len() + 20 {
            let mut cuts = vec![round];
            if round > bytes.len() {
                cuts = (0..6).map(|_| random(&mut state) % bytes.len()).collect();
                cuts.sort_unstable();
            }
            let ends = cuts.iter().copied().chain([bytes.len()]);
            let parts: Vec<&[u8]> = [0].iter().chain(&cuts).zip(ends).map(|(from, to)| &bytes[*from..to]).collect();
            let answers = answered(play(&mut client, script, &parts).await);
            assert_eq!(answers, expected, "script {n} cut at {cuts:?}");
            assert_eq!(pgward_tests::answers(&witness, taken).await, left, "script {n} cut at {cuts:?}");
        }
    }
}

/// Why PgWard ends the session that sends this: anything but rows while they are taken.
async fn farewell(script: &Script) -> String {
    let mut client = WireClient::login(shared().await.port("general"), "app", "demo-app").await;
    client.send(&script.bytes).await;
    let mut last = None;
    while let Some(frame) = client.frame().await {
        last = Some(frame);
    }
    let last = last.expect("the client is told why");
    assert_eq!(last.field(b'S').as_deref(), Some("FATAL"));
    last.field(b'C').unwrap()
}

#[tokio::test]
async fn rows_ahead_of_the_invitation_are_taken() {
    let pgward = shared().await;
    let node = "us-east-patients/primary";
    let server = pgward.on_server(node).await;
    server.simple_query("DROP TABLE IF EXISTS pgbench_accounts").await.unwrap();
    server
        .simple_query("CREATE TABLE pgbench_accounts (aid int); GRANT ALL ON pgbench_accounts TO PUBLIC")
        .await
        .unwrap();
    let copy = "COPY pgbench_accounts FROM STDIN";
    let wrong = "COPY pgbench_accounts (nowhere) FROM STDIN";
    let new = Script::default;
    let scripts = [
        new().run(copy).rows("1\n2\n").rows("3\n").done().sync().answered(),
        new().run(copy).flush().rows("1\n").flush().rows("2\n").done().sync().answered(),
        new().run(copy).sync().rows("1\n").sync().done().sync().answered(),
        new().run(copy).rows("1\n").fail().sync().answered(),
        new().run(copy).rows("1\nx\n").rows("2\n").done().sync().answered().run("SELECT 1").sync().answered(),
        new().run(wrong).rows("1\n").done().sync().answered().query("SELECT 1"),
        new().run(wrong).flush().rows("1\n").fail().run(copy).rows("2\n").done().sync().answered(),
        new().run(copy).rows("1\n").done().run(copy).rows("2\n").done().sync().answered(),
        new().run(copy).rows("1\n").done().run(copy).rows("x\n").done().sync().answered(),
        new().run(copy).rows("x\n").done().run(copy).rows("2\n").done().sync().answered(),
        new().run("SELECT 1/0").run(copy).rows("1\n").done().sync().answered(),
        new().run(copy).rows("1\n").done().run("SELECT 1/0").sync().answered(),
        new().run_as("s", "p", copy).rows("1\n").done().message(b'C', b"Ss\0").sync().answered(),
        new().query("BEGIN").run(copy).rows("1\n").done().sync().answered().query("COMMIT"),
        new().query("BEGIN").run(wrong).rows("1\n").done().sync().answered().query("COMMIT"),
        new().query(copy).rows("1\n").done().query(copy).rows("2\n").sync().fail().query(wrong).rows("3\n").done(),
        new().rows("1\n").done().fail().sync().answered(),
    ];
    let taken = "WITH old AS (DELETE FROM pgbench_accounts RETURNING aid) SELECT count(*) || ' ' || sum(aid) FROM old";
    compare(node, taken, &scripts, true).await;
    for script in [
        new().run(copy).rows("1\n").query("SELECT 1"),
        new().run(copy).run("SELECT 1").sync(),
        new().query(copy).query("SELECT 1"),
    ] {
        assert_eq!(farewell(&script).await, "08P01", "{script:?}");
    }
    server.simple_query("DROP TABLE pgbench_accounts").await.unwrap();
}

#[tokio::test]
async fn checked_rows_ahead_of_the_invitation_are_taken() {
    let pgward = shared().await;
    let id = pgward.patient("us-west", 44).id;
    let columns = "(patient_id, substance, reaction, severity) FROM STDIN";
    let (copy, wrong) = (format!("COPY allergies {columns}"), "COPY allergies (patient_id, nowhere) FROM STDIN");
    let row = |severity: &str| format!("{id}\tPipelined\tRash\t{severity}\n");
    let new = Script::default;
    let scripts = [
        new().run(&copy).rows(&row("mild").repeat(2)).done().sync().answered(),
        new().run(&copy).flush().rows(&row("mild")).flush().done().sync().answered(),
        new().run(&copy).sync().rows(&row("mild")).sync().done().sync().answered(),
        new().run(&copy).rows(&row("mild")).fail().sync().answered(),
        new().run(&copy).rows(&row("\\N")).rows(&row("mild")).done().sync().answered().query("SELECT 1"),
        new().run(wrong).rows(&format!("{id}\tx\n")).done().sync().answered().query("SELECT 1"),
        new().run("SELECT 1/0").run(&copy).rows(&row("mild")).done().sync().answered(),
        new().query("BEGIN").run(&copy).rows(&row("mild")).done().sync().answered().query("COMMIT"),
        new().query(&copy).rows(&row("mild")).done().query(&copy).rows(&row("mild")).sync().fail(),
    ];
    let taken =
        "WITH old AS (DELETE FROM allergies WHERE substance = 'Pipelined' RETURNING 1) SELECT count(*) FROM old";
    compare("us-west-patients/primary", taken, &scripts, false).await;
}
