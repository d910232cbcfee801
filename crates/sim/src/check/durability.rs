//! Durability: each acknowledged write, or a later one, is in the final state.
//!
//! It is weaker than checking a history with final gets appended (which is also done), but it names what is lost.

use super::Violation;
use crate::history::{History, Outcome, Record};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Compares the state after healing with the history. Keys that `state` lacks are absent. Returns one violation per
/// broken key.
pub fn check(history: &History, state: &BTreeMap<Bytes, Bytes>) -> Vec<Violation> {
    let mut keys = history.by_key();
    for key in state.keys() {
        keys.entry(key.clone()).or_default();
    }
    keys.iter().filter_map(|(key, records)| check_key(key, records, state.get(key)).err()).collect()
}

fn check_key(key: &Bytes, records: &[Record], found: Option<&Bytes>) -> Result<(), Violation> {
    let shown = crate::history::Shown(Some(key));
    let acknowledged = |record: &&Record| matches!(record.outcome, Outcome::Ok(_)) && record.written().is_some();
    let last_begun = records.iter().filter(acknowledged).max_by_key(|record| record.invoked);
    let candidates: Vec<&Record> = records.iter().filter(|record| record.written() == Some(found)).collect();
    let Some(last_begun) = last_begun else {
        // Nothing was acknowledged: the key is absent, or one of the others took effect.
        if found.is_some() && candidates.is_empty() {
            return Err(Violation::new(format!("{shown} holds a value that no operation wrote"), records));
        }
        return Ok(());
    };
    if candidates.is_empty() {
        let what = format!("{shown} holds {}, which no operation wrote", crate::history::Shown(found));
        return Err(Violation::new(what, [last_begun]));
    }
    // A write has certainly overwritten the found one only if it began after that one had ended.
    if candidates.iter().all(|candidate| candidate.effective_by() < last_begun.invoked) {
        let what = format!("{shown}: an acknowledged write is lost");
        return Err(Violation::new(what, candidates.into_iter().chain([last_begun])));
    }
    Ok(())
}

#[cfg(test)]
#[path = "durability_test.rs"]
mod tests;
