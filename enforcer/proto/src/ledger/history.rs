//! What an agent has asked for and held lately: how much of the last day, how often in the last hour, and how it was answered. It stands on the
//! ledger's line of time, and is bounded whatever the agent does.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::policy::{DAY_NS, Limits, REQUESTS_PER_HOUR_CEILING};
use crate::time::NS_PER_S;

/// What is held is counted in slots of a quarter of an hour; the oldest counts whole until all of it is a day past.
const SLOT_NS: u64 = 900 * NS_PER_S;
/// How many of them a day has.
const SLOTS_PER_DAY: u64 = DAY_NS / SLOT_NS;
const HOUR_NS: u64 = 3600 * NS_PER_S;

/// One agent's last day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// How long a window was open in each slot, nanoseconds; a day of them, and one.
    slots: BTreeMap<u64, u64>,
    /// When it asked in the last hour, oldest first; as many as any rule allows.
    asked: VecDeque<u64>,
    /// How often in a row it was denied, and when last.
    denials: u32,
    denied_ns: u64,
    /// When its last window ended.
    closed_ns: Option<u64>,
}

/// Why an agent may not ask yet, and for how much longer, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooSoon {
    /// Its last window has just ended.
    Cooldown(u64),
    /// It has asked too often in the last hour.
    Rate(u64),
    /// It has been denied.
    Denied(u64),
}

impl History {
    pub(super) fn asks(&mut self, at_ns: u64) {
        let is_past = |asked: &u64| asked.saturating_add(HOUR_NS) <= at_ns;
        while self.asked.len() >= REQUESTS_PER_HOUR_CEILING as usize
            || self.asked.front().is_some_and(is_past)
        {
            self.asked.pop_front();
        }
        self.asked.push_back(at_ns);
    }

    pub(super) const fn is_denied(&mut self, at_ns: u64) {
        self.denials = self.denials.saturating_add(1);
        self.denied_ns = at_ns;
    }

    pub(super) const fn is_granted_by_a_person(&mut self) {
        self.denials = 0;
    }

    /// Takes in a window that was open from one moment to another.
    pub(super) fn held(&mut self, mut from_ns: u64, until_ns: u64) {
        self.closed_ns = Some(until_ns.max(self.closed_ns.unwrap_or_default()));
        while from_ns < until_ns {
            let slot = from_ns / SLOT_NS;
            let end = (slot + 1).saturating_mul(SLOT_NS).min(until_ns);
            let held = self.slots.entry(slot).or_default();
            *held = held.saturating_add(end - from_ns);
            from_ns = end;
        }
        let oldest = until_ns.saturating_sub(DAY_NS) / SLOT_NS;
        self.slots = self.slots.split_off(&oldest);
    }

    /// How long of the day before `at_ns` a window was open that has ended, nanoseconds.
    pub(super) fn held_in_day(&self, at_ns: u64) -> u64 {
        let oldest = at_ns.saturating_sub(DAY_NS) / SLOT_NS;
        self.slots.range(oldest..).map(|(_, held)| held).sum()
    }

    /// How much of each quarter of an hour of the day before `at_ns` a window was open that has ended, percent, the oldest first.
    pub(super) fn day(&self, at_ns: u64) -> Vec<u8> {
        let newest = at_ns / SLOT_NS;
        let slots = (newest.saturating_sub(SLOTS_PER_DAY - 1)..=newest).map(|slot| {
            let held = self.slots.get(&slot).copied().unwrap_or(0);
            percent_of_slot(held)
        });
        slots.collect()
    }

    /// How much longer the agent may hold no window after its last, nanoseconds.
    pub(super) fn cooldown_left(&self, limits: &Limits, at_ns: u64) -> Option<u64> {
        let wait_ns = limits.cooldown_s.saturating_mul(NS_PER_S);
        self.closed_ns
            .and_then(|closed| left(closed, wait_ns, at_ns))
    }

    /// Whether the agent must wait before it asks again.
    pub(super) fn too_soon(&self, limits: &Limits, at_ns: u64) -> Option<TooSoon> {
        let left = |from_ns, wait_ns| left(from_ns, wait_ns, at_ns);
        let cooldown = self.cooldown_left(limits, at_ns);
        let denied = left(self.denied_ns, limits.backoff_ns(self.denials));
        // The request that must be an hour past before there is room for another.
        let most = limits.requests_per_hour_max as usize;
        let first = self
            .asked
            .len()
            .checked_sub(most)
            .and_then(|at| self.asked.get(at));
        let rate = first.and_then(|first| left(*first, HOUR_NS));
        denied
            .filter(|_| self.denials > 0)
            .map(TooSoon::Denied)
            .or_else(|| cooldown.map(TooSoon::Cooldown))
            .or_else(|| rate.map(TooSoon::Rate))
    }
}

/// How much of a slot that is, rounded up: what was held at all is seen.
fn percent_of_slot(held_ns: u64) -> u8 {
    let percent = (u128::from(held_ns) * 100).div_ceil(u128::from(SLOT_NS));
    u8::try_from(percent.min(100)).unwrap_or(100)
}

/// A day in which a window has been open since `from_ns`, over what ended in it.
pub(super) fn with_open(day: &mut [u8], from_ns: u64, at_ns: u64) {
    let newest = at_ns / SLOT_NS;
    for (age, cell) in day.iter_mut().rev().enumerate() {
        let Some(slot) = newest.checked_sub(age as u64) else {
            return;
        };
        let begins = slot * SLOT_NS;
        let until = (begins + SLOT_NS).min(at_ns);
        if until <= from_ns {
            return;
        }
        *cell = cell
            .saturating_add(percent_of_slot(until - from_ns.max(begins)))
            .min(100);
    }
}

/// How much of a wait is left.
fn left(from_ns: u64, wait_ns: u64, at_ns: u64) -> Option<u64> {
    let left = from_ns.saturating_add(wait_ns).checked_sub(at_ns);
    left.filter(|left| *left > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: u64 = 60 * NS_PER_S;

    #[test]
    fn the_request_past_what_an_hour_allows_waits_for_the_oldest_to_be_an_hour_past() {
        let limits = Limits {
            requests_per_hour_max: 3,
            ..Limits::TIGHT
        };
        let mut history = History::default();
        for minute in [100, 110, 120] {
            assert_eq!(history.too_soon(&limits, minute * MINUTE), None);
            history.asks(minute * MINUTE);
        }
        assert_eq!(
            history.too_soon(&limits, 130 * MINUTE),
            Some(TooSoon::Rate(30 * MINUTE))
        );
        assert_eq!(history.too_soon(&limits, 160 * MINUTE), None);
    }

    #[test]
    fn who_is_denied_waits_longer_each_time_until_a_person_grants_something() {
        let limits = Limits {
            backoff_s: 60,
            ..Limits::TIGHT
        };
        let mut history = History::default();
        history.is_denied(MINUTE);
        assert_eq!(
            history.too_soon(&limits, MINUTE),
            Some(TooSoon::Denied(MINUTE))
        );
        history.is_denied(2 * MINUTE);
        assert_eq!(
            history.too_soon(&limits, 2 * MINUTE),
            Some(TooSoon::Denied(2 * MINUTE))
        );
        history.is_granted_by_a_person();
        assert_eq!(history.too_soon(&limits, 2 * MINUTE), None);
    }

    #[test]
    fn a_day_shows_what_was_held_in_each_quarter_of_an_hour() {
        let mut history = History::default();
        let at = 2 * DAY_NS;
        history.held(at - 30 * MINUTE, at - 15 * MINUTE);
        history.held(at - 4 * MINUTE, at - MINUTE);
        let mut day = history.day(at);
        assert_eq!(day.len(), 96);
        assert_eq!(day[92..], [0, 100, 20, 0]);
        with_open(&mut day, at - MINUTE, at + MINUTE);
        assert_eq!(day[92..], [0, 100, 27, 7]);
        with_open(&mut day, 0, at + MINUTE);
        assert!(day.iter().all(|cell| *cell > 6));
    }

    proptest! {
        #[test]
        fn what_is_counted_of_a_day_is_never_less_than_what_was_held_and_at_most_a_slot_more(spans in prop::collection::vec((1_u64..200, 1_u64..120), 1..40)) {
            let mut history = History::default();
            let (mut at, mut held) = (DAY_NS, Vec::new());
            for (pause, length) in spans {
                let from = at + pause * MINUTE;
                at = from + length * MINUTE;
                history.held(from, at);
                held.push((from, at));
                let day = at - DAY_NS;
                let exact: u64 = held.iter().map(|(from, until)| until.saturating_sub(*from.max(&day))).sum();
                let counted = history.held_in_day(at);
                prop_assert!(counted >= exact && counted <= exact + SLOT_NS, "{counted} for {exact}");
                prop_assert!(history.slots.len() <= 98);
            }
        }
    }
}
