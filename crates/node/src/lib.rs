//! Wiring that the commands share: configuration, key files, the state directory, clocks, the local door, reports.
//!
//! No rule of Dispatch lives here: rules are in `dispatch-core`. What lives here is reading what people wrote on this
//! node ([`config`]), where the node keeps things ([`state`], [`files`], [`job`]), and how a command speaks to a
//! person ([`report`], [`term`], [`args`]).
#![forbid(unsafe_code)]

pub mod agents;
pub mod args;
pub mod clock;
pub mod config;
pub mod desk;
pub mod developer;
pub mod document;
pub mod door;
pub mod durations;
mod explain;
pub mod files;
pub mod ids;
pub mod job;
pub mod keys;
pub mod notify_systemd;
pub mod outgoing;
pub mod peers_json;
pub mod progress;
pub mod report;
pub mod standing;
pub mod state;
pub mod term;
pub mod terminal;
pub mod tree;
pub mod waiting;
