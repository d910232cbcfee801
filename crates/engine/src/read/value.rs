//! From the stored bytes of a version to the value that a user sees.

use crate::types::{Content, Decoded, Kind, inline_value};
use crate::version::ValueSegments;
use crate::{Error, Result};
use bytes::Bytes;

/// The value that a version gives its key at a time; `None` if it is deleted or has expired. The time is read only
/// if it matters. Pointers are followed through `values`, which must be of a version that holds the version of the key:
/// an older version of a key may point to a deleted value, so only the newest is followed.
pub(crate) fn live_value(
    kind: Kind,
    stored: Bytes,
    now_ms: impl FnOnce() -> u64,
    values: &ValueSegments,
) -> Result<Option<Bytes>> {
    if kind == Kind::Put {
        return Ok(Some(stored));
    }
    let decoded = decode(kind, &stored)?;
    if decoded.expires_at_ms.is_some() && decoded.expired(now_ms()) {
        return Ok(None);
    }
    match decoded.content {
        Content::Deleted => Ok(None),
        Content::Value(_) => Ok(inline_value(kind, stored)),
        Content::Pointer(pointer) => values.read(pointer).map(Some),
    }
}

/// Whether such a version is a value that is there at `now_ms`; as [`live_value`], without reading the value.
pub(super) fn is_live(kind: Kind, stored: &[u8], now_ms: u64) -> Result<bool> {
    let decoded = decode(kind, stored)?;
    Ok(!matches!(decoded.content, Content::Deleted) && !decoded.expired(now_ms))
}

/// Promotes the value of a frequently read key in the cache of values, if it is there.
pub(super) fn promote_value(kind: Kind, stored: &[u8], values: &ValueSegments) {
    if let Ok(Decoded { content: Content::Pointer(pointer), .. }) = decode(kind, stored) {
        values.promote(pointer);
    }
}

/// As [`Decoded::new`], of bytes that were checked when they were read.
pub(super) fn decode(kind: Kind, stored: &[u8]) -> Result<Decoded<'_>> {
    let malformed = |_| Error::Bug(format!("stored bytes of a {kind:?} are malformed behind a checksum"));
    Decoded::new(kind, stored).map_err(malformed)
}
