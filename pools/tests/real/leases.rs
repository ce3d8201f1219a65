//! Lending servers: reuse, exhaustion, emergencies, roles, errors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgward_config::{Class, PoolKind};
use pgward_pools::{AcquireError, PoolStatus};

use crate::cluster::{Cluster, free_port};
use crate::fleet::{SMALL, ask, config, eventually, release, start};

const GENERAL: PoolKind = PoolKind::General;

#[tokio::test]
async fn a_released_server_is_used_again_and_a_dropped_one_is_closed() {
    let cluster = Cluster::primary();
    let fleet = start(&config(&[cluster.port], SMALL), None).await;
    let node = &fleet.shard(0)[0];

    let mut lease = node.try_acquire(GENERAL, Class::Normal, "app").expect("opened ahead");
    let pid = lease.pid();
    assert_eq!(ask(&mut lease, "SELECT current_setting('application_name')").await.unwrap(), ["pgward"]);
    release(lease);

    let mut lease = node.try_acquire(GENERAL, Class::Normal, "app").expect("given back");
    assert_eq!(lease.pid(), pid);
    ask(&mut lease, "BEGIN").await.unwrap();
    drop(lease);

    let lease = node.acquire(GENERAL, Class::Normal, "app").await.unwrap();
    assert_ne!(lease.pid(), pid);
    let gone = || cluster.psql(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")) == "0";
    eventually(Duration::from_secs(5), "the dropped server's backend ends", gone).await;
}

#[tokio::test]
async fn parameters_are_known_without_attaching() {
    let cluster = Cluster::primary();
    let fleet = start(&config(&[cluster.port], SMALL), None).await;
    let parameters = fleet.shard(0)[0].parameters().unwrap();
    let version = cluster.psql("SHOW server_version");
    assert!(parameters.iter().any(|(name, value)| name == "server_version" && *value == version));
    assert!(parameters.iter().any(|(name, value)| name == "client_encoding" && value == "UTF8"));
}

/// Whoever sets it on the server, before the login or behind it: strings end where the routing saw their end.
#[tokio::test]
async fn strings_have_no_escapes_whatever_the_server_has_been_set_to() {
    let cluster = Cluster::primary();
    cluster.psql("ALTER ROLE app SET standard_conforming_strings = off");
    cluster.psql("ALTER DATABASE postgres SET standard_conforming_strings = off");
    let fleet = start(&config(&[cluster.port], SMALL), None).await;
    let mut lease = fleet.shard(0)[0].acquire(GENERAL, Class::Normal, "app").await.unwrap();
    assert_eq!(ask(&mut lease, "SHOW standard_conforming_strings").await.unwrap(), ["on"]);
    cluster.psql("ALTER SYSTEM SET standard_conforming_strings = off");
    let loaded = || cluster.psql("SELECT pg_conf_load_time()");
    let before = loaded();
    cluster.psql("SELECT pg_reload_conf()");
    eventually(Duration::from_secs(5), "the file is read", || loaded() != before).await;
    for sql in ["RESET standard_conforming_strings", "RESET ALL", "DISCARD ALL"] {
        ask(&mut lease, sql).await.unwrap();
        assert_eq!(ask(&mut lease, "SELECT length('\\n')").await.unwrap(), ["2"], "{sql}");
    }
}

#[tokio::test]
async fn an_exhausted_pool_ends_in_an_error_and_emergencies_overflow_into_its_reserve() {
    let cluster = Cluster::primary();
    let fleet = start(&config(&[cluster.port], SMALL), None).await;
    let node = &fleet.shard(0)[0];
    let mut normal = Vec::new();
    let error = loop {
        match node.acquire(GENERAL, Class::Normal, "app").await {
            Ok(lease) => normal.push(lease),
            Err(error) => break error,
        }
    };
    assert_eq!(normal.len(), 3, "one of four is emergency's");
    assert!(matches!(error, AcquireError::Timeout { .. }), "{error}");
    assert_eq!(error.sqlstate(), "53300");

    let mut pools = Vec::new();
    let mut emergencies = Vec::new();
    for _ in 0..3 {
        let lease = node.acquire(PoolKind::Emergency, Class::Emergency, "app").await.unwrap();
        pools.push(lease.pool());
        emergencies.push(lease);
    }
    assert_eq!(pools, [PoolKind::Emergency, PoolKind::Emergency, GENERAL]);

    // The next server that anybody gives back is the emergency's, ahead of a statement that waits for longer.
    let (waited, emergency) = tokio::join!(node.acquire(GENERAL, Class::Critical, "app"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (emergency, ()) = tokio::join!(node.acquire(PoolKind::Emergency, Class::Emergency, "app"), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            release(normal.pop().unwrap());
        });
        emergency
    });
    assert!(waited.is_err());
    assert_eq!(emergency.unwrap().pool(), GENERAL);
}

#[tokio::test]
async fn nothing_but_emergency_uses_the_emergency_pool() {
    let cluster = Cluster::primary();
    let fleet = start(&config(&[cluster.port], SMALL), None).await;
    let node = &fleet.shard(0)[0];
    let refused = node.acquire(PoolKind::Emergency, Class::Critical, "app").await.unwrap_err();
    assert!(matches!(refused, AcquireError::NotEmergency(Class::Critical)));
    assert!(node.try_acquire(PoolKind::Emergency, Class::Emergency, "app").is_some(), "opened ahead");
}

#[tokio::test]
async fn roles_share_the_connections_of_a_pool() {
    let cluster = Cluster::primary();
    let more = format!("{SMALL}\n").replace("min = 1\nmax = 4\nwait_timeout = \"1500ms\"", "min = 0\nmax = 2");
    let fleet = start(&config(&[cluster.port], &more), None).await;
    let node = &fleet.shard(0)[0];
    let general = || fleet.status()[0].pools.iter().find(|pool| pool.kind == GENERAL).copied().unwrap();
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgward' AND usename = 'report'";

    // One of two is emergency's, so only an emergency can fill the pool.
    let app = node.acquire(GENERAL, Class::Normal, "app").await.unwrap();
    let second = node.acquire(GENERAL, Class::Emergency, "app").await.unwrap();
    release(app);
    release(second);
    assert_eq!((general().open, general().idle), (2, 2));

    let mut report = node.acquire(GENERAL, Class::Normal, "report").await.unwrap();
    assert_eq!(ask(&mut report, "SELECT current_user").await.unwrap(), ["report"]);
    assert_eq!(general().open, 2, "a server of the other role made room");
    release(report);
    assert_eq!(cluster.psql(count), "1");
}

#[tokio::test]
async fn a_refused_connection_is_an_error_at_once() {
    let fleet = start(&config(&[free_port()], SMALL), None).await;
    let node = &fleet.shard(0)[0];
    assert!(!node.state().up);
    let started = Instant::now();
    let error = node.acquire(GENERAL, Class::Normal, "app").await.unwrap_err();
    assert!(matches!(error, AcquireError::Connect(_)), "{error}");
    assert_eq!(error.sqlstate(), "08006");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn each_of_many_waiters_learns_of_a_failed_login() {
    let cluster = Cluster::primary();
    cluster.psql("ALTER ROLE report NOLOGIN");
    let fleet = start(&config(&[cluster.port], &SMALL.replace("1500ms", "30s")), None).await;
    let node = &fleet.shard(0)[0];
    let started = Instant::now();
    let waits = (0..3).map(|_| node.acquire(GENERAL, Class::Normal, "report"));
    for outcome in futures_util::future::join_all(waits).await {
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains("not permitted to log in"), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(node.acquire(GENERAL, Class::Normal, "app").await.is_ok(), "the node is up for others");
    eventually(Duration::from_secs(3), "the node stays up", || node.state().up).await;
}

#[tokio::test]
async fn a_server_that_postgresql_closed_is_not_lent() {
    let cluster = Cluster::primary();
    let fleet = start(&config(&[cluster.port], SMALL), None).await;
    let node = &fleet.shard(0)[0];
    let lease = node.acquire(GENERAL, Class::Normal, "app").await.unwrap();
    let pid = lease.pid();
    release(lease);
    assert_eq!(cluster.psql(&format!("SELECT pg_terminate_backend({pid}, 5000)")), "t");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut lease = node.acquire(GENERAL, Class::Normal, "app").await.unwrap();
    assert_eq!(ask(&mut lease, "SELECT 1").await.unwrap(), ["1"]);
}

#[tokio::test]
async fn a_statement_can_be_cancelled() {
    let cluster = Cluster::primary();
    let fleet = start(&config(&[cluster.port], SMALL), None).await;
    let mut lease = fleet.shard(0)[0].acquire(GENERAL, Class::Normal, "app").await.unwrap();
    let target = lease.cancel_target();
    let (answer, ()) = tokio::join!(ask(&mut lease, "SELECT pg_sleep(30)"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        target.send().await.unwrap();
    });
    assert!(answer.unwrap_err().contains("canceling statement"));
}

#[tokio::test]
async fn acquiring_may_be_cancelled_at_any_time() {
    let cluster = Cluster::primary();
    let fleet = start(&config(&[cluster.port], SMALL), None).await;
    let node = &fleet.shard(0)[0];
    for round in 0..60 {
        let wait = Duration::from_micros(100 * round);
        let held = (0..3).map(|_| tokio::time::timeout(wait, node.acquire(GENERAL, Class::Normal, "app")));
        futures_util::future::join_all(held).await.into_iter().flatten().flatten().for_each(drop);
    }
    eventually(Duration::from_secs(5), "all slots are free", || node.state().connections == 0).await;
    let leases = (0..3).map(|_| node.acquire(GENERAL, Class::Normal, "app"));
    assert!(futures_util::future::join_all(leases).await.iter().all(Result::is_ok));
}

/// Many sessions on few servers, each with its turn, and emergencies that do not wait meanwhile; what the general pool
/// says of itself afterwards.
async fn crowd(cluster: &Cluster) -> impl Fn() -> PoolStatus {
    let more = SMALL.replace("1500ms", "20s").replace("min = 1\nmax = 4\nwait", "min = 1\nmax = 10\nwait");
    let fleet = Arc::new(start(&config(&[cluster.port], &more), None).await);
    let sessions: Vec<_> = (0..64)
        .map(|n| {
            let fleet = fleet.clone();
            tokio::spawn(async move {
                let class = [Class::Critical, Class::High, Class::Normal, Class::Low][n % 4];
                for _ in 0..20 {
                    let mut lease = fleet.shard(0)[0].acquire(GENERAL, class, "app").await.unwrap();
                    ask(&mut lease, "SELECT pg_sleep(0.002)").await.unwrap();
                    release(lease);
                }
            })
        })
        .collect();
    let node = &fleet.shard(0)[0];
    release(node.acquire(PoolKind::Emergency, Class::Emergency, "app").await.unwrap());
    for _ in 0..30 {
        let lease = node.try_acquire(PoolKind::Emergency, Class::Emergency, "app");
        release(lease.expect("an emergency does not wait, whatever the others do"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for session in sessions {
        session.await.unwrap();
    }
    move || fleet.status()[0].pools.iter().find(|pool| pool.kind == GENERAL).copied().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_on_few_servers_all_get_their_turn_and_emergencies_at_once() {
    let cluster = Cluster::primary();
    let general = crowd(&cluster).await;
    assert_eq!((general().in_use, general().waiting), (0, [0; 5]));
    assert!(general().open <= general().max);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_everybody_is_gone_all_open_connections_are_idle() {
    let cluster = Cluster::primary();
    let general = crowd(&cluster).await;
    eventually(Duration::from_secs(10), "all that is open is idle", || general().idle == general().open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_looks_for_an_idle_server_opens_none() {
    let cluster = Cluster::primary();
    let fleet = Arc::new(start(&config(&[cluster.port], SMALL), None).await);
    let general = || fleet.status()[0].pools.iter().find(|pool| pool.kind == GENERAL).copied().unwrap();
    assert_eq!((general().open, general().idle), (1, 1));
    let looking: Vec<_> = (0..2)
        .map(|_| {
            let fleet = fleet.clone();
            tokio::spawn(async move {
                for _ in 0..20_000 {
                    fleet.shard(0)[0].try_acquire(GENERAL, Class::Normal, "app").into_iter().for_each(release);
                }
            })
        })
        .collect();
    for looker in looking {
        looker.await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((general().open, general().idle), (1, 1));
}
