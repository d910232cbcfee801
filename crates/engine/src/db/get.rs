//! Reads of the newest state. Not generic, unlike the methods of [`Db`](super::Db): those are compiled in the crate
//! that calls them, where little of this would be inlined, and each type of key would have its own copy.

use super::Core;
use crate::read::ReadState;
use crate::{Family, Result};
use bytes::Bytes;

impl Core {
    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        self.shared().health.check_open()?;
        self.write.memtables.read(|state, sequence| state.get(family, key, sequence))
    }

    pub(super) fn contains(&self, family: Family, key: &[u8]) -> Result<bool> {
        self.shared().health.check_open()?;
        self.write.memtables.read(|state, sequence| state.contains(family, key, sequence, state.clock.wall_ms()))
    }

    pub(super) fn multi_get(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.shared().health.check_open()?;
        let recorder = &self.shared().recorder;
        let started = recorder.start_sampled();
        let read = |state: &ReadState, sequence| state.multi_get_at(family, keys, sequence, state.clock.wall_ms());
        let values = self.write.memtables.read(read)?;
        recorder.end(&recorder.multi_get, started);
        Ok(values)
    }
}
