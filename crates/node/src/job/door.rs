//! The agent's own door, `<job>/door/`: where the agent of one attempt asks for child tasks (architecture, "The local
//! door"; policy, lineage).
//!
//! A request carries the attempt's token. The watcher takes it, makes the child, or says no, and leaves a reply; what came
//! of the child lies in `results/`. Whatever else is in the door is the agent's: nothing in it is followed, waited for or
//! believed. It is open for as long as its attempt is.

mod ask;
mod serve;
mod words;

pub use ask::{AgentSide, AskChildError, DOOR_VARIABLE, TOKEN_VARIABLE};
pub use serve::{AgentDoor, ChildClaim, Claims};
pub use words::{ChildAnswer, ChildRequest, ChildWanted, Made, NotAChildRequest};

/// Requests that nobody has taken yet.
const REQUESTS: &str = "requests";
/// What they are called once the door is closed.
const CLOSED: &str = "closed";
/// Replies to them.
const REPLIES: &str = "replies";
/// Results of children, as their nodes sealed them.
const RESULTS: &str = "results";
/// What a request is called until the watcher takes it; a reply and a result are called so, too.
const OFFERED: &str = "json";
/// What a request is called from then on.
const TAKEN: &str = "taken";
/// Longest request: the text of a task, its quotes and line ends escaped, and the rest.
const REQUEST_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest reply.
const REPLY_BYTES_MAX: u64 = 64 * 1024;
