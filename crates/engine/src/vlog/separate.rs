//! The separation of large values: they move from a batch to the value log, and pointers replace them.

use super::appender::{Appender, Reserved, ValuePin};
use super::format::{encode_record, record_stride};
use crate::lock::{Mutex, Rank};
use crate::types::{BatchEntry, Content, Decoded, EXPIRY_BYTES, FamilyMap, Kind, ValuePointer};
use crate::{Family, FamilyOptions, FamilySpec, Result, WriteBatch};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes encoded before a write call: enough that the cost of a call is negligible.
const WRITE_BYTES: usize = 1 << 20;
/// Buffers kept for the next batches; more writers than that at once allocate.
const BUFFERS_MAX: usize = 8;

/// From which size on values move to the value log, by family.
#[derive(Clone, Debug, Default)]
pub(crate) struct ValueThresholds {
    /// Those that differ from the default.
    by_family: FamilyMap<Option<usize>>,
    default: Option<usize>,
    /// No value below is moved in any family.
    smallest: usize,
}

fn threshold(options: &FamilyOptions) -> Option<usize> {
    match options.value_threshold_bytes {
        0 => None,
        bytes => Some(usize::try_from(bytes).unwrap_or(usize::MAX)),
    }
}

impl ValueThresholds {
    /// Those of the options; families that are not named have the default.
    pub(crate) fn new(families: &[FamilySpec]) -> ValueThresholds {
        let default = threshold(&FamilyOptions::default());
        let none = ValueThresholds { default, smallest: default.unwrap_or(usize::MAX), ..ValueThresholds::default() };
        families.iter().fold(none, |all, spec| all.with(spec.family, Some(&spec.options)))
    }

    /// The same after a change of a family's options; `None`: it has none any more.
    pub(crate) fn with(&self, family: Family, options: Option<&FamilyOptions>) -> ValueThresholds {
        let mut next = self.clone();
        let threshold = options.map_or(self.default, threshold);
        if threshold == self.default {
            next.by_family.remove(family);
        } else {
            next.by_family.insert(family, threshold);
        }
        // That of a dropped family stays, and is lower than necessary: that costs an occasional check of a value.
        next.smallest = self.smallest.min(threshold.unwrap_or(usize::MAX));
        next
    }

    /// Every value stays in the table.
    #[cfg(test)]
    pub(crate) fn off() -> ValueThresholds {
        ValueThresholds { smallest: usize::MAX, ..ValueThresholds::default() }
    }

    /// Whether a value is moved.
    fn applies(&self, family: Family, value_bytes: usize) -> bool {
        let threshold = self.by_family.get(family).copied().unwrap_or(self.default);
        threshold.is_some_and(|threshold| value_bytes >= threshold)
    }

    /// The value of a version, if it is to be moved.
    pub(crate) fn large<'a>(&self, family: Family, kind: Kind, stored: &'a [u8]) -> Option<Large<'a>> {
        if stored.len() < self.smallest || kind.is_pointer() {
            return None;
        }
        let Ok(Decoded { expires_at_ms, content: Content::Value(value) }) = Decoded::new(kind, stored) else {
            return None;
        };
        self.applies(family, value.len()).then_some(Large { expires_at_ms, value })
    }
}

/// A value that is to be moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Large<'a> {
    expires_at_ms: Option<u64>,
    pub(crate) value: &'a [u8],
}

impl Large<'_> {
    /// The stored bytes that replace it, once the value is written.
    pub(crate) fn replaced_by(&self, pointer: ValuePointer) -> (Kind, Vec<u8>) {
        assert_eq!(pointer.length as usize, self.value.len(), "the pointer is to this value");
        let mut stored = Vec::with_capacity(EXPIRY_BYTES + crate::types::VALUE_POINTER_BYTES);
        if let Some(expires_at_ms) = self.expires_at_ms {
            stored.extend_from_slice(&expires_at_ms.to_le_bytes());
        }
        pointer.encode(&mut stored);
        (if self.expires_at_ms.is_some() { Kind::PointerExpiring } else { Kind::Pointer }, stored)
    }
}

/// Moves the large values of batches.
pub(crate) struct ValueSeparator {
    /// Changes when families are created or dropped.
    thresholds: ArcSwap<ValueThresholds>,
    /// As the thresholds have it, for the many batches that are below all of them.
    smallest: AtomicUsize,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl ValueSeparator {
    pub(crate) fn new(thresholds: ValueThresholds) -> ValueSeparator {
        let smallest = AtomicUsize::new(thresholds.smallest);
        ValueSeparator {
            thresholds: ArcSwap::from_pointee(thresholds),
            smallest,
            buffers: Mutex::new(Rank::ValueBuffers, Vec::new()),
        }
    }

    pub(crate) fn thresholds(&self) -> Arc<ValueThresholds> {
        self.thresholds.load_full()
    }

    /// From now on these count.
    pub(crate) fn set_thresholds(&self, thresholds: ValueThresholds) {
        self.smallest.store(thresholds.smallest, Ordering::Relaxed);
        self.thresholds.store(Arc::new(thresholds));
    }

    /// Writes the batch's large values and returns the batch that replaces it, with the pin to be kept until
    /// that is in a memtable. Without large values the batch is returned unchanged. `create_segment` makes a segment
    /// with space for so many bytes.
    pub(crate) fn separate(
        &self,
        appender: &Appender,
        batch: WriteBatch,
        create_segment: impl Fn(u64) -> Result<()>,
    ) -> Result<(WriteBatch, Option<ValuePin>)> {
        if batch.as_bytes().len() < self.smallest.load(Ordering::Relaxed) {
            return Ok((batch, None));
        }
        // One set for the whole batch: what was counted is what is written.
        let thresholds = self.thresholds();
        let large = |entry| match entry {
            BatchEntry::Version { family, key, kind, stored } => {
                thresholds.large(family, kind, stored).map_or(0, |it| record_stride(key.len(), it.value.len()))
            }
            BatchEntry::DeleteRange { .. } => 0,
        };
        let bytes: u64 = batch.entries().map(large).sum();
        if bytes == 0 {
            return Ok((batch, None));
        }
        let reserved = loop {
            match appender.reserve(bytes)? {
                Some(reserved) => break reserved,
                None => create_segment(bytes)?,
            }
        };
        let mut buffer = self.buffers.lock().pop().unwrap_or_default();
        let written = self.write(&thresholds, appender, &batch, &reserved, &mut buffer);
        buffer.clear();
        if buffer.capacity() <= 2 * WRITE_BYTES {
            let mut buffers = self.buffers.lock();
            if buffers.len() < BUFFERS_MAX {
                buffers.push(buffer);
            }
        }
        Ok((written?, Some(reserved.pin)))
    }

    fn write(
        &self,
        thresholds: &ValueThresholds,
        appender: &Appender,
        batch: &WriteBatch,
        reserved: &Reserved,
        buffer: &mut Vec<u8>,
    ) -> Result<WriteBatch> {
        let segment = reserved.segment();
        let mut out = WriteBatch::new();
        let mut start = reserved.offset;
        for entry in batch.entries() {
            let (family, key, kind, stored) = match entry {
                BatchEntry::Version { family, key, kind, stored } => (family, key, kind, stored),
                BatchEntry::DeleteRange { family, start, end } => {
                    out.delete_range(family, start..end);
                    continue;
                }
            };
            let Some(large) = thresholds.large(family, kind, stored) else {
                if kind.is_delete() {
                    out.delete(family, key)
                } else {
                    out.put_stored(family, key, kind, stored)
                }
                continue;
            };
            let offset = start + buffer.len() as u64;
            encode_record(buffer, segment, offset, family, key, large.value);
            let length = u32::try_from(large.value.len()).expect("batches are validated");
            let (kind, stored) = large.replaced_by(ValuePointer { segment, offset, length });
            out.put_stored(family, key, kind, &stored);
            if buffer.len() >= WRITE_BYTES {
                appender.write(reserved, buffer, start)?;
                start += buffer.len() as u64;
                buffer.clear();
            }
        }
        if !buffer.is_empty() {
            appender.write(reserved, buffer, start)?;
        }
        assert_eq!(start + buffer.len() as u64, reserved.offset + reserved.bytes, "the range is filled");
        assert_eq!(out.len(), batch.len(), "every operation has its counterpart");
        Ok(out)
    }
}

#[cfg(test)]
#[path = "separate_test.rs"]
mod tests;
