//! Two-node scenarios over the real binaries: a share, a home per node, scripted agents and what must be true
//! afterwards.
//!
//! A test makes a [`Cluster`], starts a [`Watcher`] per node that should live, sends requests (which
//! are shell scripts for the `command` agent) and waits with [`eventually`] for facts. Nothing here waits for a fixed
//! time. Everything that was started ends with the cluster.
#![forbid(unsafe_code)]

pub mod bins;
pub mod books;
pub mod check;
pub mod cluster;
pub mod kit;
pub mod mail;
pub mod mix;
pub mod plant;
pub mod points;
pub mod process;
pub mod runs;
pub mod trace;
pub mod wait;
pub mod wall;

pub use bins::Bins;
pub use cluster::{Cluster, Node, Watcher};
pub use kit::Kit;
pub use process::Ended;
pub use runs::Runs;
pub use wait::{DEADLINE, eventually};
pub use wall::Wall;
