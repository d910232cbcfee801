//! Which key comes next.

use crate::data::scatter;

/// A counter through SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(scatter(seed))
    }

    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        scatter(self.0)
    }

    /// Below `count`.
    #[inline]
    pub fn below(&mut self, count: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(count)) >> 64) as u64
    }

    /// From 0 to 1.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// YCSB's zipfian distribution (theta 0.99), after Gray and others, "Quickly generating billion-record synthetic
/// databases" (1994).
#[derive(Clone)]
pub struct Zipf {
    count: u64,
    alpha: f64,
    eta: f64,
    zeta: f64,
    second: f64,
}

const THETA: f64 = 0.99;

impl Zipf {
    pub fn new(count: u64) -> Zipf {
        let zeta: f64 = (1..=count).map(|rank| (rank as f64).powf(-THETA)).sum();
        let two = 1.0 + 0.5f64.powf(THETA);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - two / zeta);
        Zipf { count, alpha: 1.0 / (1.0 - THETA), eta, zeta, second: two }
    }

    /// A rank: 0 is the most frequent.
    pub fn rank(&self, random: &mut Random) -> u64 {
        let part = random.part();
        let scaled = part * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < self.second {
            return 1;
        }
        let rank = self.count as f64 * (self.eta * part - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.count - 1)
    }

    /// An index: ranks scattered over all of them.
    pub fn index(&self, random: &mut Random) -> u64 {
        scatter(self.rank(random)) % self.count
    }
}

#[cfg(test)]
#[path = "random_test.rs"]
mod tests;
