//! The decision about rows of a COPY that may go to several shards: one for each shard, all or none.

use pgward_config::PatientRegion;

use super::{Ask, At, Need, Router};
use crate::decision::{Decision, Facts};
use crate::evidence::PatientKey;
use crate::placement::Views;
use crate::refusal::Refusal;

/// The rows of one shard.
#[derive(Debug)]
pub struct Part {
    /// Where they go, and why they may.
    pub decision: Decision,
    /// Their patients, as places in the evidence, ascending.
    pub mentions: Vec<usize>,
}

impl Router {
    /// Decides about rows of a COPY: one decision for each shard that a patient of theirs lives on, in the order in
    /// which the shards were first seen. `registering` gives the region of a patient whom rows before these have brought,
    /// and who is not in the directory before all rows are stored.
    ///
    /// # Errors
    /// Why nothing of it goes anywhere: a patient whom nobody knows, a shard that the origin may not reach, a primary
    /// that is not there; with the row at which it was seen.
    pub fn decide_rows(
        &self,
        facts: &Facts<'_>,
        ask: Ask<'_>,
        registering: &dyn Fn(&PatientKey) -> Option<PatientRegion>,
        views: &dyn Fn(usize) -> Views,
    ) -> Result<Vec<Part>, Refusal> {
        let origin = self.origin(&facts.listener.origin)?;
        let mut needs: Vec<(usize, Need, Vec<usize>)> = Vec::new();
        for (index, mention) in ask.evidence.mentions.iter().enumerate() {
            let of_row = |refusal: Refusal| refusal.of_row(mention.whence);
            let located = ask.located.get(index).and_then(Option::as_ref);
            let region = if located.is_none() { registering(&mention.key) } else { None };
            let pending = region.map(|region| (mention.key.clone(), region));
            let mut need = self.write(facts);
            self.add_patient(&mut need, origin, facts, mention, located, pending.as_slice()).map_err(of_row)?;
            let At::Patients(shard) = need.at else { continue };
            match needs.iter_mut().find(|(known, ..)| *known == shard) {
                Some((_, first, mentions)) => {
                    first.register.append(&mut need.register);
                    mentions.push(index);
                }
                None => needs.push((shard, need, vec![index])),
            }
        }
        let part = |(_, need, mentions): (usize, Need, Vec<usize>)| {
            let whence = mentions.first().and_then(|first| ask.evidence.mentions.get(*first)).map(|first| first.whence);
            let placed = self.place(origin, facts, need.at, false, views, &[]);
            let decision = placed.and_then(|placed| self.decision(facts, need, placed));
            let of_row = |refusal: Refusal| whence.map_or(refusal.clone(), |whence| refusal.of_row(whence));
            Ok(Part { decision: decision.map_err(of_row)?, mentions })
        };
        needs.into_iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use pgward_config::{TableKind, Workload};

    use super::super::tests::{Case, Census};
    use super::*;
    use crate::decision::{Located, Transaction};
    use crate::evidence::{Evidence, Mention, Unknown, Whence};
    use crate::statement::TableUse;

    fn row(line: u64, patient: i64, region: Option<&str>) -> Mention {
        let region = region.map(PatientRegion::new);
        Mention { key: PatientKey::Bigint(patient), whence: Whence::CopyLine(line), unknown: Unknown::Register, region }
    }

    /// Each part as `node permit: mentions, registered`.
    fn parts(origin: &str, rows: &[Mention], registering: Option<&str>) -> Result<Vec<String>, (String, String)> {
        let case = Case::write().from(origin);
        let router = Router::new(&case.config);
        let evidence = Evidence { mentions: rows.iter().cloned().collect() };
        let located: Vec<Option<Located>> =
            evidence.mentions.iter().map(|mention| router.locate(&mention.key, &Census)).collect();
        let table = TableUse { name: "public.t".into(), kind: TableKind::Patient, written: true };
        let ask = Ask { reads_only: false, tables: &[table], evidence: &evidence, located: &located };
        let user = crate::sample::user(Workload::Care);
        let class = case.class;
        let facts = Facts { listener: &case.listener, user: &user, class, transaction: Transaction::None };
        let registering = |_: &PatientKey| registering.map(PatientRegion::new);
        let words = |part: Part| {
            let Part { decision, mentions } = part;
            format!("{} {:?} {}", decision.target.node_id, mentions, decision.register.len())
        };
        match router.decide_rows(&facts, ask, &registering, &|_| case.views.clone()) {
            Ok(parts) => Ok(parts.into_iter().map(words).collect()),
            Err(refusal) => Err((refusal.kind.sqlstate().to_owned(), refusal.message.into_owned())),
        }
    }

    #[test]
    fn rows_are_parted_by_shard() {
        let rows = [row(1, 100, None), row(2, 200, None), row(3, 101, Some("us-east")), row(4, 900, Some("us-west"))];
        let expected = ["us-east-patients/primary [0, 2] 0", "us-west-patients/primary [1, 3] 1"];
        assert_eq!(parts("us-east-1", &rows, None).unwrap(), expected);
    }

    #[test]
    fn a_new_patient_of_a_row_before_is_known() {
        let rows = [row(7, 100, None), row(8, 900, None)];
        let expected = ["us-east-patients/primary [0] 0", "us-west-patients/primary [1] 0"];
        assert_eq!(parts("us-east-1", &rows, Some("us-west")).unwrap(), expected);
        let (code, message) = parts("us-east-1", &rows, None).unwrap_err();
        assert_eq!((&*code, &*message), ("PW004", "line 8 of the COPY: the directory does not know this patient"));
        let rows = [row(8, 900, Some("us-east"))];
        assert_eq!(parts("us-east-1", &rows, Some("us-west")).unwrap_err().0, "PW013");
    }

    #[test]
    fn one_row_that_may_not_be_written_refuses_all() {
        let rows = [row(1, 100, None), row(2, 300, None)];
        let (code, message) = parts("us-east-1", &rows, None).unwrap_err();
        assert_eq!(code, "PW005");
        assert!(message.starts_with("line 2 of the COPY: a patient of region eu-west may not be reached"), "{message}");
    }
}
