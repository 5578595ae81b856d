//! The chances of a simulation. Every role draws from a sequence of its own, so that one role's draws do not shift
//! another's: a schedule stays the same when a reader asks once more.

use std::ops::RangeInclusive;
use std::time::Duration;

use meta::seams::Random;

#[derive(Debug, Clone)]
pub struct Dice(Random);

impl Dice {
    /// The sequence of one role in one seed.
    pub fn new(seed: u64, role: &str) -> Self {
        let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in role.bytes() {
            mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self(Random::from_seed(mixed))
    }

    pub fn random(&self) -> Random {
        self.0.clone()
    }

    /// Uniform in [0, n). `n` must not be 0.
    pub fn below(&self, n: u64) -> u64 {
        self.0.next_u64() % n
    }

    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn ms(&self, range: RangeInclusive<u64>) -> Duration {
        let (least, most) = range.into_inner();
        Duration::from_millis(least + self.below(most - least + 1))
    }

    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
