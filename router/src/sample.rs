//! The reference deployment, made small, for tests: four regions, four shards with two replicas each.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pgward_config::{
    Audit, AuditPolicy, AuthMethod, Class, Config, DefaultShard, Directory, Health, KeyType, Listener, Node, NodeId,
    NodeRole, PatientRegion, Pool, PoolMode, Prohibition, Proxy, Region, RegionId, Secret, Shard, ShardId, Sharding,
    Strategy, Undeclared, User, Workload,
};

/// Region, patient region, origins that it lets in, regions that it prohibits.
const REGIONS: [(&str, &str, &[&str], &[&str]); 4] = [
    ("us-east-1", "us-east", &["us-west-2"], &["eu-west-1"]),
    ("us-west-2", "us-west", &["us-east-1"], &["eu-west-1"]),
    ("eu-west-1", "eu-west", &[], &["us-east-1"]),
    ("ap-south-1", "ap-south", &[], &[]),
];

/// The reference deployment; patients of unserved regions fall back to us-east from us-east-1.
pub(crate) fn config() -> Config {
    Config {
        hash: "0123456789abcdef".into(),
        path: "pgward.toml".into(),
        proxy: Proxy {
            instance: "pgward-1".into(),
            peer_id: None,
            max_cancels_per_second: 100,
            database: "health".into(),
            workers: 1,
            control_socket: "pgward.sock".into(),
            max_clients: 100,
            max_startup_bytes: 10_000,
            startup_timeout: Duration::from_secs(15),
            max_message_bytes: 1 << 20,
            max_prepared: 100,
            max_prepared_bytes: 1 << 20,
            server_prepared: 10,
            idle_in_transaction_timeout: None,
            connect_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
        },
        peers: vec![],
        listeners: vec![listener("us-east-1")],
        http: None,
        plain: None,
        users: vec![user(Workload::Care)],
        server_roles: vec![],
        sharding: Sharding {
            strategy: Strategy::PatientRegion,
            key_type: KeyType::Bigint,
            undeclared_tables: Undeclared::Refuse,
            copy_across_shards: true,
            default_shard: Some(DefaultShard {
                shard: ShardId::new("us-east-patients"),
                origins: vec![RegionId::new("us-east-1"), RegionId::new("ca-central-1"), RegionId::new("eu-central-1")],
            }),
        },
        tables: vec![],
        functions: vec![],
        regions: REGIONS
            .iter()
            .map(|(id, _, access_from, prohibited)| region(id, access_from, prohibited))
            .chain([region("ca-central-1", &[], &[]), region("sa-east-1", &[], &[])])
            .collect(),
        shards: REGIONS.iter().map(|(id, patient_region, ..)| shard(id, patient_region)).collect(),
        pools: std::array::from_fn(|_| Pool {
            min: 1,
            max: 10,
            idle_timeout: Duration::from_secs(300),
            max_lifetime: Duration::from_secs(3600),
            check_interval: Duration::from_secs(30),
            wait_timeout: Duration::from_secs(5),
            max_waiting: 100,
            max_pinned: 5,
        }),
        health: Health {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            unhealthy_after: 3,
            healthy_after: 2,
            max_replica_lag: Duration::from_secs(60),
        },
        directory: Directory::Hash,
        audit: Audit {
            path: "audit.jsonl".into(),
            policy: AuditPolicy::Written,
            key: Secret::new("audit"),
            rotate_bytes: None,
            spool_bytes: 1 << 20,
        },
    }
}

/// A listener with this origin.
pub(crate) fn listener(origin: &str) -> Listener {
    Listener {
        name: "main".into(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 6432)),
        origin: RegionId::new(origin),
        class: None,
        auth: AuthMethod::Trust,
        pool_mode: None,
    }
}

/// A user with this kind of work.
pub(crate) fn user(workload: Workload) -> User {
    User {
        name: "ward".into(),
        verifier: None,
        class: Class::Normal,
        ceiling: Class::Emergency,
        workload,
        server_role: "app".into(),
        may_set_role: Vec::new(),
        pool_mode: PoolMode::Transaction,
        max_clients: None,
    }
}

fn region(id: &str, access_from: &[&str], prohibited: &[&str]) -> Region {
    let ids = |ids: &[&str]| ids.iter().map(|id| RegionId::new(*id)).collect::<Vec<_>>();
    Region {
        id: RegionId::new(id),
        name: id.into(),
        frameworks: vec![],
        resident: true,
        authorities: vec![],
        zones: vec![],
        backup_region: None,
        replicas_in: vec![],
        access_from: ids(access_from),
        prohibited: ids(prohibited)
            .into_iter()
            .map(|region| Prohibition { region, reason: "data residency".into() })
            .collect(),
    }
}

fn shard(region: &str, patient_region: &str) -> Shard {
    let id = format!("{patient_region}-patients");
    let node = |name: &str, role| Node {
        id: NodeId::new(format!("{id}/{name}")),
        role,
        region: RegionId::new(region),
        host: "localhost".into(),
        port: 5432,
        dbname: Arc::from("health"),
        cpu_source: None,
    };
    Shard {
        id: ShardId::new(id.clone()),
        region: RegionId::new(region),
        patient_regions: vec![PatientRegion::new(patient_region)],
        hash_range: None,
        primary: node("primary", NodeRole::Primary),
        replicas: vec![node("replica-1", NodeRole::Replica), node("replica-2", NodeRole::Replica)],
        server_max_connections: None,
    }
}
