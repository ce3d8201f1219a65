//! What a session knows of its client's portals: those that no server has heard of (of statements that the proxy answers
//! itself, and of COPYs that wait for their rows), and what the success of those on servers will change.

use std::sync::Arc;

use super::prepared::Prepared;
use super::work::{Effect, Effects};

/// The portals of one client.
#[derive(Debug, Default)]
pub(super) struct Portals {
    own: Vec<Portal>,
    /// Of portals that were bound on a server and not executed yet.
    effects: Vec<(Box<[u8]>, Effects)>,
}

/// A portal that no server has heard of.
#[derive(Debug)]
pub(super) struct Portal {
    name: Box<[u8]>,
    pub(super) statement: Arc<Prepared>,
    /// It ran to its end, which such a statement does at once.
    pub(super) ran: bool,
}

impl Portals {
    /// The portal of this name, if no server has heard of it.
    pub(super) fn own(&self, name: &[u8]) -> Option<&Portal> {
        self.own.iter().find(|portal| *portal.name == *name)
    }

    /// Binds one that no server hears of, in the place of another of its name.
    pub(super) fn open(&mut self, name: &[u8], statement: Arc<Prepared>) {
        self.close(name);
        self.own.push(Portal { name: name.into(), statement, ran: false });
    }

    /// Notes that one was bound on a server, in the place of another of its name.
    pub(super) fn bound(&mut self, name: &[u8], effects: Effects) {
        self.close(name);
        self.effects.retain(|(bound, _)| **bound != *name);
        if effects.is_some() {
            self.effects.push((name.into(), effects));
        }
    }

    /// Notes that one of the proxy's own ran.
    pub(super) fn ran(&mut self, name: &[u8]) {
        if let Some(portal) = self.own.iter_mut().find(|portal| *portal.name == *name) {
            portal.ran = true;
        }
    }

    /// What the success of one on a server changes; asked for once.
    pub(super) fn take_effects(&mut self, name: &[u8]) -> Effects {
        let at = self.effects.iter().position(|(bound, _)| **bound == *name)?;
        self.effects.swap_remove(at).1
    }

    /// What the success of those on servers changes that were not executed yet.
    pub(super) fn effects(&self) -> impl Iterator<Item = &Effects> {
        self.effects.iter().map(|(_, effects)| effects)
    }

    /// Closes one that no server has heard of; whether there was such a one.
    pub(super) fn close(&mut self, name: &[u8]) -> bool {
        let before = self.own.len();
        self.own.retain(|portal| *portal.name != *name);
        self.own.len() < before
    }

    /// Portals end with their transaction, the unnamed one sooner.
    pub(super) fn sync(&mut self, in_transaction: bool) {
        self.own.retain(|portal| in_transaction && !portal.name.is_empty());
    }

    /// Nothing is left of those on servers.
    pub(super) fn forget_effects(&mut self) {
        self.effects.clear();
    }

    /// Nothing is left of any.
    pub(super) fn clear(&mut self) {
        self.own.clear();
        self.effects.clear();
    }

    /// Whether one more of this statement would be more than `count` of them or more than `bytes` bytes.
    pub(super) fn would_exceed(&self, name: &[u8], statement: &Prepared, count: usize, bytes: usize) -> bool {
        if self.own.is_empty() && self.effects.is_empty() {
            return false;
        }
        let own = self.own.iter().map(|portal| portal.name.len() + portal.statement.text.len());
        let bound = self.effects.iter().map(|(name, effects)| name.len() + weight(effects));
        let held: usize = own.chain(bound).sum();
        self.own.len() + self.effects.len() >= count || held + name.len() + statement.text.len() > bytes
    }
}

fn weight(effects: &Effects) -> usize {
    let of_effect = |effect: &Effect| match effect {
        Effect::Set(changes) => {
            changes.iter().map(|change| change.name.len() + change.value.as_ref().map_or(0, String::len)).sum()
        }
        _ => 0,
    };
    effects.iter().flatten().map(of_effect).sum()
}

#[cfg(test)]
mod tests {
    use pgward_router::{Analysed, Shape};
    use smallvec::SmallVec;

    use super::super::settings::Change;
    use super::*;

    fn statement(text: &str) -> Arc<Prepared> {
        let shape = Shape { fingerprint: Arc::from("0"), statements: SmallVec::new(), params: 0 };
        let analysed = Analysed { shape: Arc::new(shape), literals: SmallVec::new() };
        Arc::new(Prepared::new(text.as_bytes(), Box::new([]), analysed))
    }

    #[test]
    fn portals_are_counted_and_weighed() {
        let (mut portals, commit) = (Portals::default(), statement("COMMIT"));
        portals.open(b"a", Arc::clone(&commit));
        assert!(!portals.would_exceed(b"b", &commit, 2, 14) && portals.would_exceed(b"b", &commit, 2, 13));
        let set = Effect::Set(vec![Change { name: "x".into(), value: Some("'123'".to_owned()) }]);
        portals.bound(b"b", Some(Box::new([set])));
        assert!(portals.would_exceed(b"c", &commit, 2, 100));
        assert!(!portals.would_exceed(b"c", &commit, 3, 21) && portals.would_exceed(b"c", &commit, 3, 20));
        assert!(portals.take_effects(b"b").is_some() && portals.take_effects(b"b").is_none());
        assert!(portals.close(b"a") && !portals.close(b"a"));
    }

    #[test]
    fn a_name_is_one_portals() {
        let mut portals = Portals::default();
        portals.open(b"", statement("BEGIN"));
        portals.ran(b"");
        assert!(portals.own(b"").is_some_and(|portal| portal.ran));
        portals.open(b"", statement("COMMIT"));
        assert!(portals.own(b"").is_some_and(|portal| !portal.ran));
        portals.bound(b"", None);
        assert!(portals.own(b"").is_none(), "a server has one of this name now");
        portals.open(b"", statement("BEGIN"));
        portals.open(b"named", statement("BEGIN"));
        portals.sync(true);
        assert!(portals.own(b"").is_none() && portals.own(b"named").is_some());
        portals.sync(false);
        assert!(portals.own(b"named").is_none());
    }
}
