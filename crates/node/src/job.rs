//! The job directory `jobs/<from>/<id>/<epoch>/`: what a watcher and the executor of one attempt tell each other, through
//! files on the node's own disk (architecture, "What a node keeps for itself" and "Life and death of an attempt").
//!
//! Every lease has a directory of its own and none is reused. The files are strict JSON with `schema: 1`; a reader takes
//! every older format. What decides is read under the lock: an outcome, else `started.json`, else nothing.

mod dir;
pub mod door;
mod files;
mod lock;
mod meter;
mod store;
mod text;
mod variable;

pub use dir::{JobDir, JobListing, Presence};
pub use files::{
    AgentKind, AgentSeen, Containment, Cost, CostBasis, KillswitchPlaces, Mechanism, Order, Outcome,
    OutcomeStatus, Progress, Reason, Started, Stop, StopWhy, Usage,
};
pub use lock::{Holder, JobLock, LOCK_WAIT_MS_MAX, Locked};
pub use meter::{Metered, Metering, ModelPrice, NearCeiling};
pub use store::JobError;
pub use variable::passed_on;
