#![allow(clippy::unwrap_used)]
//! Scripts of what servers say; and schedules by chance, in which all or nothing is committed whatever is lost.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use super::*;

const FAULT: Bytes = Bytes::from_static(b"fault");
const OTHER: Bytes = Bytes::from_static(b"other");

fn of(legs: usize) -> Course {
    let mut course = Course::default();
    (0..legs).for_each(|_| course.join());
    course
}

/// Two parts, both prepared, and asked to decide.
fn prepared() -> Course {
    let mut course = of(2);
    let asked = Asked::Prepare;
    assert_eq!(course.client_done(false), [Act::End(0, asked), Act::End(1, asked)]);
    course.copied(0, 3);
    assert_eq!(course.done(0, asked), []);
    course.copied(1, 4);
    assert_eq!(course.done(1, asked), [Act::Decide]);
    course
}

fn over(outcome: Outcome) -> [Act; 1] {
    [Act::Over(outcome)]
}

#[test]
fn one_part_is_committed_without_a_decision() {
    let mut course = of(1);
    assert_eq!(course.client_done(false), [Act::End(0, Asked::Commit)]);
    course.copied(0, 7);
    assert_eq!(course.done(0, Asked::Commit), over(Outcome::Copied(7)));

    let mut course = of(1);
    course.client_done(false);
    assert_eq!(course.failed(0, Asked::Copy, FAULT), []);
    assert_eq!(course.rolled_back(0, || OTHER), over(Outcome::Failed(FAULT)));

    let mut course = of(1);
    course.client_done(false);
    assert_eq!(course.lost(0, FAULT), [Act::Close(0), Act::Over(Outcome::Failed(FAULT))]);
}

#[test]
fn one_part_with_new_patients_is_committed_when_they_are_registered() {
    let checked = || {
        let mut course = of(1);
        assert_eq!(course.client_done(true), [Act::End(0, Asked::Check)]);
        course.copied(0, 7);
        assert_eq!(course.done(0, Asked::Check), [Act::Decide]);
        course
    };
    let mut course = checked();
    assert_eq!(course.decided(Verdict::Commit), [Act::Ask(0, Asked::Commit)]);
    assert!(course.is_committing());
    assert_eq!(course.done(0, Asked::Commit), over(Outcome::Copied(7)));

    let mut course = checked();
    assert_eq!(course.decided(Verdict::Not(FAULT)), [Act::GiveUp(0)]);
    assert_eq!(course.done(0, Asked::Rollback), over(Outcome::Failed(FAULT)));

    // Lost while they are registered: it was not asked to commit.
    let mut course = checked();
    assert_eq!(course.lost(0, FAULT), [Act::Close(0)]);
    assert_eq!(course.decided(Verdict::Commit), over(Outcome::Failed(FAULT)));

    // Its rows fail, and then the check behind them; or the check by itself.
    let mut course = of(1);
    course.client_done(true);
    assert_eq!(course.failed(0, Asked::Copy, FAULT), [Act::GiveUp(0)]);
    assert_eq!(course.failed(0, Asked::Check, OTHER), []);
    assert_eq!(course.done(0, Asked::Rollback), over(Outcome::Failed(FAULT)));
    let mut course = of(1);
    course.client_done(true);
    course.copied(0, 7);
    assert_eq!(course.failed(0, Asked::Check, FAULT), [Act::GiveUp(0)]);
    assert_eq!(course.done(0, Asked::Rollback), over(Outcome::Failed(FAULT)));
}

#[test]
fn several_are_prepared_decided_and_told() {
    let mut course = prepared();
    let told = [Act::Ask(0, Asked::CommitPrepared), Act::Ask(1, Asked::CommitPrepared)];
    assert_eq!(course.decided(Verdict::Commit), told);
    assert_eq!(course.done(1, Asked::CommitPrepared), []);
    assert_eq!(course.lost(1, FAULT), [Act::Close(1)], "it has said that it is done");
    assert_eq!(course.done(0, Asked::CommitPrepared), over(Outcome::Copied(7)));
}

#[test]
fn what_fails_before_the_decision_undoes_all() {
    let mut course = of(2);
    assert_eq!(course.failed(1, Asked::Copy, FAULT), [Act::GiveUp(0), Act::GiveUp(1)]);
    assert_eq!(course.refuse(OTHER), []);
    assert_eq!(course.client_done(false), []);
    assert_eq!(course.done(0, Asked::Rollback), []);
    assert_eq!(course.done(1, Asked::Rollback), over(Outcome::Failed(FAULT)));

    // At the end, when the other has prepared, or is just about to.
    let mut course = of(3);
    course.client_done(false);
    course.done(0, Asked::Prepare);
    assert_eq!(course.failed(1, Asked::Prepare, FAULT), [Act::Ask(0, Asked::RollbackPrepared)]);
    assert_eq!(course.done(2, Asked::Prepare), [Act::Ask(2, Asked::RollbackPrepared)]);
    assert_eq!(course.done(0, Asked::RollbackPrepared), []);
    assert_eq!(course.done(2, Asked::RollbackPrepared), over(Outcome::Failed(FAULT)));

    let mut course = prepared();
    let undone = [Act::Ask(0, Asked::RollbackPrepared), Act::Ask(1, Asked::RollbackPrepared)];
    assert_eq!(course.decided(Verdict::Not(FAULT)), undone);
}

#[test]
fn what_is_lost_behind_the_decision_is_committed_later() {
    let mut course = prepared();
    // While the decision is written.
    assert_eq!(course.lost(1, FAULT), [Act::Close(1)]);
    assert_eq!(course.decided(Verdict::Commit), [Act::Ask(0, Asked::CommitPrepared)]);
    assert_eq!(course.done(0, Asked::CommitPrepared), over(Outcome::Unconfirmed(vec![1])));

    let mut course = prepared();
    course.decided(Verdict::Commit);
    assert_eq!(course.failed(0, Asked::CommitPrepared, FAULT), [Act::Close(0)]);
    assert_eq!(course.done(1, Asked::CommitPrepared), over(Outcome::Unconfirmed(vec![0])));
}

#[test]
fn nothing_is_done_about_what_is_in_doubt() {
    let acts = prepared().decided(Verdict::InDoubt(FAULT));
    assert_eq!(acts, [Act::Close(0), Act::Close(1), Act::Over(Outcome::Failed(FAULT))]);
}

#[test]
fn nobody_waits_for_ever_until_all_is_undone() {
    let mut course = of(2);
    assert_eq!(course.late(), []);
    course.refuse(FAULT);
    course.done(0, Asked::Rollback);
    assert_eq!(course.late(), [Act::Close(1), Act::Over(Outcome::Failed(FAULT))]);
}

/// A server: what it was asked for, in order, and what has become of its part.
#[derive(Default)]
struct Server {
    asked: Vec<Asked>,
    fate: Option<Fate>,
    gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Prepared,
    Committed,
    RolledBack,
}

impl Server {
    fn does(&mut self, asked: Asked) {
        self.fate = match asked {
            _ if self.fate == Some(Fate::RolledBack) => self.fate,
            Asked::Copy | Asked::Check => self.fate,
            Asked::Prepare => Some(Fate::Prepared),
            Asked::Commit | Asked::CommitPrepared => Some(Fate::Committed),
            Asked::Rollback | Asked::RollbackPrepared => Some(Fate::RolledBack),
        };
    }
}

/// Whatever servers fail, are lost or are slow, in any order: with the recovery behind it, all have committed or none,
/// and the client was told what is so.
#[test]
fn all_or_nothing_whatever_happens() {
    for seed in 0..20_000u64 {
        let mut drawn = 0u64;
        let mut draw = |upto: u64| {
            drawn += 1;
            BuildHasherDefault::<DefaultHasher>::default().hash_one((seed, drawn)) % upto
        };
        let legs = 1 + draw(3) as usize;
        let mut course = of(legs);
        let mut servers: Vec<Server> = (0..legs).map(|_| Server::default()).collect();
        let mut decided = false;
        // A COMMIT was asked of a server that is lost.
        let mut unknown = false;
        let mut outcome = None;
        let mut acts = match draw(8) {
            0 => course.refuse(FAULT),
            1 => course.failed(draw(legs as u64) as usize, Asked::Copy, FAULT),
            _ => course.client_done(draw(2) == 0),
        };
        while outcome.is_none() {
            for act in std::mem::take(&mut acts) {
                match act {
                    Act::End(leg, asked) => servers[leg].asked.extend([Asked::Copy, asked]),
                    Act::GiveUp(leg) => servers[leg].asked.push(Asked::Rollback),
                    Act::Ask(leg, asked) => servers[leg].asked.push(asked),
                    Act::Close(leg) => servers[leg].gone = true,
                    Act::Decide => {
                        decided = draw(4) > 0;
                        let verdict = if decided { Verdict::Commit } else { Verdict::Not(FAULT) };
                        acts.append(&mut course.decided(verdict));
                    }
                    Act::Over(told) => outcome = Some(told),
                }
            }
            if !acts.is_empty() || outcome.is_some() {
                continue;
            }
            if course.is_undoing() && draw(20) == 0 {
                acts = course.late();
                continue;
            }
            let leg = draw(legs as u64) as usize;
            let server = &mut servers[leg];
            if server.gone {
                continue;
            }
            if draw(12) == 0 {
                // It may have done what it was asked for.
                if !server.asked.is_empty() && draw(2) == 0 {
                    let asked = server.asked.remove(0);
                    unknown |= asked == Asked::Commit;
                    server.does(asked);
                }
                server.gone = true;
                acts = course.lost(leg, FAULT);
                continue;
            }
            if server.asked.is_empty() {
                continue;
            }
            let asked = server.asked.remove(0);
            let fails = draw(8) == 0;
            acts = match (asked, fails) {
                (Asked::Copy, true) => {
                    server.fate = Some(Fate::RolledBack);
                    course.failed(leg, asked, FAULT)
                }
                (Asked::Copy, false) => {
                    course.copied(leg, 1);
                    Vec::new()
                }
                (Asked::Prepare | Asked::Commit, _) if server.fate == Some(Fate::RolledBack) => {
                    course.rolled_back(leg, || OTHER)
                }
                (Asked::Check, _) if server.fate == Some(Fate::RolledBack) => course.failed(leg, asked, OTHER),
                (Asked::Check, true) => {
                    server.fate = Some(Fate::RolledBack);
                    course.failed(leg, asked, FAULT)
                }
                (Asked::Prepare | Asked::Commit, true) => {
                    server.fate = Some(Fate::RolledBack);
                    course.failed(leg, asked, FAULT)
                }
                (Asked::CommitPrepared | Asked::RollbackPrepared | Asked::Rollback, true) => {
                    course.failed(leg, asked, FAULT)
                }
                (asked, false) => {
                    server.does(asked);
                    course.done(leg, asked)
                }
            };
        }
        // What the recovery does with what is left prepared; anything else goes down with its connection.
        let committed = |server: &Server| match server.fate {
            Some(Fate::Prepared) => decided,
            fate => fate == Some(Fate::Committed),
        };
        let count = servers.iter().filter(|server| committed(server)).count();
        match outcome.unwrap() {
            Outcome::Copied(_) => assert_eq!(count, legs, "seed {seed}"),
            Outcome::Unconfirmed(lost) => {
                assert!(!lost.is_empty() && decided, "seed {seed}");
                assert_eq!(count, legs, "seed {seed}");
            }
            Outcome::Failed(_) => assert!(count == 0 || unknown, "seed {seed}"),
        }
    }
}
