//! When a human must say yes (policy section 3).

use std::fmt;

use rust_decimal::Decimal;

use crate::policy::money::Usd;

/// Why a task waits for a person. A task may have several reasons; all are named in its terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GateReason {
    /// Its sender, or this node's rules for that sender's protocol version, asks for it.
    RequireAck,
    /// It wants its profile's unrestricted mode.
    Dangerous,
    /// Its backend is not this node.
    BackendNotLocal,
    /// Its ceiling exceeds `gate_above_usd`.
    AboveGateUsd,
    /// This node gates everything of that peer.
    PeerGate,
    /// The spend policy says throttle.
    Throttled,
    /// It was sent by a task that was itself sent by tasks, deeper than `gate_depth`.
    LineageDepth,
}

impl GateReason {
    /// All reasons, in the order in which they are listed.
    pub const ALL: [GateReason; 7] = [
        GateReason::RequireAck,
        GateReason::Dangerous,
        GateReason::BackendNotLocal,
        GateReason::AboveGateUsd,
        GateReason::PeerGate,
        GateReason::Throttled,
        GateReason::LineageDepth,
    ];

    /// The name in terms, audit entries and listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            GateReason::RequireAck => "require_ack",
            GateReason::Dangerous => "dangerous",
            GateReason::BackendNotLocal => "backend_not_local",
            GateReason::AboveGateUsd => "above_gate_usd",
            GateReason::PeerGate => "peer_gate",
            GateReason::Throttled => "throttled",
            GateReason::LineageDepth => "lineage_depth",
        }
    }

    /// The reason of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<GateReason> {
        GateReason::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for GateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A sender's `gate` in this node's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerGate {
    /// The rules decide.
    #[default]
    Policy,
    /// Everything it sends waits for a person.
    Always,
}

/// This node's limits on what runs unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateLimits {
    /// A ceiling above this is gated.
    pub gate_above_usd: Usd,
    /// A lineage depth above this is gated.
    pub gate_depth: i64,
}

impl Default for GateLimits {
    fn default() -> GateLimits {
        GateLimits {
            gate_above_usd: Usd::from_decimal(Decimal::from_parts(5, 0, 0, false, 0)),
            gate_depth: 1,
        }
    }
}

/// What the gate looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateFacts {
    /// The task's `require_ack`, or what this node put in its place.
    pub require_ack: bool,
    /// The task's `require_dangerous`.
    pub require_dangerous: bool,
    /// Its backend is of kind `local`.
    pub backend_is_local: bool,
    /// The most it may cost: its ceiling, or the whole estimate where only a machine is metered.
    pub ceiling_usd: Option<Usd>,
    /// The sender's entry.
    pub peer_gate: PeerGate,
    /// The spend policy says throttle, and the task is paid.
    pub throttled: bool,
    /// Its lineage's depth.
    pub depth: i64,
}

/// The reasons to ask a person; none means it may run unasked.
#[must_use]
pub fn reasons(facts: &GateFacts, limits: &GateLimits) -> Vec<GateReason> {
    let holds = |reason: &GateReason| match reason {
        GateReason::RequireAck => facts.require_ack,
        GateReason::Dangerous => facts.require_dangerous,
        GateReason::BackendNotLocal => !facts.backend_is_local,
        GateReason::AboveGateUsd => facts.ceiling_usd.is_some_and(|ceiling| ceiling > limits.gate_above_usd),
        GateReason::PeerGate => facts.peer_gate == PeerGate::Always,
        GateReason::Throttled => facts.throttled,
        GateReason::LineageDepth => facts.depth > limits.gate_depth,
    };
    GateReason::ALL.into_iter().filter(holds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> GateFacts {
        GateFacts {
            require_ack: false,
            require_dangerous: false,
            backend_is_local: true,
            ceiling_usd: Some(Usd::from_wire("5").unwrap()),
            peer_gate: PeerGate::Policy,
            throttled: false,
            depth: 1,
        }
    }

    #[test]
    fn a_task_at_every_limit_runs_unasked() {
        assert_eq!(reasons(&quiet(), &GateLimits::default()), []);
    }

    #[test]
    fn each_reason_gates_by_itself() {
        let above = Usd::from_wire("5.000001").ok();
        for (reason, facts) in [
            (GateReason::RequireAck, GateFacts { require_ack: true, ..quiet() }),
            (GateReason::Dangerous, GateFacts { require_dangerous: true, ..quiet() }),
            (GateReason::BackendNotLocal, GateFacts { backend_is_local: false, ..quiet() }),
            (GateReason::AboveGateUsd, GateFacts { ceiling_usd: above, ..quiet() }),
            (GateReason::PeerGate, GateFacts { peer_gate: PeerGate::Always, ..quiet() }),
            (GateReason::Throttled, GateFacts { throttled: true, ..quiet() }),
            (GateReason::LineageDepth, GateFacts { depth: 2, ..quiet() }),
        ] {
            assert_eq!(reasons(&facts, &GateLimits::default()), [reason]);
            assert_eq!(GateReason::parse(reason.as_str()), Some(reason));
        }
    }
}
