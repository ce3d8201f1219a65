//! Parameters of a session in its transactions: as on a server for the client itself, and never seen by another.

use bytes::BytesMut;
use pgward::demo::layout::SERVER_ROLE;
use pgward_tests::{Frame, SERVER_PASSWORD, WireClient, answers};
use pgward_wire::{frame, frontend};
use tokio_postgres::Client;

use crate::shared;

async fn session() -> WireClient {
    WireClient::login(shared().await.port("general"), "app", "demo-app").await
}

/// The same user on a server itself.
async fn direct() -> WireClient {
    let server = shared().await.node("us-east-patients/primary").port();
    WireClient::login(server, SERVER_ROLE, SERVER_PASSWORD).await
}

fn put_portal(out: &mut BytesMut, sql: &str, max_rows: u32) {
    frontend::put_parse(out, b"", sql.as_bytes(), &[]);
    frame::put(out, b'B', b"\0\0\0\0\0\0\0\0");
    frame::put(out, b'E', &[&b"\0"[..], &max_rows.to_be_bytes()].concat());
}

/// The only value of the only row.
fn value(frames: &[Frame]) -> Option<String> {
    let row = frames.iter().find(|frame| frame.tag == b'D')?;
    Some(String::from_utf8_lossy(&row.body[6..]).into_owned())
}

/// What new clients find set on the servers of the home shard's primary, several of them.
async fn found_by_others(expression: &str) -> Vec<String> {
    let pgward = shared().await;
    let mut found = Vec::new();
    // Each keeps its server, so that each has another.
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..4 {
        let client = pgward.app().await;
        client.simple_query("BEGIN").await.unwrap();
        found.push(answers(&client, &format!("SELECT {expression}")).await);
        clients.push(client);
    }
    found
}

/// The portal is not run to its end, and neither side hears of its CommandComplete.
#[tokio::test]
async fn what_a_suspended_portal_set_is_the_sessions_alone() {
    let mut client = session().await;
    let mut out = BytesMut::new();
    put_portal(&mut out, "SELECT set_config('app.suspended', 'mine', false)", 1);
    frontend::put_sync(&mut out);
    for _ in 0..2 {
        client.send(&out).await;
        let tags: String = client.until_ready().await.iter().map(|frame| char::from(frame.tag)).collect();
        assert_eq!(tags, "12DsZ");
        let read = "SELECT current_setting('app.suspended', true)";
        assert_eq!(value(&client.query(read).await).as_deref(), Some("mine"));
        let mut other = session().await;
        for _ in 0..4 {
            assert_ne!(value(&other.query(read).await).as_deref(), Some("mine"));
        }
    }
    for found in found_by_others("current_setting('app.suspended', true)").await {
        assert_ne!(found, "mine");
    }
}

/// All that is set here, in one row.
const ALL: &str = "coalesce(current_setting('app.one', true), '') || '/' || \
                   coalesce(current_setting('app.two', true), '') || '/' || current_setting('work_mem') || '/' || \
                   current_setting('extra_float_digits')";
/// What a server has by itself.
const NOTHING_SET: &str = "//4MB/1";

/// Command tags, values, SQLSTATEs and status; no notices.
fn told(frames: &[Frame]) -> Vec<String> {
    let text = |body: &[u8]| String::from_utf8_lossy(body).trim_end_matches('\0').to_owned();
    let told = |frame: &Frame| match frame.tag {
        b'E' => frame.field(b'C'),
        b'C' | b'Z' => Some(text(&frame.body)),
        b'D' => Some(text(&frame.body[6..])),
        _ => None,
    };
    frames.iter().filter_map(told).collect()
}

async fn assert_nothing_is_found(after: &str) {
    for found in found_by_others(ALL).await {
        assert_eq!(found, NOTHING_SET, "after {after}");
    }
}

#[tokio::test]
async fn savepoints_undo_parameters_before_and_after_there_is_a_server() {
    let sequences: [&[&str]; 12] = [
        &["SET app.one = '1'", "BEGIN", "SAVEPOINT s", "RESET app.one", "ROLLBACK TO s", "SELECT 1", "COMMIT"],
        &["BEGIN", "SAVEPOINT s", "SET app.one = '1'", "ROLLBACK TO s", "COMMIT"],
        &["BEGIN", "SAVEPOINT a", "SET app.one = '1'", "SAVEPOINT b", "RELEASE a", "ROLLBACK TO b", "COMMIT"],
        &["BEGIN", "SAVEPOINT a", "SET app.one = '1'", "RELEASE a", "ROLLBACK TO a", "ROLLBACK"],
        &["BEGIN", "SELECT 1", "SAVEPOINT a", "SET app.one = '1'", "SAVEPOINT b", "SET app.two = '2'"],
        &["ROLLBACK TO a", "COMMIT"],
        &["BEGIN; SET app.one = '3'; SAVEPOINT s; SELECT 1/0", "ROLLBACK TO s", "COMMIT"],
        &["BEGIN", "SAVEPOINT s", "SET TRANSACTION READ ONLY", "ROLLBACK TO s", "SHOW transaction_read_only"],
        &["COMMIT"],
        &[
            "BEGIN READ ONLY",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "COMMIT AND CHAIN",
            "COMMIT AND CHAIN",
            "SHOW transaction_isolation",
            "SHOW transaction_read_only",
            "COMMIT",
        ],
        &[
            "BEGIN",
            "SET transaction_isolation = 'repeatable read'",
            "SAVEPOINT s",
            "SET TRANSACTION READ ONLY",
            "ROLLBACK TO s",
            "ROLLBACK AND CHAIN",
            "SHOW transaction_isolation",
            "SHOW transaction_read_only",
            "ROLLBACK",
        ],
        &["SET app.two = '4'", "COMMIT; SET app.two = '5'; SELECT 1/0"],
    ];
    let (mut server, mut client) = (direct().await, session().await);
    let read = format!("SELECT {ALL}");
    for sequence in sequences {
        for sql in sequence.iter().copied().chain([&*read]) {
            assert_eq!(told(&client.query(sql).await), told(&server.query(sql).await), "{sql} of {sequence:?}");
        }
        assert_nothing_is_found(&format!("{sequence:?}")).await;
    }
}

/// PgWard tells an invalid value with the first statement, not with its SET.
#[tokio::test]
async fn a_savepoint_brings_back_a_transaction_whose_parameter_is_invalid() {
    let mut client = session().await;
    for (sql, last) in [
        ("BEGIN", "T"),
        ("SAVEPOINT s", "T"),
        ("SET work_mem = 'nonsense'", "T"),
        ("SELECT 1", "E"),
        ("SELECT 1", "E"),
        ("ROLLBACK TO s", "T"),
        ("SET app.one = '1'", "T"),
        ("SELECT 1", "T"),
        ("COMMIT", "I"),
    ] {
        let told = told(&client.query(sql).await);
        assert_eq!(told.last().unwrap(), last, "{sql}: {told:?}");
        assert_eq!(told[0] == "22023" || told[0] == "25P02", last == "E", "{sql}: {told:?}");
    }
    assert_eq!(told(&client.query(&format!("SELECT {ALL}")).await)[0], "1//4MB/1");
}

/// xorshift64*: the same sequences in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % below
    }

    fn parameter(&mut self) -> (&'static str, String) {
        let n = self.next(3);
        match self.next(4) {
            0 => ("app.one", n.to_string()),
            1 => ("app.two", n.to_string()),
            2 => ("work_mem", format!("{}kB", 1000 + n)),
            _ => ("extra_float_digits", n.to_string()),
        }
    }

    fn statement(&mut self) -> String {
        let (name, value) = self.parameter();
        let savepoint = ["a", "b", "\"A\""][self.next(3)];
        match self.next(20) {
            0 | 1 => "BEGIN".to_owned(),
            2 => "COMMIT".to_owned(),
            3 => "ROLLBACK".to_owned(),
            4..7 => format!("SAVEPOINT {savepoint}"),
            7 => format!("RELEASE {savepoint}"),
            8 | 9 => format!("ROLLBACK TO {savepoint}"),
            10..13 => format!("SET {name} = '{value}'"),
            13 => format!("SET LOCAL {name} = '{value}'"),
            14 => format!("RESET {name}"),
            15 if self.next(3) == 0 => "RESET ALL".to_owned(),
            16 => format!("SELECT set_config('{name}', '{value}', false)"),
            17 if self.next(3) == 0 => "SELECT 1/0".to_owned(),
            18 if self.next(3) == 0 => "COMMIT AND CHAIN".to_owned(),
            _ => format!("SELECT {ALL}"),
        }
    }

    fn message(&mut self) -> String {
        match self.next(6) {
            0 => [self.statement(), self.statement(), self.statement()].join("; "),
            _ => self.statement(),
        }
    }
}

#[tokio::test]
async fn random_transactions_leave_a_sessions_parameters_as_on_a_server() {
    let read = format!("SELECT {ALL}");
    for seed in 1..=24 {
        let mut random = Random(seed * 7919);
        let (mut server, mut client) = (direct().await, session().await);
        let mut said = Vec::new();
        for n in 0..60 {
            let sql = match n {
                58 => "ROLLBACK".to_owned(),
                59 => read.clone(),
                _ => random.message(),
            };
            said.push(sql.clone());
            let (through, directly) = (told(&client.query(&sql).await), told(&server.query(&sql).await));
            assert_eq!(through, directly, "seed {seed}: {said:#?}");
        }
        if seed % 4 == 0 {
            assert_nothing_is_found(&format!("{said:#?}")).await;
        }
    }
}

#[tokio::test]
async fn a_commit_that_no_statement_went_before_keeps_no_invalid_parameter() {
    let mut client = session().await;
    let read = format!("SELECT {ALL}");
    for commit in ["COMMIT", "COMMIT AND CHAIN"] {
        client.query("BEGIN").await;
        assert_eq!(told(&client.query("SET work_mem = 'nonsense'").await), ["SET", "T"]);
        assert_eq!(told(&client.query(commit).await), ["22023", "I"]);
        assert_eq!(told(&client.query(&read).await)[0], NOTHING_SET);
    }
    client.query("BEGIN").await;
    client.query("SET work_mem = 'nonsense'").await;
    let mut out = BytesMut::new();
    put_portal(&mut out, "COMMIT", 0);
    frontend::put_sync(&mut out);
    client.send(&out).await;
    assert_eq!(told(&client.until_ready().await), ["22023", "E"]);
    assert_eq!(told(&client.query("ROLLBACK").await), ["ROLLBACK", "I"]);
    // Twice: the second time the parameter is known.
    for sql in ["BEGIN", "SET app.one = '7'", "COMMIT", "BEGIN", "SET app.one = '7'", "COMMIT AND CHAIN", "COMMIT"] {
        let told = told(&client.query(sql).await);
        assert_eq!(sql.split(' ').next(), told.first().map(String::as_str), "{told:?}");
    }
    assert_eq!(told(&client.query(&read).await)[0], "7//4MB/1");
}

/// A client's named statement is read by its own TimeZone and DateStyle, though another client's of the same text stands
/// prepared on the same server, also where the parameter is changed in a transaction, or in the pipeline itself.
#[tokio::test]
async fn a_named_statement_is_read_by_its_clients_settings() {
    const NAMED: &str = "SELECT extract(epoch FROM '2024-01-01 00:00'::timestamptz)::int8 || ' ' || \
                         ('03/04/2020'::date - '2020-01-01'::date)";
    let (mut utc, mut india, mut chicago) = (session().await, session().await, session().await);
    india.query("SET TimeZone = 'Asia/Kolkata'").await;
    india.query("SET DateStyle = 'ISO, DMY'").await;
    chicago.query("SET TimeZone = 'America/Chicago'").await;
    let mut parse = BytesMut::new();
    frontend::put_parse(&mut parse, b"s", NAMED.as_bytes(), &[]);
    frontend::put_sync(&mut parse);
    let mut run = BytesMut::new();
    put_named(&mut run);
    frontend::put_sync(&mut run);
    for client in [&mut utc, &mut india, &mut chicago] {
        client.send(&parse).await;
        assert_eq!(told(&client.until_ready().await), ["I"]);
    }
    for _ in 0..3 {
        for (client, want) in
            [(&mut india, "1704047400 93"), (&mut utc, "1704067200 63"), (&mut chicago, "1704088800 63")]
        {
            client.query("BEGIN").await;
            client.send(&run).await;
            assert_eq!(told(&client.until_ready().await), [want, "SELECT 1", "T"]);
            client.query("COMMIT").await;
        }
    }
    // Of the transaction alone, before it has a server and after.
    for first in ["SAVEPOINT s", "SELECT 1"] {
        for sql in ["BEGIN", first, "SET LOCAL TimeZone = 'Asia/Kolkata'"] {
            chicago.query(sql).await;
        }
        chicago.send(&run).await;
        assert_eq!(told(&chicago.until_ready().await)[0], "1704047400 63");
        chicago.query("COMMIT").await;
        for (client, want) in [(&mut chicago, "1704088800 63"), (&mut utc, "1704067200 63")] {
            client.query("BEGIN").await;
            client.send(&run).await;
            assert_eq!(told(&client.until_ready().await)[0], want);
            client.query("COMMIT").await;
        }
    }
    // By a call that is not followed: what the server has then is not lent to others, nor are those of this client.
    let mut config = session().await;
    for sql in ["BEGIN", "SELECT set_config('TimeZone', 'Asia/Kolkata', true)"] {
        config.query(sql).await;
    }
    let text = format!("{NAMED} -- c");
    let mut parse_and_run = BytesMut::new();
    frontend::put_parse(&mut parse_and_run, b"s", text.as_bytes(), &[]);
    put_named(&mut parse_and_run);
    frontend::put_sync(&mut parse_and_run);
    config.send(&parse_and_run).await;
    assert_eq!(told(&config.until_ready().await)[0], "1704047400 63");
    config.query("COMMIT").await;
    let mut plain = session().await;
    for (client, said) in [(&mut plain, &parse_and_run), (&mut config, &run)] {
        client.query("BEGIN").await;
        client.send(said).await;
        assert_eq!(told(&client.until_ready().await)[0], "1704067200 63");
        client.query("COMMIT").await;
    }
    // In the pipeline, which is one transaction: what the server has then is not lent to others.
    let mut pipeline = BytesMut::new();
    put_portal(&mut pipeline, "SET TimeZone = 'Asia/Kolkata'", 0);
    frontend::put_parse(&mut pipeline, b"t", format!("{NAMED} -- t").as_bytes(), &[]);
    frontend::put_sync(&mut pipeline);
    let mut piped = session().await;
    piped.send(&pipeline).await;
    assert_eq!(told(&piped.until_ready().await), ["SET", "I"]);
    parse.clear();
    frontend::put_parse(&mut parse, b"s2", format!("{NAMED} -- t").as_bytes(), &[]);
    frame::put(&mut parse, b'B', b"\0s2\0\0\0\0\0\0\0");
    frame::put(&mut parse, b'E', b"\0\0\0\0\0");
    frontend::put_sync(&mut parse);
    utc.query("BEGIN").await;
    utc.send(&parse).await;
    assert_eq!(told(&utc.until_ready().await)[0], "1704067200 63");
}

/// Bind and Execute of the statement "s".
fn put_named(out: &mut BytesMut) {
    frame::put(out, b'B', b"\0s\0\0\0\0\0\0\0");
    frame::put(out, b'E', b"\0\0\0\0\0");
}

#[tokio::test]
async fn a_transaction_whose_modes_are_not_known_is_not_chained() {
    let mut client = session().await;
    for sql in ["BEGIN", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET work_mem = 'nonsense'"] {
        assert_eq!(told(&client.query(sql).await).last().unwrap(), "T");
    }
    assert_eq!(told(&client.query("SELECT 1").await), ["22023", "E"]);
    assert_eq!(told(&client.query("ROLLBACK AND CHAIN").await), ["0A000", "E"]);
    assert_eq!(told(&client.query("ROLLBACK").await), ["ROLLBACK", "I"]);
}
