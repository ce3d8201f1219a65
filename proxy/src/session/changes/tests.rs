//! Random transactions, held to a model that copies all parameters where PostgreSQL nests its transactions.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;
use crate::session::chance::Random;

const NAMES: [&str; 3] = ["a", "b", "c"];

type Values = BTreeMap<String, String>;

/// A session as a server has it: its parameters, and a copy of them for the block and each savepoint.
#[derive(Default)]
struct Server {
    now: Values,
    before: Option<Values>,
    savepoints: Vec<(&'static str, Values)>,
}

impl Server {
    fn find(&self, name: &str) -> Option<usize> {
        self.savepoints.iter().rposition(|(known, _)| *known == name)
    }
}

fn apply(session: &mut Values, kept: Vec<Kept>) {
    for kept in kept {
        match kept {
            Kept::Change(Change { name, value: Some(value) }) => drop(session.insert(name.to_string(), value)),
            Kept::Change(Change { name, value: None }) => drop(session.remove(&*name)),
            Kept::ResetAll => session.clear(),
        }
    }
}

#[test]
fn what_is_kept_is_what_a_server_keeps() {
    let mut random = Random(0x5eed);
    let (mut server, mut changes, mut session) = (Server::default(), Changes::default(), Values::new());
    let (mut committed, mut undone) = (0, 0);
    for n in 0..200_000 {
        let name = NAMES[random.next(3)];
        let in_block = server.before.is_some();
        match random.next(10) {
            0 if !in_block => {
                server.before = Some(server.now.clone());
                changes.begin();
            }
            1 | 2 if in_block => {
                server.savepoints.push((name, server.now.clone()));
                changes.savepoint(name.into(), Mark { told: n, ..Mark::default() });
            }
            3 => {
                let at = server.find(name);
                server.savepoints.truncate(at.unwrap_or(server.savepoints.len()));
                assert_eq!(changes.release(name), at.is_some());
            }
            4 => {
                let at = server.find(name);
                if let Some(at) = at {
                    server.savepoints.truncate(at + 1);
                    server.now = server.savepoints[at].1.clone();
                    undone += 1;
                }
                assert_eq!(changes.rollback_to(name).is_some(), at.is_some());
            }
            5 => {
                server.now.remove(name);
                changes.change(Change { name: name.into(), value: None });
            }
            6 => {
                server.now.insert(name.to_owned(), n.to_string());
                changes.change(Change { name: name.into(), value: Some(n.to_string()) });
            }
            7 if random.next(4) == 0 => {
                server.now.clear();
                changes.reset_all();
            }
            8 if in_block && random.next(4) == 0 => {
                server = Server { now: server.now, ..Server::default() };
                apply(&mut session, changes.commit());
                committed += 1;
            }
            9 if in_block && random.next(4) == 0 => {
                server = Server { now: server.before.unwrap(), ..Server::default() };
                // Either way a block can end without its COMMIT.
                match random.next(2) {
                    0 => changes.rollback(),
                    _ => assert!(changes.idle().is_empty()),
                }
            }
            _ => {}
        }
        // What stands alone is its own transaction.
        if server.before.is_none() {
            apply(&mut session, changes.idle());
            assert_eq!(session, server.now, "step {n}");
        }
    }
    assert!(committed > 1000 && undone > 1000, "{committed} {undone}");
}

#[test]
fn a_failure_undoes_what_is_no_block() {
    let set = |value: &str| Change { name: "a".into(), value: Some(value.to_owned()) };
    let mut changes = Changes::default();
    changes.change(set("1"));
    assert!(changes.failed() && !changes.failed());
    assert!(changes.idle().is_empty());
    changes.change(set("2"));
    changes.begin();
    assert!(!changes.failed());
    assert_eq!(changes.commit(), [Kept::Change(set("2"))]);
    changes.change(set("3"));
    assert!(changes.failed(), "the block is over");
}

#[test]
fn what_is_local_is_in_force_until_the_end() {
    let set = |name: &str, value: &str| Change { name: name.into(), value: Some(value.to_owned()) };
    let none = Settings::none();
    let in_force = |changes: &Changes| {
        let values = changes.in_force(&none, &none);
        values.values().iter().map(|(name, value)| format!("{name}{value}")).collect::<Vec<_>>().join(" ")
    };
    let mut changes = Changes::default();
    changes.begin();
    changes.change(set("a", "1"));
    changes.change_locally(set("a", "2"));
    changes.savepoint("s".into(), Mark::default());
    changes.change_locally(set("b", "3"));
    changes.change(set("a", "4"));
    assert_eq!(in_force(&changes), "a4 b3");
    assert!(changes.rollback_to("s").is_some());
    assert_eq!(in_force(&changes), "a2");
    for n in 0..1000 {
        changes.savepoint("t".into(), Mark::default());
        changes.change_locally(set("b", &n.to_string()));
        assert!(changes.release("t"));
    }
    assert!(changes.steps.len() < 5, "what is overridden is not kept");
    assert_eq!(in_force(&changes), "a2 b999");
    assert_eq!(changes.commit(), [Kept::Change(set("a", "1"))]);
    assert_eq!(in_force(&changes), "");
}

#[test]
fn a_savepoint_tells_how_things_stood() {
    let mut changes = Changes::default();
    changes.begin();
    let mark = |told| Mark { told, modes: 1, read_only: true };
    for (told, name) in ["a", "b", "a"].into_iter().enumerate() {
        changes.savepoint(name.into(), mark(told));
    }
    assert_eq!(changes.rollback_to("a"), Some(mark(2)));
    assert!(changes.release("a"));
    assert_eq!(changes.rollback_to("b"), Some(mark(1)));
    assert_eq!(changes.rollback_to("a"), Some(mark(0)));
    assert_eq!(changes.rollback_to("b"), None);
}
