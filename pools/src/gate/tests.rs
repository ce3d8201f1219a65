#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use Class::{Critical, Emergency, High, Low, Normal};

use super::*;

fn gate(limits: Limits) -> Gate<u32> {
    Gate::new(limits)
}

/// As many slots as the class gets at once.
fn fill(gate: &mut Gate<u32>, class: Class) -> u32 {
    let mut taken = 0;
    while gate.try_take(class) {
        taken += 1;
    }
    taken
}

#[test]
fn shares_are_those_of_the_specification() {
    assert_eq!(Limits::shared(200, 0).reserved, [50, 40, 50, 50, 10]);
    assert_eq!(Limits::shared(20, 0).reserved, [5, 4, 5, 5, 1]);
    assert_eq!(Limits::without_emergency(100, 0).reserved, [0, 20, 25, 25, 5]);
}

#[test]
fn small_pools_leave_a_slot_for_everyone() {
    for capacity in 1..=30 {
        let mut gate = gate(Limits::shared(capacity, 0));
        for class in [Critical, High, Normal, Low] {
            assert!(gate.may_take(class.index()), "{class} in a pool of {capacity}");
        }
        let others = fill(&mut gate, Normal);
        assert!(others >= 1);
        assert_eq!(others + fill(&mut gate, Emergency), capacity);
        if capacity > 1 {
            assert!(others < capacity, "emergency has a slot in a pool of {capacity}");
        }
    }
}

#[test]
fn one_class_alone_has_all_but_the_emergency_share() {
    assert_eq!(fill(&mut gate(Limits::without_emergency(100, 0)), Normal), 100);
    assert_eq!(fill(&mut gate(Limits::shared(200, 0)), Normal), 150);
    assert_eq!(fill(&mut gate(Limits::shared(200, 0)), Low), 150);
}

#[test]
fn the_emergency_pool_is_emergencys() {
    let mut gate = gate(Limits::emergency_only(10, 0));
    assert_eq!(fill(&mut gate, Critical), 0);
    assert_eq!(fill(&mut gate, Emergency), 10);
}

#[test]
fn a_class_that_has_work_keeps_its_share() {
    let mut gate = gate(Limits::without_emergency(100, 0));
    assert!(gate.try_take(Critical));
    assert_eq!(fill(&mut gate, Normal), 100 - 20);
    assert_eq!(fill(&mut gate, Critical), 19);
}

#[test]
fn a_share_is_lent_after_a_while_without_work() {
    let mut gate = gate(Limits::without_emergency(100, 0));
    assert!(gate.try_take(Critical));
    gate.release(Critical);
    assert_eq!(fill(&mut gate, Normal), 80);
    for _ in 0..LEND_AFTER {
        gate.tick();
    }
    assert_eq!(fill(&mut gate, Normal), 20);
}

#[test]
fn waiters_get_a_lent_share_when_it_is_lent() {
    let mut gate = gate(Limits::without_emergency(100, 10));
    assert!(gate.try_take(Critical));
    gate.release(Critical);
    fill(&mut gate, Normal);
    gate.queue(Normal, 1);
    assert!(gate.hand_off().is_empty());
    for _ in 1..LEND_AFTER {
        gate.tick();
        assert!(gate.hand_off().is_empty());
    }
    gate.tick();
    assert_eq!(gate.hand_off().as_slice(), [1]);
}

#[test]
fn an_emergency_is_ahead_of_all_that_wait() {
    let mut gate = gate(Limits::without_emergency(1, 10));
    assert!(gate.try_take(Normal));
    gate.queue(Critical, 1);
    gate.queue(Emergency, 2);
    gate.release(Normal);
    assert_eq!(gate.hand_off().as_slice(), [2]);
}

#[test]
fn low_gets_its_share_under_a_flood_of_normal() {
    let mut gate = gate(Limits::without_emergency(20, 1000));
    fill(&mut gate, Normal);
    for n in 0..100 {
        gate.queue(Normal, n);
    }
    gate.queue(Low, 1000);
    gate.release(Normal);
    assert_eq!(gate.hand_off().as_slice(), [1000], "below its share, while normal is above");
}

#[test]
fn nobody_starves_where_rounding_leaves_no_share() {
    let mut gate = gate(Limits::without_emergency(4, 1000));
    assert_eq!(gate.limits.reserved[Low.index()], 0);
    fill(&mut gate, High);
    gate.queue(Low, 1000);
    for n in 0.. {
        assert!(n < 10 * AGEING, "low starves");
        gate.queue(High, n);
        gate.release(High);
        if gate.hand_off().contains(&1000) {
            break;
        }
    }
}

#[test]
fn a_full_queue_refuses_the_newest_of_the_lowest_class() {
    let mut gate = gate(Limits::without_emergency(1, 2));
    assert!(gate.try_take(Normal));
    gate.queue(Low, 1);
    gate.queue(Low, 2);
    assert!(matches!(gate.queue(Normal, 3), Queued::Displacing(_, 2)));
    assert!(matches!(gate.queue(Low, 4), Queued::Full));
}

/// A small deterministic generator (SplitMix64), so that a failing seed can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn class(&mut self) -> Class {
        Class::ALL[self.below(5) as usize]
    }
}

/// A gate, and beside it what a witness has seen.
struct Trial {
    gate: Gate<(Class, u32)>,
    holding: [u32; 5],
    waiting: [BTreeSet<(u32, Place)>; 5],
    tickets: u32,
}

impl Trial {
    fn step(&mut self, random: &mut Random) {
        match random.below(10) {
            0..=3 => self.arrive(random.class()),
            4..=7 => self.release(random),
            8 => self.cancel(random),
            _ => self.gate.tick(),
        }
        let free = self.gate.free();
        let granted = self.gate.hand_off();
        self.granted(&granted, free);
        self.check();
    }

    fn arrive(&mut self, class: Class) {
        let emergency_owed = self.gate.owed(0);
        let waits_ahead = (0..=class.index()).any(|k| !self.waiting[k].is_empty());
        if self.gate.try_take(class) {
            self.check_lending(class);
            assert!(!waits_ahead, "nobody of the same or a higher class is overtaken");
            assert!(class == Emergency || self.gate.free() >= emergency_owed, "the emergency share is not lent");
            self.holding[class.index()] += 1;
            return;
        }
        let ticket = self.tickets;
        self.tickets += 1;
        let k = class.index();
        match self.gate.queue(class, (class, ticket)) {
            Queued::Waiting(place) => {
                self.waiting[k].insert((ticket, place));
            }
            Queued::Displacing(place, (displaced, last)) => {
                assert!(displaced > class);
                assert!(self.waiting[displaced.index() + 1..].iter().all(BTreeSet::is_empty), "the lowest gives way");
                assert_eq!(self.waiting[displaced.index()].pop_last().unwrap().0, last);
                self.waiting[k].insert((ticket, place));
            }
            Queued::Full => assert!(self.waiting[k + 1..].iter().all(BTreeSet::is_empty)),
        }
    }

    fn release(&mut self, random: &mut Random) {
        let class = random.class();
        if self.holding[class.index()] > 0 {
            self.holding[class.index()] -= 1;
            self.gate.release(class);
        }
    }

    fn cancel(&mut self, random: &mut Random) {
        let class = random.class();
        let waiting = &mut self.waiting[class.index()];
        if waiting.is_empty() {
            return;
        }
        let (ticket, place) = *waiting.iter().nth(random.below(waiting.len() as u64) as usize).unwrap();
        waiting.remove(&(ticket, place));
        assert!(self.gate.leave(class, place));
        assert!(!self.gate.leave(class, place), "it leaves once");
    }

    fn granted(&mut self, granted: &[(Class, u32)], mut free: u32) {
        for &(class, ticket) in granted {
            let k = class.index();
            assert!(free > 0, "no slot is handed out twice");
            free -= 1;
            assert_eq!(self.waiting[k].pop_first().unwrap().0, ticket, "first come, first served");
            assert!(class == Emergency || self.waiting[0].is_empty(), "emergency is ahead of all");
            self.holding[k] += 1;
            let owed = self.gate.limits.reserved[0].saturating_sub(self.holding[0]);
            assert!(class == Emergency || free >= owed, "the emergency share is not lent");
        }
        if let [(class, _)] = granted {
            self.check_lending(*class);
        }
    }

    /// Who has more than its own share has taken nothing of what is kept for the higher classes that have work.
    fn check_lending(&self, class: Class) {
        let k = class.index();
        if k > 0 && self.gate.in_use[k] > self.gate.limits.reserved[k] {
            let kept: u32 = (0..k).map(|higher| self.gate.owed(higher)).sum();
            assert!(self.gate.free() >= kept, "{class} borrows what is kept for a higher class");
        }
    }

    fn check(&self) {
        assert_eq!(self.gate.in_use, self.holding);
        assert!(self.gate.in_use() <= self.gate.limits.capacity, "never more in use than there are");
        assert_eq!(self.gate.waiting() as usize, self.waiting.iter().map(BTreeSet::len).sum::<usize>());
        assert!(self.gate.waiting() <= self.gate.limits.max_waiting);
        for class in Class::ALL {
            let k = class.index();
            assert!(self.waiting[k].is_empty() || !self.gate.may_take(k), "{class} waits for what it may have");
        }
    }
}

#[test]
fn invariants_hold_in_random_schedules() {
    for seed in 0..400 {
        let mut random = Random(seed);
        let capacity = 1 + random.below(40) as u32;
        let max_waiting = random.below(30) as u32;
        let limits = match random.below(3) {
            0 => Limits::shared(capacity, max_waiting),
            1 => Limits::without_emergency(capacity, max_waiting),
            _ => Limits::emergency_only(capacity, max_waiting),
        };
        let mut trial = Trial { gate: Gate::new(limits), holding: [0; 5], waiting: Default::default(), tickets: 0 };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..500).for_each(|_| trial.step(&mut random));
        }));
        assert!(outcome.is_ok(), "seed {seed}, {limits:?}");
    }
}
