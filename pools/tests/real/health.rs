//! Watching nodes, and reloads.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use pgward_config::{Class, PoolKind};
use pgward_pools::{Failure, Standing};

use crate::cluster::Cluster;
use crate::fleet::{SMALL, ask, config, eventually, release, start};

const READS: PoolKind = PoolKind::ReadOnly;

#[tokio::test]
async fn a_replica_serves_reads_only_and_its_lag_is_known() {
    let primary = Cluster::primary();
    let replica = primary.replica();
    let fleet = start(&config(&[primary.port, replica.port], SMALL), None).await;
    let [primary_node, replica_node] = fleet.shard(0) else { panic!("two nodes") };
    eventually(Duration::from_secs(10), "both are up", || primary_node.state().up && replica_node.state().up).await;
    assert_eq!(primary_node.state().lag, None);
    let is_current = || replica_node.state().lag.is_some_and(|lag| lag < Duration::from_secs(1));
    eventually(Duration::from_secs(5), "an idle replica is current", is_current).await;

    let mut lease = replica_node.acquire(READS, Class::Normal, "app").await.unwrap();
    assert_eq!(ask(&mut lease, "SELECT pg_is_in_recovery()").await.unwrap(), ["t"]);
    assert_eq!(ask(&mut lease, "SHOW default_transaction_read_only").await.unwrap(), ["on"]);
    assert!(ask(&mut lease, "CREATE TABLE t ()").await.is_err());
    drop(lease);

    replica.psql("SELECT pg_wal_replay_pause()");
    primary.psql("CREATE TABLE t ()");
    let grows = || replica_node.state().lag.is_some_and(|lag| lag > Duration::from_millis(1500));
    eventually(Duration::from_secs(8), "a paused replica grows older", grows).await;
    replica.psql("SELECT pg_wal_replay_resume()");
    eventually(Duration::from_secs(5), "it is current again", is_current).await;
}

#[tokio::test]
async fn a_dead_replica_is_noticed_told_to_its_sessions_and_welcomed_back() {
    let primary = Cluster::primary();
    let replica = primary.replica();
    let fleet = start(&config(&[primary.port, replica.port], SMALL), None).await;
    let node = &fleet.shard(0)[1];
    let mut lease = node.acquire(READS, Class::Normal, "app").await.unwrap();
    replica.kill();
    let killed = poll_fn(|cx| if lease.poll_killed(cx) { Poll::Ready(()) } else { Poll::Pending });
    tokio::time::timeout(Duration::from_secs(5), killed).await.expect("the session is told");
    assert!(!node.state().up);
    assert!(node.try_acquire(READS, Class::Normal, "app").is_none());
    drop(lease);

    replica.start();
    eventually(Duration::from_secs(10), "it is up again", || node.state().up).await;
    let mut lease = node.acquire(READS, Class::Normal, "app").await.unwrap();
    assert_eq!(ask(&mut lease, "SELECT 1").await.unwrap(), ["1"]);
}

#[tokio::test]
async fn a_frozen_replica_is_noticed_by_its_silence() {
    let primary = Cluster::primary();
    let replica = primary.replica();
    let fleet = start(&config(&[primary.port, replica.port], SMALL), None).await;
    let node = &fleet.shard(0)[1];
    let mut lease = node.acquire(READS, Class::Normal, "app").await.unwrap();
    replica.freeze();
    let killed = poll_fn(|cx| if lease.poll_killed(cx) { Poll::Ready(()) } else { Poll::Pending });
    tokio::time::timeout(Duration::from_secs(6), killed).await.expect("three probes of half a second");
    assert!(!node.state().up);
    assert!(fleet.shard(0)[0].state().up);
    replica.thaw();
    eventually(Duration::from_secs(10), "it is up again", || node.state().up).await;
}

#[tokio::test]
async fn those_who_wait_for_a_node_learn_at_once_that_it_is_down() {
    let cluster = Cluster::primary();
    let patient = SMALL.replace("1500ms", "30s");
    let fleet = start(&config(&[cluster.port], &patient), None).await;
    let node = &fleet.shard(0)[0];
    let leases = (0..3).map(|_| node.acquire(PoolKind::General, Class::Normal, "app"));
    let held = futures_util::future::join_all(leases).await;
    let (outcome, ()) = tokio::join!(node.acquire(PoolKind::General, Class::Normal, "app"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cluster.kill();
        node.report_failure(Failure::Lost);
    });
    assert!(outcome.unwrap_err().is_node_fault());
    drop(held);
}

#[tokio::test]
async fn a_node_of_the_wrong_role_is_not_used() {
    let primary = Cluster::primary();
    let replica = primary.replica();
    let fleet = start(&config(&[replica.port, primary.port], SMALL), None).await;
    assert!(fleet.shard(0).iter().all(|node| !node.state().up));
    let down = || fleet.status().iter().all(|node| node.standing == Standing::Down);
    eventually(Duration::from_secs(5), "both are down", down).await;
}

#[tokio::test]
async fn a_reload_keeps_what_did_not_change_and_drains_what_left() {
    let primary = Cluster::primary();
    let replica = primary.replica();
    let before = start(&config(&[primary.port, replica.port], SMALL), None).await;
    let mut held = before.shard(0)[1].acquire(READS, Class::Normal, "app").await.unwrap();
    let kept = before.shard(0)[0].try_acquire(PoolKind::General, Class::Normal, "app").unwrap();
    let pid = kept.pid();
    release(kept);

    let after = start(&config(&[primary.port], SMALL), Some(&before)).await;
    assert!(std::sync::Arc::ptr_eq(&before.shard(0)[0], &after.shard(0)[0]));
    drop(before);
    assert_eq!(after.shard(0)[0].try_acquire(PoolKind::General, Class::Normal, "app").unwrap().pid(), pid);

    assert_eq!(ask(&mut held, "SELECT 1").await.unwrap(), ["1"], "what is in use goes on");
    let killed = poll_fn(|cx| if held.poll_killed(cx) { Poll::Ready(()) } else { Poll::Pending });
    tokio::time::timeout(Duration::from_secs(5), killed).await.expect("until the drain timeout");
    drop(held);
    let left = || replica.psql("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgward%'") == "0";
    eventually(Duration::from_secs(5), "nobody is connected to the removed node", left).await;
}

#[tokio::test]
async fn changed_figures_make_new_pools_on_a_node_that_stays_up() {
    let primary = Cluster::primary();
    let before = start(&config(&[primary.port], SMALL), None).await;
    let held = before.shard(0)[0].acquire(PoolKind::General, Class::Normal, "app").await.unwrap();

    let larger = SMALL.replace("min = 1\nmax = 4\nwait_timeout", "min = 3\nmax = 8\nwait_timeout");
    let after = start(&config(&[primary.port], &larger), Some(&before)).await;
    let general = after.status()[0].pools.iter().find(|pool| pool.kind == PoolKind::General).copied().unwrap();
    assert!(after.shard(0)[0].state().up);
    assert_eq!((general.open, general.max), (3, 8));
    let pid = held.pid();
    release(held);
    let gone = || primary.psql(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")) == "0";
    eventually(Duration::from_secs(5), "the old pool closes what it gets back", gone).await;
}
