//! Sovereignty: may a request from this origin reach patients whose data lives in that region?
//!
//! Prohibition wins over everything; then the region itself, then `access_from`; a region that is not resident is open
//! to the rest; a resident one is strict local. The answers for all pairs are worked out once, when a configuration is
//! loaded, so that a decision only reads them.

use std::sync::Arc;

use pgward_config::{PatientRegion, Region, RegionId};

use crate::refusal::{Refusal, RefusalKind};

/// The answer for one pair of origin and home region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// Allowed, with the rule in words.
    Allowed(Arc<str>),
    /// The home region prohibits the origin, for this reason.
    Prohibited(Arc<str>),
    /// The home region's data must stay local and the origin is not among those that it lets in.
    StrictLocal,
}

/// What the rules of `home` say to `origin`.
pub(crate) fn permit(home: &Region, origin: &RegionId) -> Permit {
    if let Some(prohibition) = home.prohibited.iter().find(|prohibition| prohibition.region == *origin) {
        Permit::Prohibited(Arc::clone(&prohibition.reason))
    } else if home.id == *origin {
        Permit::Allowed("home region".into())
    } else if home.access_from.contains(origin) {
        Permit::Allowed(format!("access_from of {}", home.id).into())
    } else if !home.resident {
        Permit::Allowed(format!("{} is not resident", home.id).into())
    } else {
        Permit::StrictLocal
    }
}

impl Permit {
    /// The rule in words, or why the origin may not reach a patient of `patient_region` (`None`: data without
    /// patients) that lives in `home`.
    pub(crate) fn check(
        &self,
        home: &RegionId,
        origin: &RegionId,
        patient_region: Option<&PatientRegion>,
    ) -> Result<&Arc<str>, Refusal> {
        let (rule, reason) = match self {
            Self::Allowed(words) => return Ok(words),
            Self::Prohibited(reason) => (format!("{home} prohibits access from {origin}"), &**reason),
            Self::StrictLocal => (
                format!("strict local: {home} is resident and its access_from does not list {origin}"),
                "data of this region must stay local",
            ),
        };
        let whose = patient_region
            .map_or_else(|| format!("data of region {home}"), |region| format!("a patient of region {region}"));
        let patient = patient_region.map_or_else(|| "none".into(), |region| format!("{region} (data in {home})"));
        Err(Refusal::new(RefusalKind::Sovereignty, format!("{whose} may not be reached from {origin}"))
            .detail(format!("Patient region: {patient}. Request region: {origin}. Rule: {rule}. Reason: {reason}."))
            .hint(format!("Connect through a listener whose origin is {home} or a region that {home} lets in.")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use pgward_config::Prohibition;

    use super::*;

    fn region(resident: bool, access_from: &[&str], prohibited: &[&str]) -> Region {
        Region {
            id: RegionId::new("us-east-1"),
            name: "US East".into(),
            frameworks: vec![],
            resident,
            authorities: vec![],
            zones: vec![],
            backup_region: None,
            replicas_in: vec![],
            access_from: access_from.iter().map(|id| RegionId::new(*id)).collect(),
            prohibited: prohibited
                .iter()
                .map(|id| Prohibition { region: RegionId::new(*id), reason: "HIPAA requires US data residency".into() })
                .collect(),
        }
    }

    #[test]
    fn prohibition_wins_then_home_then_access_from_then_residence() {
        let strict = region(true, &["us-west-2", "eu-west-1"], &["eu-west-1"]);
        let open = region(false, &[], &["eu-west-1"]);
        for (home, origin, expected) in [
            (&strict, "us-east-1", Some("home region")),
            (&strict, "us-west-2", Some("access_from of us-east-1")),
            (&strict, "eu-west-1", None),
            (&strict, "ap-south-1", None),
            (&open, "ap-south-1", Some("us-east-1 is not resident")),
            (&open, "eu-west-1", None),
        ] {
            let origin = RegionId::new(origin);
            let permit = permit(home, &origin);
            let words = permit.check(&home.id, &origin, None).ok();
            assert_eq!(words.map(|words| &**words), expected, "{origin}");
        }
    }

    #[test]
    fn a_refusal_names_both_regions_the_rule_and_the_reason() {
        let home = region(true, &[], &["eu-west-1"]);
        let origin = RegionId::new("eu-west-1");
        let refusal =
            permit(&home, &origin).check(&home.id, &origin, Some(&PatientRegion::new("us-east"))).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Sovereignty);
        assert_eq!(refusal.message, "a patient of region us-east may not be reached from eu-west-1");
        assert_eq!(
            refusal.detail.unwrap(),
            "Patient region: us-east (data in us-east-1). Request region: eu-west-1. \
             Rule: us-east-1 prohibits access from eu-west-1. Reason: HIPAA requires US data residency."
        );
    }
}
