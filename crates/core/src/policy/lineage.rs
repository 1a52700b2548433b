//! Tasks sent by tasks: what a child may have is what its parent had, or less (protocol section 3, `lineage`).

use rust_decimal::Decimal;

use crate::policy::money::Usd;
use crate::protocol::names::TaskId;
use crate::protocol::task::Task;

/// A task's place in its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The first task of the tree; a task that no task sent is its own root.
    pub root: TaskId,
    /// The task that sent it.
    pub parent: Option<TaskId>,
    /// Steps from the root.
    pub depth: i64,
    /// How many tasks it may still send.
    pub fanout_left: i64,
    /// What it and its children may still cost; `None` is no limit of its own.
    pub budget_usd: Option<Usd>,
}

impl Lineage {
    /// The lineage of a task: what it says, or that it is its own root.
    #[must_use]
    pub fn of_task(task: &Task) -> Lineage {
        task.lineage.as_ref().map_or(Lineage::of_root(task.id), |lineage| Lineage {
            root: lineage.root,
            parent: lineage.parent,
            depth: lineage.depth.into(),
            fanout_left: lineage.fanout_left.into(),
            budget_usd: lineage.budget_usd,
        })
    }

    /// The lineage of a task that no task sent and that says nothing of it.
    #[must_use]
    pub const fn of_root(id: TaskId) -> Lineage {
        Lineage { root: id, parent: None, depth: 0, fanout_left: 0, budget_usd: None }
    }
}

/// What a lineage gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineageError {
    /// Without a parent: another root than itself, or a depth other than 0. With one: itself as root, or depth 0.
    #[error("root, parent and depth do not fit each other")]
    Inconsistent,
    /// Another root than the parent's.
    #[error("the root is not the parent's")]
    OtherRoot,
    /// A depth that is not one more than the parent's.
    #[error("the depth is not one more than the parent's")]
    Depth,
    /// As much fan-out as the parent had, or more.
    #[error("the fan-out does not shrink")]
    Fanout,
    /// More budget than the parent had.
    #[error("the budget grows")]
    Budget,
    /// Deeper in its tree than the node lets tasks run.
    #[error("it lies deeper than {depth_max} steps from the first task")]
    TooDeep {
        /// The deepest allowed.
        depth_max: i64,
    },
    /// It was forwarded to a node that it came through before.
    #[error("it came through this very node before")]
    ComesBack,
}

/// Checks a task's lineage, against its parent's where this node knows the parent.
///
/// # Errors
/// The first thing it gets wrong.
pub fn check(id: TaskId, lineage: &Lineage, parent: Option<&Lineage>) -> Result<(), LineageError> {
    let fits = match lineage.parent {
        None => lineage.root == id && lineage.depth == 0,
        Some(parent) => lineage.root != id && parent != id && lineage.depth >= 1,
    };
    if !fits {
        return Err(LineageError::Inconsistent);
    }
    let (Some(parent), Some(_)) = (parent, lineage.parent) else { return Ok(()) };
    if lineage.root != parent.root {
        Err(LineageError::OtherRoot)
    } else if parent.depth.checked_add(1) != Some(lineage.depth) {
        Err(LineageError::Depth)
    } else if lineage.fanout_left >= parent.fanout_left {
        Err(LineageError::Fanout)
    } else if grows(parent.budget_usd, lineage.budget_usd) {
        Err(LineageError::Budget)
    } else {
        Ok(())
    }
}

/// What a task has left to give to those it sends: what it has, less what it and its children have set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Tasks that may still be sent, by it and by everything below it.
    pub fanout: i64,
    /// Money that is neither spent nor set aside; `None` is no limit of its own.
    pub budget_usd: Option<Usd>,
}

/// What a child asks for; what it does not say is half of what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Tasks it may send, all of its own children's included.
    pub fanout: Option<i64>,
    /// What it may cost, all of its own children included.
    pub budget_usd: Option<Usd>,
}

/// Why a task may not send this child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// It would lie deeper than this node allows.
    #[error("a child of this task would lie at depth {depth}, and {depth_max} is the deepest")]
    TooDeep {
        /// The child's depth.
        depth: i64,
        /// The deepest allowed.
        depth_max: i64,
    },
    /// The task may send no more.
    #[error("the task may send no more tasks")]
    NoFanout,
    /// The child asks for more fan-out than there is beside itself.
    #[error("a fan-out of {asked} is more than the {left} that are left beside the child itself")]
    Fanout {
        /// What it asks for.
        asked: i64,
        /// What could be had.
        left: i64,
    },
    /// The child asks for more money than is left.
    #[error("a budget of {asked} USD is more than the {left} USD that are left")]
    Budget {
        /// What it asks for.
        asked: Usd,
        /// What is left.
        left: Usd,
    },
}

/// What a child of a task may have: one step deeper, and a part of what is left. A child takes one of its parent's places
/// and all it is given to give on, so a whole tree never holds more tasks, nor costs more, than its root was allowed.
///
/// # Errors
/// The first thing there is not enough of.
pub fn grant(
    id: TaskId,
    parent: &Lineage,
    left: &Left,
    asked: &Share,
    depth_max: i64,
) -> Result<Lineage, GrantError> {
    let depth = parent.depth.saturating_add(1);
    if depth > depth_max {
        return Err(GrantError::TooDeep { depth, depth_max });
    }
    let beside = left.fanout.saturating_sub(1);
    if beside < 0 {
        return Err(GrantError::NoFanout);
    }
    let fanout = asked.fanout.unwrap_or(beside / 2).max(0);
    if fanout > beside {
        return Err(GrantError::Fanout { asked: fanout, left: beside });
    }
    let budget_usd = match (asked.budget_usd, left.budget_usd) {
        (Some(asked), Some(left)) if asked > left => return Err(GrantError::Budget { asked, left }),
        (Some(asked), _) => Some(asked),
        (None, left) => left.map(|left| half_of(left.max(Usd::ZERO))),
    };
    Ok(Lineage { root: parent.root, parent: Some(id), depth, fanout_left: fanout, budget_usd })
}

/// What a child asks for and the task that sends it was not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Another run.
    Run,
    /// The unrestricted mode.
    Dangerous,
    /// A hosted API.
    Sdk,
}

/// The first thing that a child asks for beyond what the task that sends it was allowed: a right, or another run, which
/// would be a budget that nobody has touched yet. `None` where it asks for no more.
#[must_use]
pub fn asks_for_more(parent: &Task, child: &Task) -> Option<Excess> {
    if child.run.is_some() && child.run != parent.run {
        Some(Excess::Run)
    } else if child.require_dangerous && !parent.require_dangerous {
        Some(Excess::Dangerous)
    } else if child.allow_sdk && !parent.allow_sdk {
        Some(Excess::Sdk)
    } else {
        None
    }
}

/// The lineage of a task that is forwarded: one step deeper, with all that is left of its fan-out but one, and the money
/// that is set aside for it.
///
/// # Errors
/// It would lie too deep.
pub fn forward(id: TaskId, parent: &Lineage, left: &Left, depth_max: i64) -> Result<Lineage, GrantError> {
    let depth = parent.depth.saturating_add(1);
    if depth > depth_max {
        return Err(GrantError::TooDeep { depth, depth_max });
    }
    let fanout_left = left.fanout.saturating_sub(1).max(0);
    Ok(Lineage { root: parent.root, parent: Some(id), depth, fanout_left, budget_usd: left.budget_usd })
}

/// Half an amount, rounded down to millionths.
fn half_of(amount: Usd) -> Usd {
    Usd::from_decimal((amount.decimal() / Decimal::TWO).trunc_with_scale(6))
}

/// A budget grows when it exceeds the parent's, or drops the limit the parent had.
fn grows(parent: Option<Usd>, child: Option<Usd>) -> bool {
    parent.is_some_and(|parent| child.is_none_or(|child| child > parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "01a1f89c-fb83-734b-96bb-78a1dacaf1ff";
    const CHILD: &str = "01a1f89c-fb84-734b-96bb-78a1dacaf1ff";
    const GRANDCHILD: &str = "01a1f89c-fb85-734b-96bb-78a1dacaf1ff";

    fn id(text: &str) -> TaskId {
        TaskId::parse(text).unwrap()
    }

    fn parent() -> Lineage {
        Lineage {
            root: id(ROOT),
            parent: Some(id(ROOT)),
            depth: 1,
            fanout_left: 3,
            budget_usd: Usd::from_wire("2").ok(),
        }
    }

    fn child() -> Lineage {
        Lineage { parent: Some(id(CHILD)), depth: 2, fanout_left: 2, ..parent() }
    }

    #[test]
    fn a_root_is_its_own_root() {
        assert_eq!(check(id(ROOT), &Lineage::of_root(id(ROOT)), None), Ok(()));
        let other = Lineage::of_root(id(CHILD));
        assert_eq!(check(id(ROOT), &other, None), Err(LineageError::Inconsistent));
        let deep = Lineage { depth: 1, ..Lineage::of_root(id(ROOT)) };
        assert_eq!(check(id(ROOT), &deep, None), Err(LineageError::Inconsistent));
    }

    #[test]
    fn a_child_whose_parent_is_unknown_here_need_only_fit_itself() {
        assert_eq!(check(id(GRANDCHILD), &child(), None), Ok(()));
        let rootless = Lineage { root: id(GRANDCHILD), ..child() };
        assert_eq!(check(id(GRANDCHILD), &rootless, None), Err(LineageError::Inconsistent));
        let shallow = Lineage { depth: 0, ..child() };
        assert_eq!(check(id(GRANDCHILD), &shallow, None), Err(LineageError::Inconsistent));
    }

    #[test]
    fn depth_fan_out_and_budget_may_only_shrink() {
        let parent = parent();
        let check = |lineage: Lineage| check(id(GRANDCHILD), &lineage, Some(&parent));
        assert_eq!(check(child()), Ok(()));
        assert_eq!(check(Lineage { root: id(CHILD), ..child() }), Err(LineageError::OtherRoot));
        assert_eq!(check(Lineage { depth: 1, ..child() }), Err(LineageError::Depth));
        assert_eq!(check(Lineage { fanout_left: 3, ..child() }), Err(LineageError::Fanout));
        assert_eq!(check(Lineage { budget_usd: None, ..child() }), Err(LineageError::Budget));
        let more = Usd::from_wire("2.000001").ok();
        assert_eq!(check(Lineage { budget_usd: more, ..child() }), Err(LineageError::Budget));
    }

    #[test]
    fn a_child_takes_its_own_place_and_what_it_may_give_on() {
        let left = Left { fanout: 3, budget_usd: Usd::from_wire("1").ok() };
        let grant = |left: &Left, asked: &Share| grant(id(CHILD), &parent(), left, asked, 4);
        let given = grant(&left, &Share::default()).unwrap();
        assert_eq!(given, Lineage { fanout_left: 1, budget_usd: Usd::from_wire("0.5").ok(), ..child() });
        assert_eq!(check(id(GRANDCHILD), &given, Some(&parent())), Ok(()));
        let all = Share { fanout: Some(2), budget_usd: left.budget_usd };
        assert_eq!(grant(&left, &all).map(|given| given.fanout_left), Ok(2));
        let more = Share { fanout: Some(3), ..all };
        assert_eq!(grant(&left, &more), Err(GrantError::Fanout { asked: 3, left: 2 }));
        let richer = Share { budget_usd: Usd::from_wire("1.000001").ok(), ..all };
        assert!(matches!(grant(&left, &richer), Err(GrantError::Budget { .. })));
        assert_eq!(grant(&Left { fanout: 0, ..left }, &Share::default()), Err(GrantError::NoFanout));
        let last = grant(&Left { fanout: 1, budget_usd: None }, &Share::default()).unwrap();
        assert_eq!((last.fanout_left, last.budget_usd), (0, None));
    }

    #[test]
    fn a_child_asks_for_no_right_and_no_run_that_its_parent_had_not() {
        use crate::protocol::names::{Lane, NodeName};
        use crate::protocol::time::Timestamp;
        let node = |name| NodeName::new(name).unwrap();
        let lane = Lane::new(node("a"), node("b"));
        let now = Timestamp::from_unix_ms(0);
        let plain =
            Task::new(uuid::Uuid::nil(), &lane, id(ROOT), now, (uuid::Uuid::nil(), 1), "x".to_owned());
        let dangerous = Task { require_dangerous: true, ..plain.clone() };
        let hosted = Task { allow_sdk: true, ..plain.clone() };
        let batch = Task { run: Some("nightly".to_owned()), ..plain.clone() };
        for (asks, member) in [(&dangerous, Excess::Dangerous), (&hosted, Excess::Sdk), (&batch, Excess::Run)]
        {
            assert_eq!(asks_for_more(&plain, asks), Some(member));
            assert_eq!((asks_for_more(asks, asks), asks_for_more(asks, &plain)), (None, None));
        }
    }

    #[test]
    fn a_child_never_lies_deeper_than_the_node_allows() {
        let left = Left { fanout: 3, budget_usd: None };
        let at = |depth_max| grant(id(CHILD), &parent(), &left, &Share::default(), depth_max);
        assert!(at(2).is_ok());
        assert_eq!(at(1), Err(GrantError::TooDeep { depth: 2, depth_max: 1 }));
    }
}
