//! The local door: how a person changes what the watcher owns (architecture, "The local door").
//!
//! A request is a file published into a directory of mode 0700. The watcher claims it by renaming it (so that the asker
//! can no longer take it back), applies it once (its uuid is stored in the transaction that applies it), and leaves a
//! reply. Whoever is told "no watcher answered" has taken the request back: it will not be applied later.

mod ask;
mod serve;
mod words;

pub use ask::{AskError, ask};
pub use serve::{Claimed, Door, Unreadable};
pub use words::{Answer, DoorError, REQUEST_TTL_MS, Request, Verb};
