//! Chance that is the same each time (xorshift), for tests that make up what they send.

/// Where a test's chance stands.
pub(crate) struct Chance(u64);

impl Chance {
    /// Begins with a seed; a variable of the environment of this name says otherwise, for another search.
    pub(crate) fn new(variable: &str, seed: u64) -> Self {
        Self(number(variable, seed).max(1))
    }

    pub(crate) fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most as u64).expect("below a usize")
    }

    pub(crate) fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// A number that a variable of the environment says otherwise.
pub(crate) fn number(variable: &str, or: u64) -> u64 {
    let value = std::env::var(variable);
    value.map_or(or, |value| value.parse().expect("a number"))
}
