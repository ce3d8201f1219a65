//! Nodes as declared and not, judged without a server.

use std::time::Duration;

use pgward_config::{
    KeyType, NodeId, NodeRole, PatientRegion, Pool, PoolKind, RegionId, Shard, ShardId, TableKind, Undeclared,
};

use super::judge::{Declared, Problem, judge};
use super::*;

fn node(id: &str, role: NodeRole) -> Node {
    Node {
        id: NodeId::new(id),
        role,
        region: RegionId::new("r"),
        host: "db".into(),
        port: 5432,
        dbname: "clinic".into(),
        cpu_source: None,
    }
}

fn shard(id: &str) -> Shard {
    Shard {
        id: ShardId::new(id),
        region: RegionId::new("r"),
        patient_regions: vec![PatientRegion::new(id)],
        hash_range: None,
        primary: node(&format!("{id}/primary"), NodeRole::Primary),
        replicas: vec![node(&format!("{id}/replica-1"), NodeRole::Replica)],
        server_max_connections: None,
    }
}

fn table(name: &str, kind: TableKind, key: Option<&str>) -> Table {
    Table {
        schema: "public".into(),
        name: name.into(),
        kind,
        key: key.map(Into::into),
        region: key.map(|_| "region".into()),
        columns: None,
    }
}

fn pool(max: u32) -> Pool {
    Pool {
        min: 0,
        max,
        idle_timeout: Duration::ZERO,
        max_lifetime: Duration::ZERO,
        check_interval: Duration::ZERO,
        wait_timeout: Duration::ZERO,
        max_waiting: 0,
        max_pinned: 0,
    }
}

fn patients(key_oid: u32) -> LiveTable {
    LiveTable {
        schema: "public".to_owned(),
        name: "patients".to_owned(),
        columns: vec![("id".to_owned(), key_oid), ("region".to_owned(), 25)],
        generated: Vec::new(),
        filled: Vec::new(),
        unlike: Vec::new(),
    }
}

fn facts(node: &Node, system: &str) -> Facts {
    Facts {
        in_recovery: node.role == NodeRole::Replica,
        version: "15.9".to_owned(),
        version_num: 150_009,
        system: Ok(system.to_owned()),
        max_connections: 100,
        reserved: 3,
        max_prepared: 10,
        escaping: Vec::new(),
        tables: vec![patients(2950)],
        cascades: Vec::new(),
        shadows: Vec::new(),
        refused: Vec::new(),
    }
}

/// Two shards, each a primary and a replica, all as declared but for what `tamper` does to the facts of each node.
fn judged(tamper: impl Fn(&str, &mut Facts)) -> Vec<Problem> {
    judged_of(&[table("patients", TableKind::Patient, Some("id"))], tamper)
}

/// The same with these tables.
fn judged_of(tables: &[Table], tamper: impl Fn(&str, &mut Facts)) -> Vec<Problem> {
    let shards = [shard("a"), shard("b")];
    let pools = [pool(10), pool(60), pool(20), pool(30)];
    let mut sights = Vec::new();
    for (index, shard) in shards.iter().enumerate() {
        for node in shard.nodes() {
            let mut facts = facts(node, shard.id.as_str());
            tamper(node.id.as_str(), &mut facts);
            sights.push(Sight { shard: index, node, seen: Ok(facts) });
        }
    }
    judge(
        &Declared {
            shards: &shards,
            tables,
            pools: &pools,
            key_type: KeyType::Uuid,
            undeclared: Undeclared::Refuse,
            splits: true,
            primary_pools: PoolKind::of(NodeRole::Primary),
        },
        &sights,
    )
}

#[track_caller]
fn only(problems: &[Problem], node: &str, what: &str) {
    let [problem] = problems else { panic!("one problem expected: {problems:#?}") };
    assert_eq!(problem.node, node);
    assert!(problem.what.contains(what), "{}", problem.what);
}

#[test]
fn nodes_as_declared_are_fine() {
    assert_eq!(judged(|_, _| {}), []);
}

#[test]
fn roles_are_checked() {
    let promoted = judged(|id, facts| facts.in_recovery &= id != "b/replica-1");
    only(&promoted, "b/replica-1", "not in recovery");
    let demoted = judged(|id, facts| facts.in_recovery |= id == "a/primary");
    only(&demoted, "a/primary", "writes would fail");
}

#[test]
fn old_servers_are_refused() {
    let old = judged(|id, facts| {
        if id == "a/replica-1" {
            (facts.version, facts.version_num) = ("12.22".to_owned(), 120_022);
        }
    });
    only(&old, "a/replica-1", "PostgreSQL 12.22");
}

#[test]
fn clusters_may_not_be_mixed_up() {
    let foreign = judged(|id, facts| {
        if id == "a/replica-1" {
            facts.system = Ok("x".to_owned());
        }
    });
    only(&foreign, "a/replica-1", "another cluster than a/primary");
    let twice = judged(|_, facts| facts.system = Ok("x".to_owned()));
    only(&twice, "b/primary", "same cluster as a/primary");
}

#[test]
fn a_denied_identifier_is_a_note_and_no_error() {
    let denied = judged(|id, facts| {
        if id == "a/primary" {
            facts.system = Err("permission denied".to_owned());
        }
    });
    only(&denied, "a/primary", "permission denied");
    assert!(!denied[0].is_error());
}

#[test]
fn a_primary_that_prepares_nothing_is_noted() {
    let problems = judged(|_, facts| facts.max_prepared = 0);
    let nodes: Vec<&str> = problems.iter().map(|problem| problem.node.as_str()).collect();
    assert_eq!(nodes, ["a/primary", "b/primary"]);
    assert!(problems[0].what.starts_with("does not prepare transactions") && !problems[0].is_error());
}

#[test]
fn strings_with_escapes_are_noted() {
    let problems = judged(|id, facts| {
        if id == "b/replica-1" {
            facts.escaping.push("app".to_owned());
        }
    });
    only(&problems, "b/replica-1", "standard_conforming_strings off for server role \"app\"");
    assert!(!problems[0].is_error());
}

#[test]
fn rows_of_patients_that_hang_on_local_tables_are_noted() {
    let tables = [table("patients", TableKind::Patient, Some("id")), table("wards", TableKind::Local, None)];
    let problems = judged_of(&tables, |id, facts| {
        facts.tables.push(LiveTable { name: "wards".to_owned(), ..patients(2950) });
        let hangs_on = |table: &str, on_delete, on_update: &[&str]| LiveCascade {
            table: table.to_owned(),
            patients: "public.patients".to_owned(),
            on_delete,
            on_update: Some(on_update.iter().map(|&column| column.to_owned()).collect()),
        };
        if id == "a/primary" {
            facts.cascades = vec![hangs_on("public.wards", true, &["id"]), hangs_on("public.undeclared", true, &[])];
        }
    });
    let what = "change with those of public.wards, a local table: DELETE from it and UPDATE of id are refused";
    only(&problems, "a/primary", what);
    assert!(!problems[0].is_error());
}

#[test]
fn what_a_bare_name_may_mean_besides_is_an_error() {
    let problems = judged(|id, facts| {
        let shadow =
            |schema: &str, in_path| LiveShadow { schema: schema.to_owned(), name: "patients".to_owned(), in_path };
        if id == "a/primary" {
            facts.shadows = vec![shadow("archive", false), shadow("app", true)];
        }
    });
    only(&problems, "a/primary", "has app.patients, which is not declared");
    assert!(problems[0].is_error());
}

#[test]
fn pools_must_fit_into_max_connections() {
    let small = judged(|id, facts| {
        if id == "b/primary" {
            facts.max_connections = 92;
        }
    });
    only(&small, "b/primary", "90 connections (emergency 10 + general 60 + background 20), but the server offers 89");
    assert!(small[0].hint.contains("at least 93"));
}

#[test]
fn tables_and_their_keys_are_checked_on_each_primary() {
    let bare = judged(|_, facts| facts.tables.clear());
    assert_eq!(bare.len(), 2, "one for each primary: {bare:#?}");
    assert!(bare[0].what.contains("no table public.patients"));

    let mistyped = judged(|_, facts| facts.tables = vec![patients(23)]);
    assert!(mistyped[0].what.contains("public.patients.id has the type int4, but [sharding] key_type is uuid"));

    let keyless = judged(|_, facts| facts.tables[0].columns[0].0 = "pid".to_owned());
    assert!(keyless[0].what.contains("no column \"id\", declared as its patient key"));

    let regionless = judged(|_, facts| facts.tables[0].columns.truncate(1));
    assert!(regionless[0].what.contains("no column \"region\""));

    const DATE: u32 = 1082;
    let dated = judged(|_, facts| facts.tables[0].columns[1].1 = DATE);
    assert!(dated[0].what.contains("public.patients.region has the type date"));
    assert!(judged(|_, facts| facts.tables[0].columns[1].1 = 16_500).is_empty(), "an enum of the application");
}

#[test]
fn a_key_that_compares_otherwise_is_an_error() {
    let cut = judged(|id, facts| {
        if id == "b/primary" {
            facts.tables[0].unlike.push(("id".to_owned(), "has a length, which cuts blanks off".to_owned()));
            facts.tables[0].unlike.push(("region".to_owned(), "has a length, which cuts blanks off".to_owned()));
        }
    });
    only(&cut, "b/primary", "public.patients.id has a length, which cuts blanks off: statements on it are refused");
    assert!(cut[0].is_error());
}

#[test]
fn a_region_that_the_server_fills_is_noted() {
    let filled = judged(|id, facts| {
        if id == "a/primary" {
            facts.tables[0].filled.push("region".to_owned());
        }
    });
    only(&filled, "a/primary", "public.patients.region has a default or is generated");
    assert!(!filled[0].is_error());
}

#[test]
fn shards_must_agree_on_columns() {
    let differing = judged(|id, facts| {
        if id == "b/primary" {
            facts.tables[0].columns.push(("note".to_owned(), 25));
        }
    });
    only(&differing, "b/primary", "id uuid, region text, note text) than on a/primary");
}

#[test]
fn a_role_that_is_not_let_in_is_an_error() {
    let refused = judged(|id, facts| {
        if id == "a/primary" {
            facts.refused.push(("reports".to_owned(), "password authentication failed (28P01)".to_owned()));
        }
    });
    only(&refused, "a/primary", "does not let server role \"reports\" in");
}

#[test]
fn the_page_is_aligned_and_says_what_is_wrong() {
    let declared = [shard("a")];
    let [primary, replica] = [&declared[0].primary, &declared[0].replicas[0]];
    let sights = [
        Sight { shard: 0, node: primary, seen: Ok(facts(primary, "1")) },
        Sight { shard: 0, node: replica, seen: Err("connection refused".to_owned()) },
    ];
    let tables = [table("patients", TableKind::Patient, Some("id"))];
    let pools = [pool(1), pool(1), pool(1), pool(1)];
    let problems = judge(
        &Declared {
            shards: &declared,
            tables: &tables,
            pools: &pools,
            key_type: KeyType::Uuid,
            undeclared: Undeclared::Refuse,
            splits: true,
            primary_pools: PoolKind::of(NodeRole::Primary),
        },
        &sights,
    );
    let page = page::page(&sights, &problems, &tables, false);
    let expected = "\
NODE         ADDRESS         DECLARED  IS       VERSION  MAX CONNECTIONS  TABLES
a/primary    db:5432/clinic  primary   primary  15.9     100              1 of 1
a/replica-1  db:5432/clinic  replica   unseen   -        -                -

error: a/replica-1: cannot be looked at: connection refused
  hint: check that db:5432 is reachable, that database \"clinic\" exists, and the server role's password and \
pg_hba.conf entry

1 problem
";
    assert_eq!(page, expected);
}
