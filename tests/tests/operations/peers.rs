//! Two instances over the same servers: a cancel request that reaches the wrong one reaches its session all the same.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use pgward::demo::instance::Instance;
use pgward::demo::layout::Layout;
use pgward_tests::{Deployment, Frame, Options, Records, WireClient};

use crate::start;

/// A second instance, which knows the first and itself.
struct Second {
    _instance: Instance,
    layout: Layout,
    audit: std::path::PathBuf,
}

impl Second {
    fn beside(first: &Deployment) -> Self {
        let layout = Layout::on_free_ports().unwrap();
        let dir = &first.files().dir;
        let mut text = std::fs::read_to_string(first.files().config()).unwrap();
        let replace = |text: &mut String, from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            *text = text.replace(from, to);
        };
        for (old, new) in first.layout().listeners.iter().zip(&layout.listeners) {
            replace(&mut text, &format!("127.0.0.1:{}\"", old.port), &format!("127.0.0.1:{}\"", new.port));
        }
        let ports = [first.layout().http_port, layout.http_port].map(|port| format!("127.0.0.1:{port}\""));
        replace(&mut text, &ports[0], &ports[1]);
        replace(&mut text, "audit.jsonl", "audit-2.jsonl");
        replace(&mut text, "directory.db", "directory-2.db");
        replace(&mut text, "instance = \"demo\"", "instance = \"second\"\ncontrol_socket = \"second.sock\"");
        replace(&mut text, "peer_id = 1\n", "peer_id = 2\nmax_cancels_per_second = 5\n");
        let peer = |id: u16, port: u16| format!("\n[[peers]]\nid = {id}\naddress = \"localhost:{port}\"\n");
        text += &(peer(1, first.port("general")) + &peer(2, layout.listener("general").unwrap().port));
        let config = dir.join("second.toml");
        std::fs::write(&config, text).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_pgward-under-test"));
        let mut instance = Instance::start(program, &config, &dir.join("second.log")).unwrap();
        instance.await_ready(layout.http_port, &false.into()).unwrap();
        Self { _instance: instance, layout, audit: dir.join("audit-2.jsonl") }
    }

    fn port(&self) -> u16 {
        self.layout.listener("general").unwrap().port
    }

    /// How many cancel requests came to this.
    fn counted(&self, outcome: &str) -> u32 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.layout.http_port)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let head = format!("pgward_cancels_total{{outcome=\"{outcome}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&head)?.trim().parse().ok()).unwrap_or(0)
    }
}

fn first(layout: &mut Layout) {
    layout.proxy += "peer_id = 1\n";
}

/// Process id and key of the session that was greeted so.
fn key(greeting: &[Frame]) -> &[u8] {
    &greeting.iter().find(|frame| frame.tag == b'K').expect("a key").body
}

/// Sends a request with this process id and key, and waits until the connection was closed.
async fn cancel(port: u16, key: &[u8]) {
    let len = u32::try_from(key.len() + 8).unwrap();
    let mut connection = WireClient::open(port).await;
    connection.send(&[&len.to_be_bytes()[..], &80_877_102u32.to_be_bytes(), key].concat()).await;
    assert_eq!(connection.frame().await, None, "nothing is answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_reaches_the_other_instance_is_passed_on() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 40, tune: first }).await;
    let second = Second::beside(&pgward);
    let sleep = format!("SELECT pg_sleep(60) FROM patients WHERE id = '{}'", pgward.patient("us-east", 0).id);
    let server = pgward.on_server("us-east-patients/primary").await;
    for minor in [0, 2] {
        let (mut client, greeting) = WireClient::greeted(pgward.port("general"), "app", "demo-app", minor, &[]).await;
        let cancelled = async {
            let running = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(60)%'";
            while server.query(running, &[]).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            cancel(second.port(), key(&greeting)).await;
        };
        let (answer, ()) = tokio::join!(client.query(&sleep), cancelled);
        assert_eq!(answer.iter().find_map(|frame| frame.field(b'C')).as_deref(), Some("57014"), "3.{minor}");
    }
    assert_eq!(second.counted("passed_on"), 2);
    let of = |records: &Records| -> Vec<String> {
        let cancels = records.all.iter().filter(|record| record["event"] == "cancel");
        cancels.map(|record| format!("{}: {}", record["user"], record["detail"])).collect()
    };
    let records = pgward.records();
    assert_eq!(of(&records), ["\"app\": \"cancel request passed to the session's server\""; 2]);
    let named = records.all.iter().filter(|record| record["event"] == "cancel").all(|record| record["session"] != 0);
    assert!(named && records.text.contains("\"client\":\"127.0.0.1:"));
    assert_eq!(of(&Records::read(&second.audit)), ["\"\": \"cancel request passed on to peer 1\""; 2]);

    // Nobody has this id; and more than a second may take.
    for _ in 0..20 {
        cancel(second.port(), &[0, 0, 0, 1, 0, 9, 0, 3]).await;
    }
    let (unknown, above) = (second.counted("unknown_peer"), second.counted("above_rate"));
    assert_eq!(unknown + above, 20);
    assert!(unknown > 0 && above > 0, "{unknown} and {above}");
}
