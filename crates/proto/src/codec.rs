//! Encoding and decoding of messages; large messages do not block the other tasks of the thread.
//!
//! gRPC encodes an answer on the thread that serves its connection, which also serves other connections. An answer of
//! 600,000 keys takes a tenth of a second, several times that on a busy machine: a leader whose heartbeats wait behind
//! a few such answers loses its leadership. Therefore a thread can register how its other tasks make progress meanwhile
//! ([`run_large_by`]); `tokio::task::block_in_place` does so by moving them to another thread.

use bytes::Buf;
use prost::Message;
use std::cell::Cell;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// A message of at least this size is large. A smaller one takes less than a millisecond; moving the other tasks takes
/// some microseconds.
const LARGE_BYTES: usize = 128 << 10;

/// Calls its argument once, while the thread's other tasks make progress.
pub type RunBlocking = fn(&mut dyn FnMut());

thread_local! {
    static RUN_BLOCKING: Cell<Option<RunBlocking>> = const { Cell::new(None) };
}

/// From now on, the calling thread encodes and decodes large messages through `run`.
pub fn run_large_by(run: RunBlocking) {
    RUN_BLOCKING.set(Some(run));
}

fn run_if_large<R>(is_large: bool, work: impl FnOnce() -> R) -> R {
    let Some(run) = RUN_BLOCKING.get().filter(|_| is_large) else { return work() };
    let (mut work, mut result) = (Some(work), None);
    run(&mut || result = work.take().map(|work| work()));
    result.expect("a `RunBlocking` calls its argument")
}

/// The codec of all generated services.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Codec(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> MessageEncoder<T> {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> MessageDecoder<U> {
        MessageDecoder(PhantomData)
    }
}

/// See [`Codec`].
pub struct MessageEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let length = item.encoded_len();
        // The item is dropped there, too: dropping takes as long.
        let encoded = run_if_large(length >= LARGE_BYTES, move || item.encode(buffer));
        encoded.map_err(|error| Status::internal(format!("an answer of {length} bytes: {error}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// See [`Codec`].
pub struct MessageDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let decoded = run_if_large(buffer.remaining() >= LARGE_BYTES, || U::decode(buffer));
        decoded.map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

#[cfg(test)]
#[path = "codec_test.rs"]
mod tests;
