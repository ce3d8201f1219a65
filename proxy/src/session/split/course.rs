//! The course of a split COPY: where each shard's part stands, and what is to be done next. No sockets, no clock.
//!
//! One part ends by COMMIT behind its rows, which costs nothing beside a COPY by itself; where it brings new patients,
//! its server must have taken all of it before they are registered, and commits then. Several are prepared; when all
//! are, it is decided; then all are told. Whatever goes wrong before the decision undoes all of them, and the client
//! hears of it when nothing is left; whatever goes wrong behind it changes nothing about the decision.

use bytes::Bytes;

use super::talk::Asked;

/// All parts of one COPY.
#[derive(Debug, Default)]
pub(super) struct Course {
    legs: Vec<Leg>,
    phase: Phase,
    /// Why the only part cannot be committed, lost while its patients are registered.
    lost: Option<Bytes>,
}

/// One shard's part.
#[derive(Debug)]
struct Leg {
    stage: Stage,
    rows: u64,
}

/// Where a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It takes rows.
    Copying,
    /// Its rows have ended, and it was asked to prepare, or to commit.
    Ending,
    Prepared,
    /// It has taken its rows and checked them, and was asked for nothing else.
    Checked,
    /// The last that it was asked for is not answered yet.
    Finishing,
    /// Nothing of it is left to do.
    Settled,
    /// Its server is gone, or of no use.
    Lost,
}

/// Where the COPY stands.
#[derive(Debug, Default)]
enum Phase {
    #[default]
    Rows,
    /// The only part.
    Committing,
    Preparing,
    Deciding,
    Delivering,
    /// With the error that the client is told in the end.
    Undoing(Bytes),
    Over,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// End this part's rows, and ask for this.
    End(usize, Asked),
    /// End this part's rows as failed, and roll back.
    GiveUp(usize),
    Ask(usize, Asked),
    /// Close this part's connection.
    Close(usize),
    /// All have prepared, or the only one has checked its rows.
    Decide,
    Over(Outcome),
}

/// What the client is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is stored: so many rows.
    Copied(u64),
    /// Nothing is: this ErrorResponse.
    Failed(Bytes),
    /// All will be: these have not confirmed it.
    Unconfirmed(Vec<usize>),
}

/// What became of the decision to commit, with the error for the client where it was not made.
#[derive(Debug)]
pub(super) enum Verdict {
    Commit,
    Not(Bytes),
    InDoubt(Bytes),
}

impl Course {
    /// One more part, whose server has been told.
    pub(super) fn join(&mut self) {
        self.legs.push(Leg { stage: Stage::Copying, rows: 0 });
    }

    /// Rows are still taken.
    pub(super) fn takes_rows(&self) -> bool {
        matches!(self.phase, Phase::Rows)
    }

    /// A loss of this part's server now leaves open what became of it.
    pub(super) fn is_committing(&self) -> bool {
        matches!(self.phase, Phase::Committing)
    }

    /// What is left must not take long.
    pub(super) fn is_undoing(&self) -> bool {
        matches!(self.phase, Phase::Undoing(_))
    }

    /// The first part that the client's cancel can still stop.
    pub(super) fn cancellable(&self) -> Option<usize> {
        self.legs.iter().position(|leg| matches!(leg.stage, Stage::Copying | Stage::Ending))
    }

    /// The parts that are done with, their servers in peace.
    pub(super) fn settled(&self) -> impl Iterator<Item = usize> {
        self.legs.iter().enumerate().filter(|(_, leg)| leg.stage == Stage::Settled).map(|(n, _)| n)
    }

    /// The client has sent all rows; among them are those of new patients, or not.
    pub(super) fn client_done(&mut self, new_patients: bool) -> Vec<Act> {
        if !self.takes_rows() {
            return Vec::new();
        }
        let several = self.legs.len() > 1;
        let asked = match (several, new_patients) {
            (true, _) => Asked::Prepare,
            (false, true) => Asked::Check,
            (false, false) => Asked::Commit,
        };
        self.phase = if asked == Asked::Commit { Phase::Committing } else { Phase::Preparing };
        // What fails in its check is still to be rolled back, as long as rows are taken.
        let stage = if asked == Asked::Check { Stage::Copying } else { Stage::Ending };
        self.legs.iter_mut().for_each(|leg| leg.stage = stage);
        (0..self.legs.len()).map(|leg| Act::End(leg, asked)).collect()
    }

    /// Rows, or the client, are in the way.
    pub(super) fn refuse(&mut self, fault: Bytes) -> Vec<Act> {
        match self.takes_rows() {
            true => self.undo(fault),
            false => Vec::new(),
        }
    }

    /// A part has taken so many rows.
    pub(super) fn copied(&mut self, leg: usize, rows: u64) {
        self.legs[leg].rows = rows;
    }

    /// A part has done as it was asked.
    pub(super) fn done(&mut self, leg: usize, asked: Asked) -> Vec<Act> {
        let undoing = self.is_undoing();
        let stage = &mut self.legs[leg].stage;
        match asked {
            Asked::Prepare if undoing => {
                *stage = Stage::Finishing;
                return vec![Act::Ask(leg, Asked::RollbackPrepared)];
            }
            Asked::Prepare => *stage = Stage::Prepared,
            Asked::Check if undoing => {}
            Asked::Check => *stage = Stage::Checked,
            _ => *stage = Stage::Settled,
        }
        self.next()
    }

    /// A part that had failed is rolled back.
    pub(super) fn rolled_back(&mut self, leg: usize, fault: impl FnOnce() -> Bytes) -> Vec<Act> {
        self.legs[leg].stage = Stage::Settled;
        match self.phase {
            // Of a failure that was not told: it cannot be, but nothing may be committed then.
            Phase::Preparing | Phase::Committing => self.undo(fault()),
            _ => self.next(),
        }
    }

    /// A part has failed in what it was asked for, with this error for the client.
    pub(super) fn failed(&mut self, leg: usize, asked: Asked, fault: Bytes) -> Vec<Act> {
        let stage = &mut self.legs[leg].stage;
        let mut acts = Vec::new();
        match asked {
            // A ROLLBACK is still to come.
            Asked::Copy | Asked::Check => {}
            // The transaction went with it.
            Asked::Prepare | Asked::Commit => *stage = Stage::Settled,
            Asked::CommitPrepared | Asked::Rollback | Asked::RollbackPrepared => {
                *stage = Stage::Lost;
                acts.push(Act::Close(leg));
            }
        }
        acts.append(&mut match self.phase {
            Phase::Rows | Phase::Preparing | Phase::Committing => self.undo(fault),
            _ => self.next(),
        });
        acts
    }

    /// A part's server is gone.
    pub(super) fn lost(&mut self, leg: usize, fault: Bytes) -> Vec<Act> {
        match self.legs[leg].stage {
            Stage::Lost => return Vec::new(),
            Stage::Settled => return vec![Act::Close(leg)],
            Stage::Checked => self.lost = Some(fault.clone()),
            _ => {}
        }
        self.legs[leg].stage = Stage::Lost;
        let mut acts = vec![Act::Close(leg)];
        acts.append(&mut match self.phase {
            Phase::Rows | Phase::Preparing | Phase::Committing => self.undo(fault),
            _ => self.next(),
        });
        acts
    }

    /// Nothing may be said to any server any more, nor has been of what ends the COPY.
    pub(super) fn abandon(&mut self, fault: Bytes) -> Vec<Act> {
        match self.phase {
            Phase::Rows | Phase::Preparing | Phase::Committing => {
                self.phase = Phase::Undoing(fault);
                self.late()
            }
            _ => Vec::new(),
        }
    }

    /// It was tried to decide.
    pub(super) fn decided(&mut self, verdict: Verdict) -> Vec<Act> {
        if !matches!(self.phase, Phase::Deciding) {
            return Vec::new();
        }
        match verdict {
            Verdict::Commit if self.legs.len() == 1 => match self.lost.take() {
                Some(fault) => self.undo(fault),
                None => {
                    self.phase = Phase::Committing;
                    self.ask_all(Stage::Checked, Asked::Commit)
                }
            },
            Verdict::Commit => {
                self.phase = Phase::Delivering;
                let mut acts = self.ask_all(Stage::Prepared, Asked::CommitPrepared);
                acts.append(&mut self.next());
                acts
            }
            Verdict::Not(fault) => self.undo(fault),
            Verdict::InDoubt(fault) => {
                self.phase = Phase::Undoing(fault);
                self.late()
            }
        }
    }

    /// Nobody waits any longer for what is not undone yet: closing a connection undoes what is open on it, and what is
    /// prepared is found by its identifier.
    pub(super) fn late(&mut self) -> Vec<Act> {
        if !self.is_undoing() {
            return Vec::new();
        }
        let mut acts = Vec::new();
        for (n, leg) in self.legs.iter_mut().enumerate() {
            if !matches!(leg.stage, Stage::Settled | Stage::Lost) {
                leg.stage = Stage::Lost;
                acts.push(Act::Close(n));
            }
        }
        acts.append(&mut self.next());
        acts
    }

    fn undo(&mut self, fault: Bytes) -> Vec<Act> {
        self.phase = Phase::Undoing(fault);
        let mut acts = Vec::new();
        for (n, leg) in self.legs.iter_mut().enumerate() {
            if matches!(leg.stage, Stage::Copying | Stage::Checked) {
                leg.stage = Stage::Finishing;
                acts.push(Act::GiveUp(n));
            }
        }
        acts.append(&mut self.ask_all(Stage::Prepared, Asked::RollbackPrepared));
        acts.append(&mut self.next());
        acts
    }

    fn ask_all(&mut self, stage: Stage, asked: Asked) -> Vec<Act> {
        let all = self.legs.iter_mut().enumerate().filter(|(_, leg)| leg.stage == stage);
        all.map(|(n, leg)| {
            leg.stage = Stage::Finishing;
            Act::Ask(n, asked)
        })
        .collect()
    }

    /// What follows from where all parts stand.
    fn next(&mut self) -> Vec<Act> {
        let all = |stages: &[Stage]| self.legs.iter().all(|leg| stages.contains(&leg.stage));
        let ended = all(&[Stage::Settled, Stage::Lost]);
        let act = match &self.phase {
            Phase::Preparing if all(&[Stage::Prepared, Stage::Checked]) => {
                self.phase = Phase::Deciding;
                return vec![Act::Decide];
            }
            Phase::Committing | Phase::Delivering if ended => {
                let lost = self.legs.iter().enumerate().filter(|(_, leg)| leg.stage == Stage::Lost);
                let lost: Vec<usize> = lost.map(|(n, _)| n).collect();
                match lost.is_empty() {
                    true => Outcome::Copied(self.legs.iter().map(|leg| leg.rows).sum()),
                    false => Outcome::Unconfirmed(lost),
                }
            }
            Phase::Undoing(fault) if ended => Outcome::Failed(fault.clone()),
            _ => return Vec::new(),
        };
        self.phase = Phase::Over;
        vec![Act::Over(act)]
    }
}

#[cfg(test)]
mod tests;
