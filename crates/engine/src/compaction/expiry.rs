//! When half of a table will have expired, from a sample of bounded size.

/// How many expiry times are kept: the median of so many is within a few hundredths of the true rank, and the planner
/// needs no more than "about half".
const SAMPLE_MAX: usize = 128;

/// Takes the expiry time of every version of a table. Keeps every n-th, and doubles n when the sample is full: the
/// order is that of keys, which is independent of expiry.
#[derive(Debug)]
pub(crate) struct ExpirySample {
    /// `u64::MAX` for versions that never expire.
    times: Vec<u64>,
    stride: u64,
    seen: u64,
    first: u64,
}

impl Default for ExpirySample {
    fn default() -> ExpirySample {
        ExpirySample { times: Vec::new(), stride: 1, seen: 0, first: u64::MAX }
    }
}

impl ExpirySample {
    /// Takes the next version's expiry time.
    pub(crate) fn note(&mut self, expires_at_ms: Option<u64>) {
        if self.seen.is_multiple_of(self.stride) {
            if self.times.len() == SAMPLE_MAX {
                let mut at = 0;
                self.times.retain(|_| {
                    at += 1;
                    at % 2 == 1
                });
                self.stride *= 2;
            }
            if self.seen.is_multiple_of(self.stride) {
                self.times.push(expires_at_ms.unwrap_or(u64::MAX));
            }
        }
        self.seen += 1;
        self.first = self.first.min(expires_at_ms.unwrap_or(u64::MAX));
    }

    /// The wall clock when the first version expires; `u64::MAX` if none does.
    pub(crate) fn first_expires_at_ms(&self) -> u64 {
        self.first
    }

    /// The wall clock when half of the versions will have expired; `u64::MAX` if so many never will.
    pub(crate) fn half_expired_at_ms(mut self) -> u64 {
        self.times.sort_unstable();
        self.times.get(self.times.len().saturating_sub(1) / 2).copied().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
#[path = "expiry_test.rs"]
mod tests;
