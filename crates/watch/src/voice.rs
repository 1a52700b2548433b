//! What the operator reads in the journal: one sentence for each change that a person may have to act on.

use dispatch_core::protocol::heartbeat::NodeState;
use dispatch_node::report::tell;
use dispatch_node::term::{Breaks, visible};

use crate::node::{Node, Reach};
use crate::tripping::Stopped;

/// What was said last, so that nothing is said twice.
#[derive(Default)]
pub(crate) struct Voice {
    reach: Option<Reach>,
    stopped: Option<Stopped>,
    state: Option<NodeState>,
    adopted: usize,
}

impl Voice {
    /// Says what has changed since the last time.
    pub(crate) fn say_changes(&mut self, node: &Node) {
        if self.reach.is_none() {
            tell(&format!(
                "dispatch-watch: {} watches `{}` ({}), boot {}",
                node.home.node,
                node.home.config.root.display(),
                node.strategy,
                node.home.boot
            ));
        }
        if node.adopted > self.adopted {
            tell(&format!(
                "dispatch-watch: adopted what runs since before this start: {} task{}",
                node.adopted,
                if node.adopted == 1 { "" } else { "s" }
            ));
        }
        self.adopted = node.adopted;
        self.say_reach(node);
        self.say_stopped(node);
        if let Ok(state) = node.node_state()
            && self.state != Some(state)
        {
            if self.state.is_some() || state != NodeState::Active {
                tell(&format!("dispatch-watch: {}", state_text(state)));
            }
            self.state = Some(state);
        }
    }

    fn say_reach(&mut self, node: &Node) {
        if self.reach.as_ref() == Some(&node.reach) {
            return;
        }
        match &node.reach {
            Reach::Here if self.reach.is_some() => tell("dispatch-watch: the share is back"),
            Reach::Here => {}
            Reach::Unreachable(why) => tell(&format!(
                "dispatch-watch: share unreachable: {}; nothing starts, what runs goes on",
                visible(why, Breaks::Show)
            )),
        }
        self.reach = Some(node.reach.clone());
    }

    fn say_stopped(&mut self, node: &Node) {
        if self.stopped.as_ref() == Some(&node.stopped) {
            return;
        }
        match &node.stopped.node {
            Some((mode, why)) => tell(&format!(
                "dispatch-watch: a killswitch stops this node ({mode}): {}; when it is gone: dispatchctl resume",
                if why.is_empty() { "no reason given".into() } else { visible(why, Breaks::Show) }
            )),
            None if self.stopped.as_ref().is_some_and(|stopped| stopped.node.is_some()) => {
                tell("dispatch-watch: no killswitch stops this node any more");
            }
            None => {}
        }
        for (from, mode) in &node.stopped.lanes {
            tell(&format!("dispatch-watch: a killswitch stops what {from} sends ({mode})"));
        }
        self.stopped = Some(node.stopped.clone());
    }
}

const fn state_text(state: NodeState) -> &'static str {
    match state {
        NodeState::Active => "active: tasks are taken and started",
        NodeState::EnteringMaintenance => "draining: nothing new starts",
        NodeState::Maintenance => "in maintenance: dispatchctl undrain ends it",
        NodeState::ExitingMaintenance => "leaving maintenance",
        NodeState::DrainFailed => {
            "the drain ran out of its grace and something still runs: dispatchctl list --state running"
        }
        NodeState::Recovery => {
            "recovery: this ledger is older than what the node has shown; nothing is taken or started until a person \
             runs: dispatchctl recover --accept-rollback REASON"
        }
    }
}
