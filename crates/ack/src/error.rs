//! Why no decision was made.

use std::path::PathBuf;

use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::PayloadError;
use dispatch_core::protocol::approvers::LineProblem;
use dispatch_core::protocol::names::{Lane, TaskId};
use dispatch_core::protocol::sshsig::NotAnSshSignature;
use dispatch_node::report::{Exit, Explain};
use dispatch_spool::ShareError;

/// Where a task is that does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// Not taken yet.
    Inbox,
    /// Accepted: queued or running.
    Processing,
    /// Answered.
    Done,
}

impl Elsewhere {
    const fn text(self) -> &'static str {
        match self {
            Elsewhere::Inbox => "the watcher has not taken it yet",
            Elsewhere::Processing => "it is accepted, queued or running",
            Elsewhere::Done => "it has ended",
        }
    }
}

/// Finding the task that a person means failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    #[error("`{part}` names {} tasks that wait", found.len())]
    Ambiguous { part: String, found: Vec<(Lane, TaskId)> },
    #[error("no task `{part}` waits for a decision")]
    Unknown { part: String },
    #[error("the task `{part}` does not wait for a decision: {}", at.text())]
    NotWaiting { part: String, at: Elsewhere },
    #[error("the {part} file does not verify ({code}): {text}")]
    Unverified { part: &'static str, code: &'static str, text: String },
    #[error("the task or its terms changed while you looked")]
    Changed,
}

impl Explain for FindError {
    fn exit(&self) -> Exit {
        match self {
            FindError::Ambiguous { .. } => Exit::Usage,
            FindError::Unknown { .. } | FindError::NotWaiting { .. } => Exit::NoSuchTask,
            FindError::Unverified { .. } => Exit::DoesNotVerify,
            FindError::Changed => Exit::TryLater,
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            FindError::Ambiguous { found, .. } => Some(several(found)),
            FindError::Unknown { .. } => Some("run `dispatch-ack` to see what waits".to_owned()),
            FindError::NotWaiting { part, .. } => Some(format!("look at it with `dispatchctl show {part}`")),
            FindError::Unverified { .. } => Some(
                "a running watcher sets it right; if it stays, somebody else writes to the share".to_owned(),
            ),
            FindError::Changed => Some("look at it again, then decide".to_owned()),
        }
    }
}

/// What to write instead; one id on two lanes is told apart by its sender.
fn several(found: &[(Lane, TaskId)]) -> String {
    let names: Vec<String> =
        found.iter().take(8).map(|(lane, id)| format!("{id} from {}", lane.from)).collect();
    format!("name one of them in full (and its --from where ids are the same): {}", names.join(", "))
}

/// Choosing who signs failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyChoiceError {
    #[error("there is no key `{}`", path.display())]
    Missing { path: PathBuf },
    #[error("`{}` holds no public key that is taken", path.display())]
    NotAPublicKey { path: PathBuf, source: LineProblem },
    #[error("there is no OpenSSH key in `{}` to sign with", dir.display())]
    NoneFound { dir: PathBuf },
    #[error("no key in `{}` is listed as an approver's", dir.display())]
    NoneListed { dir: PathBuf, approvers: PathBuf },
    #[error("the key {fingerprint} is not listed as an approver's")]
    NotListed { fingerprint: String, approvers: PathBuf },
    #[error("the key {fingerprint} is listed, and not valid now")]
    NotValidNow { fingerprint: String, approvers: PathBuf },
    #[error("the key is not one of `{principal}`")]
    OtherPrincipal { principal: String, principals: Vec<String> },
}

impl Explain for KeyChoiceError {
    fn exit(&self) -> Exit {
        match self {
            KeyChoiceError::Missing { .. } | KeyChoiceError::NotAPublicKey { .. } => Exit::Usage,
            KeyChoiceError::NoneFound { .. }
            | KeyChoiceError::NoneListed { .. }
            | KeyChoiceError::NotListed { .. }
            | KeyChoiceError::NotValidNow { .. }
            | KeyChoiceError::OtherPrincipal { .. } => Exit::NotPermitted,
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            KeyChoiceError::Missing { .. } | KeyChoiceError::NotAPublicKey { .. } => Some(
                "name an OpenSSH private key, or the .pub file of one in the agent, with --key".to_owned(),
            ),
            KeyChoiceError::NoneFound { .. } => Some("name a key with --key".to_owned()),
            KeyChoiceError::NoneListed { approvers, .. } | KeyChoiceError::NotListed { approvers, .. } => {
                Some(format!(
                    "whoever runs the node may list it in `{}`: dispatchctl init --approver KEY.pub",
                    approvers.display()
                ))
            }
            KeyChoiceError::NotValidNow { approvers, .. } => {
                Some(format!("look at its valid-after and valid-before in `{}`", approvers.display()))
            }
            KeyChoiceError::OtherPrincipal { principals, .. } => {
                Some(format!("it is listed for {}", principals.join(", ")))
            }
        }
    }
}

/// Signing failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error("cannot start ssh-keygen")]
    Start(#[source] std::io::Error),
    #[error("ssh-keygen did not sign with `{}`", path.display())]
    Refused { path: PathBuf },
    #[error("ssh-keygen answered something else than a signature")]
    Answer(#[source] NotAnSshSignature),
    #[error("the signature is not of the key that its .pub file says, so nobody would believe it")]
    OtherKey,
    #[error("the decision does not hold")]
    Payload(#[source] PayloadError),
}

impl Explain for SignError {
    fn exit(&self) -> Exit {
        match self {
            SignError::Start(_) | SignError::Refused { .. } | SignError::Answer(_) => Exit::LocalIo,
            SignError::OtherKey => Exit::NotPermitted,
            SignError::Payload(_) => Exit::Usage,
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            SignError::Start(_) => Some("install the OpenSSH client: ssh-keygen must be in PATH".to_owned()),
            SignError::Refused { .. } => {
                Some("was the passphrase right, is the key in the agent or the token plugged in?".to_owned())
            }
            SignError::OtherKey => Some("make the .pub file anew: ssh-keygen -y -f KEY > KEY.pub".to_owned()),
            SignError::Answer(_) | SignError::Payload(_) => None,
        }
    }
}

/// Making the decision failed for a reason of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecideError {
    #[error("there is no terminal to ask on")]
    NoTerminal,
    #[error("nothing was signed")]
    NotConfirmed,
    #[error("${asked} is not below the ceiling of ${ceiling}")]
    AboveCeiling { asked: Usd, ceiling: Usd },
    #[error("somebody else's bytes stand where the decision belongs")]
    Squatted(#[source] ShareError),
    #[error("an earlier decision of yours stands there, and no watcher has taken it")]
    EarlierStands,
    #[error("the node refused the decision and set it aside{}", code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
    SetAside { code: Option<String> },
}

impl Explain for DecideError {
    fn exit(&self) -> Exit {
        match self {
            DecideError::NoTerminal | DecideError::AboveCeiling { .. } => Exit::Usage,
            DecideError::NotConfirmed => Exit::Interrupted,
            DecideError::Squatted(_) => Exit::ShareUnreachable,
            DecideError::EarlierStands => Exit::TryLater,
            DecideError::SetAside { .. } => Exit::DoesNotVerify,
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            DecideError::NoTerminal => Some("say --yes to decide without being asked".to_owned()),
            DecideError::NotConfirmed => None,
            DecideError::AboveCeiling { .. } => {
                Some("--max-cost only lowers the ceiling; leave it out to approve as shown".to_owned())
            }
            DecideError::Squatted(_) => Some(
                "a running watcher sets it aside: see whether one runs (`dispatchctl status`), then decide again"
                    .to_owned(),
            ),
            DecideError::EarlierStands => {
                Some("start the watcher of that node; the last decision counts, so decide again then".to_owned())
            }
            DecideError::SetAside { .. } => Some(
                "the node judges by its own approvers, ledger and clock: `dispatchctl audit show` there says more"
                    .to_owned(),
            ),
        }
    }
}
