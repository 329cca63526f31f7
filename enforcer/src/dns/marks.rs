//! The marks of agents' questions for names: which of a mark's bits are used, and what stands in them. A firewall, a router or a network plugin of
//! this host may take others for its own.

/// The bits that are used where the configuration names none: all but the two that kube-proxy's rules drop or rewrite packets by (0x8000 and
/// 0x4000).
pub const MASK_DEFAULT: u32 = 0xffff_3fff;
/// How many bits must be left to be guessed, of those that are used: one wrong guess in so many powers of two is taken for an agent's. Only who may
/// make frames by hand can guess, and wrong guesses are on record.
pub const SECRET_BITS_MIN: u32 = 8;

/// What marks each agent's questions, from one start to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    mask: u32,
    /// What an agent's number is added to.
    base: u32,
    count: u32,
}

impl Marks {
    /// Marks within `mask` for `agents` agents and the daemon's own probe, which cannot be told without `random`.
    ///
    /// # Errors
    /// When the mask has too few bits.
    pub fn new(mask: u32, agents: usize, random: u64) -> Result<Self, String> {
        let count = u32::try_from(agents).map_err(|error| error.to_string())?;
        let count = count.saturating_add(1);
        let needed = u32::BITS - count.leading_zeros();
        let there = mask.count_ones();
        if there < needed + SECRET_BITS_MIN {
            return Err(format!(
                "`names.mark_mask` {mask:#010x} has {there} bits, and {} are needed for {agents} agents: leave more bits of a packet's mark to the enforcer",
                needed + SECRET_BITS_MIN
            ));
        }
        // No mark is zero, and none is smaller than one that was added to.
        let room = (1_u64 << there) - u64::from(count);
        let base = u32::try_from(random % room).map_err(|error| error.to_string())?;
        Ok(Self { mask, base, count })
    }

    /// How many bits of a mark must be guessed to speak for some agent.
    #[must_use]
    pub const fn secret_bits(&self) -> u32 {
        self.mask.count_ones() - (u32::BITS - self.count.leading_zeros())
    }

    /// The mark of the agent with this number, from one; zero for others than there are.
    #[must_use]
    pub fn of(&self, number: u32) -> u32 {
        if number == 0 || number > self.count {
            return 0;
        }
        let mut rest = self.base + number;
        let mut mark = 0;
        for bit in (0..u32::BITS).map(|bit| 1 << bit) {
            if self.mask & bit != 0 {
                mark |= if rest & 1 == 1 { bit } else { 0 };
                rest >>= 1;
            }
        }
        mark
    }

    /// Whose mark this is; bits that are not ours may be anybody's.
    #[must_use]
    pub fn number(&self, mark: u32) -> Option<u32> {
        let mut read = 0;
        let ours = (0..u32::BITS).map(|bit| 1 << bit);
        let ours = ours.filter(|bit| self.mask & bit != 0);
        for (place, bit) in ours.enumerate() {
            read |= u32::from(mark & bit != 0) << place;
        }
        let number = read.checked_sub(self.base)?;
        (number != 0 && number <= self.count).then_some(number)
    }

    /// The number of the daemon's own probe: behind the last agent's.
    #[must_use]
    pub const fn probe(&self) -> u32 {
        self.count
    }
}

impl std::fmt::Display for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "agents' questions for names are marked within {:#010x}, with {} bits that nobody else knows",
            self.mask,
            self.secret_bits()
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_has_a_mark_within_the_mask_and_nobody_elses(mask: u32, agents in 0_usize..300, random: u64, other: u32) {
            let Ok(marks) = Marks::new(mask, agents, random) else {
                prop_assert!(mask.count_ones() < 9 + SECRET_BITS_MIN);
                return Ok(());
            };
            for number in 1..=marks.probe() {
                let mark = marks.of(number);
                prop_assert!(mark != 0 && mark & !mask == 0);
                prop_assert_eq!(marks.number(mark), Some(number));
                // What others have set stays theirs.
                prop_assert_eq!(marks.number(mark | (other & !mask)), Some(number));
            }
            prop_assert_eq!(marks.of(0), 0);
            prop_assert_eq!(marks.of(marks.probe() + 1), 0);
        }
    }

    #[test]
    fn the_bits_that_kube_proxy_drops_or_rewrites_by_are_never_set() {
        for random in 0..1000 {
            let marks = Marks::new(
                MASK_DEFAULT,
                100,
                u64::wrapping_mul(random, 0x9e37_79b9_7f4a_7c15),
            )
            .expect("room");
            assert_eq!(marks.of(7) & 0xc000, 0);
            assert_eq!(marks.secret_bits(), 23);
        }
    }

    #[test]
    fn a_mask_with_too_few_bits_is_refused() {
        assert!(Marks::new(0x1ff, 1, 9).is_err());
        assert!(Marks::new(0x3ff, 1, 9).is_ok());
        assert!(Marks::new(0, 0, 0).is_err());
        assert!(Marks::new(u32::MAX, 16_384, u64::MAX).is_ok());
    }
}
