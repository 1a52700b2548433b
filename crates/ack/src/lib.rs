//! `dispatch-ack`: a person looks at what waits for a decision, and makes one.
//!
//! What is shown was verified here, from the sealed task and its sealed terms; the plain summary on the share is for
//! dashboards and is not read. The ledger is the watcher's: a decision is a sealed file that the watcher takes. The
//! private key stays with `ssh-keygen`.
#![forbid(unsafe_code)]

mod args;
mod ask;
mod decide;
mod desk;
mod earlier;
mod error;
mod find;
mod key;
mod list;
mod publish;
mod sign;
mod standing;
mod taken;
mod view;
mod waiting;
mod which;

pub use args::{command, main};
