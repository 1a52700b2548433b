//! Version 2 on the same share: the flat JSON of a peer that still runs the original kit (protocol section 9).
//!
//! Its signature covers six members joined by `|`, as hexadecimal HMAC-SHA256 under the stripped *text* of the key file.
//! Whatever it leaves open (`require_ack`, `require_dangerous`, `timeout_s`, `max_output_bytes`) anybody who can write the
//! share may change, so the receiver's own values bound it: a file can only make them stricter. A task that passes is a
//! [`Verified`](crate::protocol::seal::Verified) task like any other, its digest that of the signed bytes.
//!
//! A key of version 2 is a type of its own: nothing that opens a sealed message takes one.

mod accept;
mod key;
mod result;
mod task;
mod time;

pub use accept::{Bounds, accept_flat, is_flat, read_stored};
pub use key::{FlatKey, FlatRing};
pub use result::{FlatResult, write_result};
pub use task::{FlatTask, cannot_carry, signed_bytes, write_task};
