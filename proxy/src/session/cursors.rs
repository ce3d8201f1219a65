//! Whose records a session's cursors read: the patients are named where a cursor is declared, and read where rows are
//! fetched from it. The records of FETCH and MOVE say what that of the DECLARE said.

use std::sync::Arc;

use pgward_audit::Place;
use pgward_config::PatientRegion;
use pgward_router::{Action, Analysed, Cursor, Decision};
use pgward_wire::PgError;
use smallvec::SmallVec;

use super::route::{Note, PatientHash, Pending};
use super::work::{Effect, Effects, Expect};
use super::{Session, errors};

/// Cursors of one session on patients, at most.
pub(super) const MOST_CURSORS: usize = 1_000;
/// Patients of them all, at most: what is kept of each is its hash.
pub(super) const MOST_PATIENTS: usize = 10_000;

/// What the record of a DECLARE said of its patients.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Touched {
    patients: SmallVec<[PatientHash; 1]>,
    home: Option<PatientRegion>,
    permit: Arc<str>,
}

/// A cursor, and whose records it reads if it reads any.
pub(crate) type Declared = Cursor<Option<Arc<Touched>>>;

impl Touched {
    fn of(note: &Note, decision: &Decision) -> Option<Arc<Self>> {
        let (home, permit) = (decision.home.clone(), Arc::clone(&decision.permit));
        (!note.patients.is_empty()).then(|| Arc::new(Self { patients: note.patients.clone(), home, permit }))
    }

    fn note(&self) -> Note {
        Note { patients: self.patients.clone(), places: self.patients.iter().map(|_| Place::Cursor).collect() }
    }
}

impl Session {
    /// What the statements' decisions say of patients is kept with the cursors that they declare, and is said of what
    /// fetches from those that were declared before.
    ///
    /// # Errors
    /// There are too many to remember.
    pub(super) fn follow_cursors(&mut self, analysed: &Analysed, pending: &mut Pending) -> Result<(), PgError> {
        for (n, statement) in analysed.shape.statements.iter().enumerate() {
            match &statement.action {
                Action::Fetch(name) => {
                    let before = pending.effects.iter().flatten().take(n);
                    let touched = declared(before, name).or_else(|| self.touched_by(name));
                    if let (Some(touched), Some(note), Some(decision)) =
                        (touched, pending.notes.get_mut(n), pending.decisions.get_mut(n))
                    {
                        *note = touched.note();
                        (decision.home, decision.permit) = (touched.home.clone(), Arc::clone(&touched.permit));
                    }
                }
                Action::Declare { name, hold } => {
                    let (Some(note), Some(decision)) = (pending.notes.get(n), pending.decisions.get(n)) else {
                        continue;
                    };
                    let touched = Touched::of(note, decision);
                    self.check_room(touched.as_deref())?;
                    match pending.effects.iter_mut().flatten().nth(n) {
                        Some(Effect::Declared(cursor)) => cursor.of = touched,
                        // Its success is noted as something else.
                        _ => self.cursors.declared(Cursor {
                            name: Arc::clone(name),
                            reads_only: statement.reads_only,
                            hold: *hold,
                            of: touched,
                        }),
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_room(&self, touched: Option<&Touched>) -> Result<(), PgError> {
        let Some(touched) = touched else { return Ok(()) };
        let kept = || self.cursors.all().flatten().map(|touched| touched.patients.len());
        let room = kept().count() < MOST_CURSORS && kept().sum::<usize>() + touched.patients.len() <= MOST_PATIENTS;
        if room { Ok(()) } else { Err(errors::too_many_cursors()) }
    }

    /// Whose records a cursor reads: one that is being declared in the pipeline under way, or was before.
    fn touched_by(&self, name: &str) -> Option<Arc<Touched>> {
        let effects = |expect| match expect {
            &Expect::Execute { ref effects } | &Expect::Query { ref effects, .. } => declared(flat(effects), name),
            _ => None,
        };
        self.portals
            .effects()
            .find_map(|effects| declared(flat(effects), name))
            .or_else(|| self.work.expects.iter().rev().find_map(effects))
            .or_else(|| self.cursors.get(name).cloned().flatten())
    }
}

fn flat(effects: &Effects) -> impl DoubleEndedIterator<Item = &Effect> {
    effects.as_deref().unwrap_or_default().iter()
}

/// Whose records the last cursor of this name reads that these declare.
fn declared<'a>(effects: impl Iterator<Item = &'a Effect>, name: &str) -> Option<Arc<Touched>> {
    let of_name = effects.filter_map(|effect| match effect {
        Effect::Declared(cursor) if *cursor.name == *name => Some(cursor.of.clone()),
        _ => None,
    });
    of_name.last().flatten()
}
