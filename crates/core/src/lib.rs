//! The pure middle of Dispatch: formats of the messages, rules, and the planner.
//!
//! Nothing here has a clock, a disk, an environment, randomness or a process: what a function needs is passed in,
//! and what it decides is returned as a value. `spool` and `ledger` do the reading and the keeping, the commands do the rest.
#![forbid(unsafe_code)]

pub mod explain;
pub mod planner;
pub mod policy;
pub mod protocol;

/// The protocol and the policy as chapters, for those who use them and those who implement them.
pub mod docs {
    #[doc = include_str!("../docs/policy.md")]
    pub mod policy {}

    #[doc = include_str!("../docs/protocol.md")]
    pub mod protocol {}
}
