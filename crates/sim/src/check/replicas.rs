//! Replicas are equal: iterates over two views and compares every byte.

use bytes::Bytes;
use kontiki_engine::{Direction, Entries, Family, Range, Result, View};
use std::fmt;

/// The first place where two replicas differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The family.
    pub family: Family,
    /// The key.
    pub key: Bytes,
    /// Its value on the left, if it exists.
    pub left: Option<Bytes>,
    /// Its value on the right, if it exists.
    pub right: Option<Bytes>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<Bytes>| match value {
            Some(bytes) => format!("\"{}\"", bytes.escape_ascii()),
            None => "nothing".to_owned(),
        };
        let (left, right) = (value(&self.left), value(&self.right));
        write!(f, "{:?}, key \"{}\": {left} on one, {right} on the other", self.family, self.key.escape_ascii())
    }
}

/// Compares `range` of `families`. `Ok(Ok(n))`: n equal entries; `Ok(Err(_))`: the first difference; `Err`: a view
/// could not be read.
pub fn compare(
    left: &dyn View,
    right: &dyn View,
    families: &[Family],
    range: &Range,
) -> Result<std::result::Result<u64, Difference>> {
    let mut equal = 0;
    for &family in families {
        let mut lefts = left.entries(family, range.clone(), Direction::Forward)?;
        let mut rights = right.entries(family, range.clone(), Direction::Forward)?;
        match compare_entries(family, &mut *lefts, &mut *rights)? {
            Ok(count) => equal += count,
            Err(difference) => return Ok(Err(difference)),
        }
    }
    Ok(Ok(equal))
}

fn compare_entries(
    family: Family,
    lefts: &mut dyn Entries,
    rights: &mut dyn Entries,
) -> Result<std::result::Result<u64, Difference>> {
    let mut equal = 0;
    loop {
        let (left, right) = (lefts.next().transpose()?, rights.next().transpose()?);
        if left == right {
            if left.is_none() {
                return Ok(Ok(equal));
            }
            equal += 1;
            continue;
        }
        let key = [&left, &right].into_iter().flatten().map(|(key, _)| key).min().cloned();
        let key = key.expect("two unequal options are not both empty");
        let value = |entry: Option<(Bytes, Bytes)>| entry.filter(|(own, _)| *own == key).map(|(_, value)| value);
        let (left, right) = (value(left), value(right));
        return Ok(Err(Difference { family, key, left, right }));
    }
}

#[cfg(test)]
#[path = "replicas_test.rs"]
mod tests;
