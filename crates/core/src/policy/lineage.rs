//! Tasks sent by tasks: what a child may have is what its parent had, or less (protocol section 3, `lineage`).

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
}
