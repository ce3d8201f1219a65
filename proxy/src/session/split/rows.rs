//! Which rows go where: decided, recorded, and sent to the shards of their patients.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use pgward_router::decide::Ask;
use pgward_router::{Of, Part, Piece, Refusal, Rows, Transaction};

use super::{Session, Split};
use crate::session::route::Note;
use crate::session::{Need, Step, errors};

/// Rows that are decided about.
pub(super) struct Waiting {
    bytes: Bytes,
    pieces: Vec<Piece>,
    /// The shard of each patient.
    shards: Vec<usize>,
}

impl Session {
    /// Decides about complete rows, and sends them on.
    pub(super) fn check_split_rows(&mut self, fed: Result<Rows, Refusal>) -> Step {
        let started = Instant::now();
        let (Some(guard), Some(split)) = (&mut self.guard, &mut self.split) else { return Step::Done };
        let fingerprint = Arc::clone(&guard.fingerprint);
        let rows = match fed {
            Ok(rows) => rows,
            Err(refusal) => return self.refuse_copy(&refusal, &fingerprint),
        };
        if rows.release == 0 {
            return Step::Done;
        }
        let bytes = guard.held.split_to(rows.release).freeze();
        if rows.evidence.mentions.is_empty() {
            split.send(&Waiting { bytes, pieces: rows.pieces, shards: Vec::new() });
            return Step::Done;
        }
        let table = guard.table.clone();
        let (note, located) = self.resolve(&rows.evidence);
        let ask = Ask {
            reads_only: false,
            tables: std::slice::from_ref(&table),
            evidence: &rows.evidence,
            located: &located,
        };
        let parts = match self.decide_parts(ask) {
            Ok(parts) => parts,
            Err(refusal) => return self.refuse_copy(&refusal, &fingerprint),
        };
        let mut shards = vec![usize::MAX; rows.evidence.mentions.len()];
        for part in &parts {
            part.mentions.iter().for_each(|mention| shards[*mention] = part.decision.target.shard);
        }
        let Some(split) = &mut self.split else { return Step::Done };
        let mut decisions = Vec::with_capacity(parts.len());
        for Part { mut decision, mentions } in parts {
            decision.register.drain(..).for_each(|(key, region)| split.new.add(key, region));
            decisions.push((decision, note_of(&note, &mentions)));
        }
        if split.new.too_many() {
            let error = super::errors::too_many_new();
            self.end_split(&error);
            return Step::Done;
        }
        split.waiting = Some(Waiting { bytes, pieces: rows.pieces, shards });
        let complete = decisions.iter().all(|(decision, _)| split.leg_of(decision.target.shard).is_some());
        self.pending = Some(self.pending_rows(decisions, &fingerprint, started));
        if !complete {
            return Step::Attach(Need::Legs);
        }
        self.send_waiting();
        Step::Done
    }

    fn decide_parts(&self, ask: Ask<'_>) -> Result<Vec<Part>, Refusal> {
        let registering = |key: &_| self.split.as_ref().and_then(|split| split.new.region(key));
        let facts = self.facts(Transaction::None);
        self.state.router.decide_rows(&facts, ask, &registering, &|shard| self.views(shard))
    }

    /// All legs of the rows that wait are there: the decisions are recorded, and the rows go.
    pub(super) fn send_waiting(&mut self) {
        let waiting = self.split.as_mut().and_then(|split| split.waiting.take());
        let (Some(waiting), Some(mut pending)) = (waiting, self.pending.take()) else {
            return self.end_split(&errors::internal("rows of a COPY lost their decision"));
        };
        if let Err(error) = self.record(&mut pending) {
            return self.end_split(&error);
        }
        let sent = self.split.as_mut().is_none_or(|split| split.send(&waiting));
        if !sent {
            self.end_split(&errors::internal("rows of a COPY have no server"));
        }
    }
}

impl Split {
    /// Sends rows to the shards of their patients; false when one of them has no leg.
    fn send(&mut self, rows: &Waiting) -> bool {
        let mut parts = vec![BytesMut::new(); self.legs.len()];
        let mut bytes = &rows.bytes[..];
        for piece in &rows.pieces {
            let (these, rest) = bytes.split_at(piece.length.min(bytes.len()));
            bytes = rest;
            match piece.of {
                Of::Stream if !self.rows => {
                    self.preamble.extend_from_slice(these);
                    self.preamble_counted += as_first(these, piece);
                }
                Of::Stream => parts.iter_mut().for_each(|part| part.extend_from_slice(these)),
                Of::Patient(patient) => {
                    self.rows = true;
                    let leg = rows.shards.get(patient).and_then(|shard| self.leg_of(*shard));
                    let Some(leg) = leg else { return false };
                    let (leg, part) = (&mut self.legs[leg], &mut parts[leg]);
                    if std::mem::take(&mut leg.fresh) {
                        part.extend_from_slice(&self.preamble);
                        leg.lines.add(1, self.preamble_counted);
                        let first = self.preamble_counted == 0;
                        leg.lines.add(1 + self.lines, if first { as_first(these, piece) } else { piece.counted });
                    } else {
                        leg.lines.add(1 + self.lines, piece.counted);
                    }
                    part.extend_from_slice(these);
                }
            }
            self.lines += piece.lines;
        }
        for (leg, part) in self.legs.iter_mut().zip(&parts) {
            leg.talk.rows(part);
        }
        true
    }
}

/// What a server counts of these rows where they are the first that it gets: as long as it has not seen how lines end,
/// it takes only carriage returns in quotes for newlines (`CopyReadLineText`).
fn as_first(rows: &[u8], piece: &Piece) -> u64 {
    let line_feeds = rows.ends_with(b"\n") && !rows.ends_with(b"\r\n");
    if piece.rows == 1 && line_feeds { 1 } else { piece.counted }
}

/// What a note says of these patients.
fn note_of(note: &Note, mentions: &[usize]) -> Note {
    Note {
        patients: mentions.iter().filter_map(|mention| note.patients.get(*mention).copied()).collect(),
        places: mentions.iter().filter_map(|mention| note.places.get(*mention).copied()).collect(),
    }
}
