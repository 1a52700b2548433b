//! Reason codes: why something was refused, reported or not believed, and what a person can do.

crate::protocol::words::words! {
    /// Every code of protocol sections 1 to 7. Those of policy are policy's.
    pub enum ReasonCode {
        /// No regular file.
        NotARegularFile = "not_a_regular_file",
        /// Larger than is read.
        TooLarge = "too_large",
        /// A break of form.
        Malformed = "malformed",
        /// A schema of another release.
        UnsupportedSchema = "unsupported_schema",
        /// No signature of a known key.
        BadSignature = "bad_signature",
        /// Signed by a retired key.
        RetiredKey = "retired_key",
        /// Of another cluster.
        WrongCluster = "wrong_cluster",
        /// For another node.
        WrongRecipient = "wrong_recipient",
        /// From another node than the lane's.
        WrongLane = "wrong_lane",
        /// Its name says another id.
        IdMismatch = "id_mismatch",
        /// The same bytes again.
        Replayed = "replayed",
        /// A seen id with other bytes.
        IdReused = "id_reused",
        /// Too late.
        Expired = "expired",
        /// Made ahead of the receiver's clock.
        FromTheFuture = "from_the_future",
        /// It would live too long.
        LifetimeTooLong = "lifetime_too_long",
        /// Older than this node's ledger.
        BeforeLedger = "before_ledger",
        /// A position of a stream is missing.
        StreamGap = "stream_gap",
        /// A position of a stream twice.
        StreamFork = "stream_fork",
        /// A quantity over its limit.
        LimitExceeded = "limit_exceeded",
        /// No such profile here.
        UnknownProfile = "unknown_profile",
        /// No such workspace here.
        UnknownWorkspace = "unknown_workspace",
        /// This release does not do it yet.
        UnsupportedHere = "unsupported_here",
        /// About other bytes of the task or its terms.
        DigestMismatch = "digest_mismatch",
        /// About a task that is not known.
        UnknownTask = "unknown_task",
        /// About a task that waits for nobody.
        NotWaiting = "not_waiting",
        /// A heartbeat that does not advance.
        HeartbeatReplayed = "heartbeat_replayed",
        /// An attachment that is missing or other than its digest.
        AttachmentMismatch = "attachment_mismatch",
        /// What was approved cannot run any more.
        TermsChanged = "terms_changed",
        /// Somebody else's bytes at a name this node writes.
        Squatted = "squatted",
        /// A second result that verifies and differs.
        ResultConflict = "result_conflict",
        /// More names in a directory than are read.
        Flooded = "flooded",
        /// No result came in time.
        Unanswered = "unanswered",
        /// A sender stopped waiting.
        NoAnswer = "no_answer",
    }
}

/// Who can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The sender.
    Sender,
    /// Whoever runs the node that refused.
    Operator,
    /// The person who approves.
    Approver,
    /// Nobody needs to.
    Nobody,
}

impl ReasonCode {
    /// What it means, one sentence for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            ReasonCode::NotARegularFile => "there is no regular file at this name",
            ReasonCode::TooLarge => "the file is larger than is read",
            ReasonCode::Malformed => "the message breaks the form of its kind",
            ReasonCode::UnsupportedSchema => "the message has a schema this release does not know",
            ReasonCode::BadSignature => "no signature is of a key that may seal this",
            ReasonCode::RetiredKey => "the signature is of a retired key",
            ReasonCode::WrongCluster => "the message is for another cluster",
            ReasonCode::WrongRecipient => "the message is for another node",
            ReasonCode::WrongLane => "the message is from another node than its lane's",
            ReasonCode::IdMismatch => "the message is not the one its file's name says",
            ReasonCode::Replayed => "this task was taken before",
            ReasonCode::IdReused => "this id was used before for another task",
            ReasonCode::Expired => "it came too late",
            ReasonCode::FromTheFuture => "it was made more than 5 minutes ahead of this node's clock",
            ReasonCode::LifetimeTooLong => "it would live longer than 30 days",
            ReasonCode::BeforeLedger => {
                "it was made before this node's ledger began, so whether it ran is not known"
            }
            ReasonCode::StreamGap => "a task of this sender's stream is missing",
            ReasonCode::StreamFork => "two tasks have the same position in this sender's stream",
            ReasonCode::LimitExceeded => "a quantity is over its limit",
            ReasonCode::UnknownProfile => "this node has no such profile",
            ReasonCode::UnknownWorkspace => "this node has no such workspace",
            ReasonCode::UnsupportedHere => "this node cannot do that yet",
            ReasonCode::DigestMismatch => "it is about other bytes of the task or of its terms",
            ReasonCode::UnknownTask => "it is about a task that is not known here",
            ReasonCode::NotWaiting => "the task does not wait for a decision",
            ReasonCode::HeartbeatReplayed => "the heartbeat does not advance",
            ReasonCode::AttachmentMismatch => "an attachment is missing or is not what its digest says",
            ReasonCode::TermsChanged => "what was approved cannot run here any more",
            ReasonCode::Squatted => "somebody else's bytes lay at a name this node writes",
            ReasonCode::ResultConflict => "another result of this task stands already",
            ReasonCode::Flooded => "a directory holds more names than are read",
            ReasonCode::Unanswered => "no result came in time",
            ReasonCode::NoAnswer => "no result came while waiting",
        }
    }

    /// What to do now, one sentence for people.
    #[must_use]
    pub const fn help(self) -> &'static str {
        match self {
            ReasonCode::NotARegularFile
            | ReasonCode::TooLarge
            | ReasonCode::Malformed
            | ReasonCode::WrongCluster
            | ReasonCode::WrongRecipient
            | ReasonCode::WrongLane
            | ReasonCode::IdMismatch
            | ReasonCode::Squatted
            | ReasonCode::Flooded => "find out who wrote it: the evidence is in rejected/",
            ReasonCode::UnsupportedSchema => "bring both nodes to the same release, or set the peer's schema",
            ReasonCode::BadSignature => "compare the key files of both nodes, or the approvers file",
            ReasonCode::RetiredKey => "make the new key the first one on the sender",
            ReasonCode::Replayed | ReasonCode::HeartbeatReplayed => "nothing: it was handled before",
            ReasonCode::IdReused => "find out why: two tasks must never share an id",
            ReasonCode::Expired => "send it again as a new task",
            ReasonCode::FromTheFuture => "set the clocks of both nodes, then send it again as a new task",
            ReasonCode::LifetimeTooLong => "send it again with a nearer --expires",
            ReasonCode::BeforeLedger => "check whether its work was done, then send it again as a new task",
            ReasonCode::StreamGap => "look at the sender's outbox: what it sent there did not all arrive",
            ReasonCode::StreamFork => "find out whether the sender's state directory was copied",
            ReasonCode::LimitExceeded => "send it again within the limit",
            ReasonCode::UnknownProfile => "name one of the receiver's profiles, or have it added there",
            ReasonCode::UnknownWorkspace => "name one of the receiver's workspaces, or have it added there",
            ReasonCode::UnsupportedHere => "send it again without that member",
            ReasonCode::DigestMismatch => "look at the task again and decide anew",
            ReasonCode::UnknownTask => "check the id and the lane",
            ReasonCode::NotWaiting => "look at the task's state with `dispatchctl show`",
            ReasonCode::AttachmentMismatch => "send it again with its attachments",
            ReasonCode::TermsChanged => "send it again, or bring back what was configured",
            ReasonCode::ResultConflict => "compare both results: the node may have lost its ledger",
            ReasonCode::Unanswered => "look at the peer, then `dispatchctl resend` or send a new task",
            ReasonCode::NoAnswer => "`dispatchctl wait` goes on waiting, `dispatchctl resend` puts it back",
        }
    }

    /// Who can do it.
    #[must_use]
    pub const fn who(self) -> Who {
        match self {
            ReasonCode::Expired
            | ReasonCode::LifetimeTooLong
            | ReasonCode::BeforeLedger
            | ReasonCode::LimitExceeded
            | ReasonCode::UnknownProfile
            | ReasonCode::UnknownWorkspace
            | ReasonCode::UnsupportedHere
            | ReasonCode::AttachmentMismatch
            | ReasonCode::UnknownTask
            | ReasonCode::Unanswered
            | ReasonCode::NoAnswer => Who::Sender,
            ReasonCode::DigestMismatch | ReasonCode::NotWaiting => Who::Approver,
            ReasonCode::Replayed | ReasonCode::HeartbeatReplayed => Who::Nobody,
            ReasonCode::NotARegularFile
            | ReasonCode::TooLarge
            | ReasonCode::Malformed
            | ReasonCode::UnsupportedSchema
            | ReasonCode::BadSignature
            | ReasonCode::RetiredKey
            | ReasonCode::WrongCluster
            | ReasonCode::WrongRecipient
            | ReasonCode::WrongLane
            | ReasonCode::IdMismatch
            | ReasonCode::IdReused
            | ReasonCode::FromTheFuture
            | ReasonCode::StreamGap
            | ReasonCode::StreamFork
            | ReasonCode::TermsChanged
            | ReasonCode::Squatted
            | ReasonCode::ResultConflict
            | ReasonCode::Flooded => Who::Operator,
        }
    }
}
