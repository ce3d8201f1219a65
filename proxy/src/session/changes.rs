//! What a transaction changes in its session's parameters, by PostgreSQL's rules: ROLLBACK undoes all of it, ROLLBACK TO
//! what came after its savepoint, RELEASE nothing. It is the same whether a server has heard of the transaction or not.

use std::sync::Arc;

use pgward_pools::Settings;

use super::settings::{self, Change};

/// The changes of the open transaction, or of the implicit one that a message or a pipeline is.
#[derive(Debug, Default)]
pub(super) struct Changes {
    steps: Vec<Step>,
    /// A block is open: it ends by COMMIT or ROLLBACK, and a failed statement undoes nothing by itself.
    block: bool,
}

#[derive(Debug)]
enum Step {
    Kept(Kept),
    /// SET LOCAL: gone with the transaction, however it ends.
    Local(Change),
    Savepoint {
        name: Arc<str>,
        mark: Mark,
    },
}

/// A change that outlives the transaction if that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Change(Change),
    ResetAll,
}

/// How things stood at a savepoint while no server had heard of the transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// How much was to be told to the server.
    pub(super) told: usize,
    /// How much of that were modes of the transaction.
    pub(super) modes: usize,
    pub(super) read_only: bool,
}

impl Changes {
    /// BEGIN. What came before it in the same message belongs to the block.
    pub(super) fn begin(&mut self) {
        self.block = true;
    }

    pub(super) fn change(&mut self, change: Change) {
        self.steps.push(Step::Kept(Kept::Change(change)));
    }

    pub(super) fn change_locally(&mut self, change: Change) {
        self.steps.push(Step::Local(change));
        self.forget_overridden();
    }

    /// Of what is local to the transaction, and would be undone together, only the last counts: programs set it again and
    /// again.
    fn forget_overridden(&mut self) {
        let from = self.steps.iter().rposition(|step| matches!(step, Step::Savepoint { .. })).map_or(0, |at| at + 1);
        let mut seen: Vec<Arc<str>> = Vec::new();
        for at in (from..self.steps.len()).rev() {
            let Step::Local(change) = &self.steps[at] else { continue };
            if seen.contains(&change.name) {
                self.steps.remove(at);
            } else {
                seen.push(Arc::clone(&change.name));
            }
        }
    }

    /// Some parameter is changed.
    pub(super) fn some(&self) -> bool {
        self.steps.iter().any(|step| !matches!(step, Step::Savepoint { .. }))
    }

    /// No block is open, and nothing is changed.
    pub(super) fn none(&self) -> bool {
        !self.block && self.steps.is_empty()
    }

    pub(super) fn reset_all(&mut self) {
        self.steps.push(Step::Kept(Kept::ResetAll));
    }

    pub(super) fn savepoint(&mut self, name: Arc<str>, mark: Mark) {
        self.steps.push(Step::Savepoint { name, mark });
    }

    /// RELEASE: the savepoint is gone with those set after it, the changes stay. False: there is none of this name.
    pub(super) fn release(&mut self, name: &str) -> bool {
        let Some(at) = self.find(name) else { return false };
        let mut n = 0;
        self.steps.retain(|step| {
            n += 1;
            n <= at || !matches!(step, Step::Savepoint { .. })
        });
        self.forget_overridden();
        true
    }

    /// ROLLBACK TO: the savepoint stays, what came after it is undone. `None`: there is none of this name.
    pub(super) fn rollback_to(&mut self, name: &str) -> Option<Mark> {
        let at = self.find(name)?;
        self.steps.truncate(at + 1);
        match &self.steps[at] {
            Step::Savepoint { mark, .. } => Some(*mark),
            Step::Kept(_) | Step::Local(_) => None,
        }
    }

    /// Of several with one name the last is meant.
    fn find(&self, name: &str) -> Option<usize> {
        self.steps.iter().rposition(|step| matches!(step, Step::Savepoint { name: known, .. } if **known == *name))
    }

    /// COMMIT: what the session keeps, in order.
    pub(super) fn commit(&mut self) -> Vec<Kept> {
        self.block = false;
        let kept = |step| match step {
            Step::Kept(kept) => Some(kept),
            Step::Local(_) | Step::Savepoint { .. } => None,
        };
        std::mem::take(&mut self.steps).into_iter().filter_map(kept).collect()
    }

    /// What the session would keep if it were committed now.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Kept> {
        self.steps.iter().filter_map(|step| match step {
            Step::Kept(kept) => Some(kept),
            Step::Local(_) | Step::Savepoint { .. } => None,
        })
    }

    /// What the transaction has made of a parameter by its name: `None` if it has left it, else the value or a RESET.
    pub(super) fn value_of(&self, name: &str) -> Option<Option<&str>> {
        self.steps.iter().rev().find_map(|step| match step {
            Step::Kept(Kept::Change(change)) | Step::Local(change) if *change.name == *name => {
                Some(change.value.as_deref())
            }
            _ => None,
        })
    }

    /// What is in force now, in the transaction.
    pub(super) fn in_force(&self, settings: &Arc<Settings>, startup: &Settings) -> Arc<Settings> {
        let made: Vec<Kept> = self
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Kept(kept) => Some(kept.clone()),
                Step::Local(change) => Some(Kept::Change(change.clone())),
                Step::Savepoint { .. } => None,
            })
            .collect();
        if made.is_empty() { Arc::clone(settings) } else { settings::apply(settings, startup, &made) }
    }

    /// ROLLBACK, or the transaction is lost.
    pub(super) fn rollback(&mut self) {
        *self = Self::default();
    }

    /// A statement failed. Inside of a block, ROLLBACK decides what is undone; outside, the failed message is undone as a
    /// whole. Whether something was.
    pub(super) fn failed(&mut self) -> bool {
        let undone = !self.block && !self.steps.is_empty();
        if undone {
            self.rollback();
        }
        undone
    }

    /// The server is idle. A block that no COMMIT or ROLLBACK has ended was undone: its COMMIT failed.
    pub(super) fn idle(&mut self) -> Vec<Kept> {
        if self.block {
            self.rollback();
        }
        self.commit()
    }
}

#[cfg(test)]
mod tests;
