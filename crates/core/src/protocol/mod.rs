//! The messages that two nodes exchange over the share: names, sealing, payloads and the order of acceptance checks.
//!
//! All but [`v2`] is version 3. A flat JSON file of version 2 from a version-3 peer is refused (`unsupported_schema`).

pub mod accept;
pub mod approvers;
pub mod believe;
pub mod boot;
pub mod control;
pub mod decision;
pub mod fraction;
pub mod heartbeat;
pub mod json;
pub mod keys;
pub mod limits;
pub mod members;
pub mod names;
pub mod parts;
pub mod payload;
pub mod progress;
pub mod reason;
pub mod result;
pub mod seal;
pub mod sshsig;
pub mod standing;
pub mod task;
pub mod terms;
pub mod text;
pub mod time;
pub mod v2;
mod words;
pub mod writer;

pub use boot::BootRecord;
pub use control::Control;
pub use decision::Decision;
pub use heartbeat::Heartbeat;
pub use payload::{Kind, Payload, PayloadError};
pub use progress::Progress;
pub use reason::ReasonCode;
pub use result::{Status, TaskResult};
pub use standing::Standing;
pub use task::Task;
pub use terms::Terms;
