//! Prefetches the values of the next entries of a scan from main memory into the processor's caches.
//!
//! Values lie where they were written, so their addresses are practically random, and a lookup waits for memory several
//! times in a row. The pointers of the next entries are in the scan's current block. So while it is at one
//! entry the lookup of the third behind it has its last step done, that of the sixth the one before, and so on: the
//! waits overlap.

use super::MergingCursor;
use super::value::decode;
use crate::types::{Content, Cursor};
use crate::version::ValueSegments;
use crate::vlog::Step;

/// The steps of a lookup, and how many entries ahead each is done.
const STEPS: [(Step, usize); 3] = [(Step::Bucket, 9), (Step::Entry, 6), (Step::Value, 3)];

/// How far ahead each step is done already.
#[derive(Default)]
pub(super) struct FetchAhead {
    done: [usize; STEPS.len()],
}

impl FetchAhead {
    /// The scan moves to its next entry.
    #[inline]
    pub(super) fn step(&mut self) {
        for done in &mut self.done {
            *done = done.saturating_sub(1);
        }
    }

    /// Executes the steps that are due. A hint: the entries behind those of another source, or older versions, are no
    /// use, and harmless.
    #[inline]
    pub(super) fn fetch(&mut self, merge: &MergingCursor, values: &ValueSegments) {
        let Some(top) = merge.top() else { return };
        for (done, (step, entries)) in self.done.iter_mut().zip(STEPS) {
            while *done < entries {
                let Some((kind, stored)) = top.peek(*done + 1) else { break };
                if kind.is_pointer()
                    && let Ok(decoded) = decode(kind, stored)
                    && let Content::Pointer(pointer) = decoded.content
                {
                    values.fetch_ahead(pointer, step);
                }
                *done += 1;
            }
        }
    }
}
