//! The messages that two nodes exchange over the share: names, sealing, payloads and the order of acceptance checks.

pub mod names;
pub mod time;
