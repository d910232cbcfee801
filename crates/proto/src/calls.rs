//! The unary calls of the services, as types: everything that a caller has to know about a call without knowing which
//! one it is.
//!
//! There is one table of calls: the `service` declarations in `tikvpb.proto` and `pdpb.proto`. The build script turns
//! each into a macro, [`for_each_kv_call!`](crate::for_each_kv_call) and
//! [`for_each_placement_call!`](crate::for_each_placement_call), that passes a line per call to the macro it is given:
//!
//! | column | example | meaning |
//! |---|---|---|
//! | call | `KvGet` | the type in this module |
//! | function | `kv_get` | the function of tonic's traits, and the label of metrics |
//! | handler | `get` | the function of the server's `Kv` or `Pd` |
//! | request, reply | `GetRequest`, `GetResponse` | messages |
//! | path | `"/tikvpb.Tikv/KvGet"` | gRPC's path |
//! | effect | `NoSideEffects` | see [`Effect`] |
//! | errors | `text`, `key`, `keys`, `pairs kvs`, `none` | where the reply holds an error: a text, an error about a key, a list of those, or in a pair of that field |

use crate::{errorpb, kvrpcpb, pdpb};
use prost::Message;

/// What a call may change, and therefore what follows if its answer is lost. In the declaration of a service this is
/// the standard option `idempotency_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It reads: it can be repeated.
    NoSideEffects,
    /// It can be repeated: the repetition finds what the first one did.
    Idempotent,
    /// The option is absent. A repetition could undo a write that came in between: it must not be repeated unless the
    /// caller permits it.
    IdempotencyUnknown,
}

/// A unary call.
pub trait Call: Send + Sync + 'static {
    /// Its request.
    type Request: Message + Default + Clone + 'static;
    /// Its reply.
    type Reply: Message + Default + 'static;
    /// gRPC's path.
    const PATH: &'static str;
    /// What it may change.
    const EFFECT: Effect;
}

/// A call of the key-value service.
pub trait KvCall: Call {
    /// The region, peer and epoch that the request is for.
    fn context(request: &mut Self::Request) -> &mut kvrpcpb::Context;
    /// Takes the region error out of a reply.
    fn take_region_error(reply: &mut Self::Reply) -> Option<errorpb::Error>;
}

/// A call of the placement service.
pub trait PlacementCall: Call {
    /// The header of a reply, which holds its error.
    fn header(reply: &Self::Reply) -> Option<&pdpb::ResponseHeader>;
}

macro_rules! call {
    ($package:ident, $call:ident, $request:ident, $reply:ident, $path:literal, $effect:ident) => {
        #[doc = concat!("`", $path, "`.")]
        pub struct $call;

        impl Call for $call {
            type Request = $package::$request;
            type Reply = $package::$reply;
            const PATH: &'static str = $path;
            const EFFECT: Effect = Effect::$effect;
        }
    };
}

macro_rules! kv_calls {
    ($($call:ident, $function:ident, $handler:ident, $request:ident, $reply:ident, $path:literal, $effect:ident,
       $($errors:ident)+;)+) => {$(
        call!(kvrpcpb, $call, $request, $reply, $path, $effect);

        impl KvCall for $call {
            fn context(request: &mut kvrpcpb::$request) -> &mut kvrpcpb::Context {
                request.context.get_or_insert_default()
            }

            fn take_region_error(reply: &mut kvrpcpb::$reply) -> Option<errorpb::Error> {
                reply.region_error.take()
            }
        }
    )+};
}

macro_rules! placement_calls {
    ($($call:ident, $function:ident, $handler:ident, $request:ident, $reply:ident, $path:literal, $effect:ident,
       $($errors:ident)+;)+) => {$(
        call!(pdpb, $call, $request, $reply, $path, $effect);

        impl PlacementCall for $call {
            fn header(reply: &pdpb::$reply) -> Option<&pdpb::ResponseHeader> {
                reply.header.as_ref()
            }
        }
    )+};
}

for_each_kv_call!(kv_calls);
for_each_placement_call!(placement_calls);

#[cfg(test)]
#[path = "calls_test.rs"]
mod tests;
