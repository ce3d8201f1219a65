//! More connections than the process may have open files: emergencies still come in.

use std::net::TcpStream;
use std::process::Command;

use pgward_tests::{Options, WireClient, answered_by};

use crate::start;

/// Connections that come and say nothing.
const CROWD: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_descriptors_an_emergency_comes_in() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 40, ..Options::default() }).await;
    let pid = pgward.with_instance(|instance| instance.pid());
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = format!("--nofile={}:", open + CROWD / 2);
    let prlimit = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).output().unwrap();
    assert!(prlimit.status.success(), "{prlimit:?}");

    let address = ("127.0.0.1", pgward.port("general"));
    let crowd: Vec<TcpStream> = (0..CROWD).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut late = WireClient::open(pgward.port("general")).await;
    assert_eq!(late.frame().await.and_then(|frame| frame.field(b'C')).as_deref(), Some("53300"));
    let dispatcher = pgward.connect("emergency", "dispatcher").await;
    assert_eq!(answered_by(&dispatcher, &pgward.patient("us-east", 0)).await, "us-east-patients/primary");
    drop(crowd);
}
