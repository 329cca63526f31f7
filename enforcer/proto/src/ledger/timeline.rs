//! One line of time through all boots, made from what the records say: it moves with the boot clock, which no change of the wall clock moves, and
//! across a boot by what the wall clock says, since nothing else does. Which records are of one boot is said by their boot id and never guessed from a
//! clock. What is counted over a day stands on it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::time::Now;

/// Of how many boots it is known where on the line they began. What is of an older one was before all of these.
const BOOTS_MAX: usize = 64;

/// Where a boot stands on the line: its first event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Boot {
    id: String,
    boot_ns: u64,
    at_ns: u64,
}

/// Since when records are needed, on the ledger's line of time.
#[derive(Debug, Clone, Copy)]
pub struct Needed<'a> {
    pub(super) since_ns: u64,
    timeline: &'a Timeline,
}

impl Needed<'_> {
    /// Whether this moment, as a record names it, is before all that is needed. What cannot be placed may be needed.
    #[must_use]
    pub fn is_after(&self, boot_id: &str, boot_ns: u64) -> bool {
        let Timeline { boots, .. } = self.timeline;
        let its = boots.iter().rfind(|boot| boot.id == boot_id);
        let at_ns = match (its, boots.front()) {
            (Some(its), _) if boot_ns < its.boot_ns => {
                its.at_ns.saturating_sub(its.boot_ns - boot_ns)
            }
            (Some(its), _) => its.at_ns.saturating_add(boot_ns - its.boot_ns),
            // It was over when the oldest that is known began.
            (None, Some(oldest)) => oldest.at_ns,
            (None, None) => return false,
        };
        at_ns < self.since_ns
    }
}

/// Where the line has got to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timeline {
    /// The boot that what comes next is of, once one was named.
    boot_id: Option<String>,
    /// Whether that is another boot than the one of `last`.
    is_other_boot: bool,
    last: Option<Now>,
    at_ns: u64,
    /// The latest boots, oldest first.
    boots: VecDeque<Boot>,
}

impl Timeline {
    pub(super) const fn needed(&self, since_ns: u64) -> Needed<'_> {
        Needed {
            since_ns,
            timeline: self,
        }
    }

    /// Says in which boot what comes next happens. The wall clock has a say in how long it has been only where that is another than before.
    pub(super) fn in_boot(&mut self, boot_id: &str) {
        if self.boot_id.as_deref() == Some(boot_id) {
            return;
        }
        self.is_other_boot |= self.boot_id.is_some();
        self.boot_id = Some(boot_id.to_owned());
    }

    /// Nanoseconds on the line at `now`; it never goes back.
    pub(super) fn at(&self, now: Now) -> u64 {
        let Some(last) = self.last else {
            return self.at_ns;
        };
        let passed = if self.is_other_boot {
            // At least as long as this boot is up.
            now.unix_ns.saturating_sub(last.unix_ns).max(now.boot_ns)
        } else {
            now.boot_ns.saturating_sub(last.boot_ns)
        };
        self.at_ns.saturating_add(passed)
    }

    /// Moves to `now`.
    pub(super) fn move_to(&mut self, now: Now) -> u64 {
        self.at_ns = self.at(now);
        let is_late = |last: Now| !self.is_other_boot && now.boot_ns < last.boot_ns;
        // What is recorded late moves nothing back: the time since would count twice.
        if !self.last.is_some_and(is_late) {
            self.last = Some(now);
        }
        self.is_other_boot = false;
        self.begin_boot(now);
        self.at_ns
    }

    fn begin_boot(&mut self, now: Now) {
        let known = self.boots.back().map(|boot| boot.id.as_str());
        if known == self.boot_id.as_deref() {
            return;
        }
        self.boots.extend(self.boot_id.clone().map(|id| Boot {
            id,
            boot_ns: now.boot_ns,
            at_ns: self.at_ns,
        }));
        if self.boots.len() > BOOTS_MAX {
            self.boots.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn now(boot_ns: u64, unix_ns: u64) -> Now {
        Now { boot_ns, unix_ns }
    }

    #[test]
    fn a_wall_clock_that_jumps_moves_nothing_within_a_boot() {
        let mut line = Timeline::default();
        line.in_boot("a");
        let start = line.move_to(now(100, 1_000_000));
        assert_eq!(line.move_to(now(150, 9_000_000)) - start, 50);
        // A daemon that starts again says the boot again.
        line.in_boot("a");
        assert_eq!(line.move_to(now(160, 90_000_000)) - start, 60);
        assert_eq!(line.move_to(now(170, 1)) - start, 70);
    }

    #[test]
    fn what_is_recorded_late_counts_no_time_twice() {
        let mut line = Timeline::default();
        let start = line.move_to(now(100, 0));
        line.move_to(now(150, 0));
        assert_eq!(line.move_to(now(120, 0)) - start, 50);
        assert_eq!(line.move_to(now(160, 0)) - start, 60);
    }

    #[test]
    fn across_a_boot_the_wall_clock_says_how_long_and_the_new_boot_at_least() {
        let across = |to: Now| {
            let mut line = Timeline::default();
            line.in_boot("a");
            let start = line.move_to(now(1000, 5000));
            line.in_boot("b");
            line.move_to(to) - start
        };
        assert_eq!(across(now(10, 5600)), 600);
        // Set back meanwhile: the host has been up for as long as it says.
        assert_eq!(across(now(10, 4000)), 10);
        // Up for longer than before, and down for long in between.
        assert_eq!(across(now(1020, 9000)), 4000);
    }

    #[test]
    fn a_moment_is_placed_by_its_boot_and_not_by_the_wall_clock() {
        let mut line = Timeline::default();
        assert!(
            !line.needed(u64::MAX).is_after("a", 0),
            "nothing is known of it"
        );
        line.in_boot("a");
        line.move_to(now(100, 1000));
        // Set far ahead within the boot, and what came of it across the next one counts.
        line.move_to(now(150, 90_000));
        line.in_boot("b");
        line.move_to(now(10, 91_000));
        let placed = |line: &Timeline, boot: &str, boot_ns| {
            let mut all = 0..=5000;
            all.find(|since| line.needed(*since).is_after(boot, boot_ns))
                .map(|since| since - 1)
        };
        assert_eq!(
            [100, 150, 90].map(|at| placed(&line, "a", at)),
            [Some(0), Some(50), Some(0)]
        );
        assert_eq!(
            [10, 5, 30].map(|at| placed(&line, "b", at)),
            [Some(1050), Some(1045), Some(1070)]
        );
        for boot in 0..BOOTS_MAX as u64 {
            line.in_boot(&format!("{boot}"));
            line.move_to(now(1, 91_001 + boot));
        }
        assert_eq!(line.boots.len(), BOOTS_MAX);
        assert_eq!(
            placed(&line, "a", 100),
            placed(&line, "0", 1),
            "before what is known"
        );
    }
}
