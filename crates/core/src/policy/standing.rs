//! Standing approvals: a yes given in advance, counted down (policy section 3).

use crate::policy::money::Usd;
use crate::protocol::names::{Name, NodeName};
use crate::protocol::standing::Standing;
use crate::protocol::time::Timestamp;

/// What of it is used up, by the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StandingUsed {
    /// Estimates of the tasks it answered for.
    pub total_usd: Usd,
    /// Tasks it answered for.
    pub uses: u64,
}

/// The task it might answer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandingQuestion<'a> {
    /// Who sent it.
    pub from: &'a NodeName,
    /// Its profile.
    pub profile: &'a Name,
    /// Its workspace.
    pub workspace: Option<&'a Name>,
    /// It wants the unrestricted mode.
    pub require_dangerous: bool,
    /// What is reserved for it; `None` costs nothing.
    pub estimate_usd: Option<Usd>,
    /// When it is accepted.
    pub now: Timestamp,
}

/// A standing approval's answer.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandingAnswer {
    /// Yes; this is what is used up then, to be stored in the accepting transaction.
    Approved {
        /// The new count.
        used: StandingUsed,
    },
    /// It does not answer: a person is asked.
    Silent,
}

/// Asks a standing approval that was verified and is of this node. It never answers for `require_dangerous`.
pub fn ask(terms: &Standing, used: StandingUsed, question: &StandingQuestion<'_>) -> StandingAnswer {
    let about = terms.from == *question.from
        && terms.profile == *question.profile
        && terms.workspace.as_ref() == question.workspace;
    let estimate = question.estimate_usd.unwrap_or(Usd::ZERO);
    let total = used.total_usd.checked_add(estimate).filter(|total| *total <= terms.total_usd);
    let within = question.now < terms.expires && used.uses < terms.uses && estimate <= terms.max_cost_usd;
    match total {
        Some(total_usd) if about && within && !question.require_dangerous => {
            StandingAnswer::Approved { used: StandingUsed { total_usd, uses: used.uses.saturating_add(1) } }
        }
        Some(_) | None => StandingAnswer::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::names::TaskId;

    #[test]
    fn a_standing_approval_answers_only_for_what_it_names_and_counts_down() {
        let usd = |text| Usd::from_wire(text).unwrap();
        let (from, profile) = (NodeName::new("devbox").unwrap(), Name::new("default").unwrap());
        let now = Timestamp::parse("2026-11-21T12:00:00.000Z").unwrap();
        let id = TaskId::parse("01a1f89c-fb83-734b-96bb-78a1dacaf1ff").unwrap();
        let terms = Standing {
            cluster: id.uuid(),
            node: NodeName::new("gpubox").unwrap(),
            id,
            author: "somebody".to_owned(),
            reason: "every night".to_owned(),
            made: now,
            from: from.clone(),
            profile: profile.clone(),
            workspace: None,
            max_cost_usd: usd("2"),
            total_usd: usd("3"),
            uses: 2,
            expires: now.plus_ms(1),
        };
        let question = StandingQuestion {
            from: &from,
            profile: &profile,
            workspace: None,
            require_dangerous: false,
            estimate_usd: Some(usd("2")),
            now,
        };
        let StandingAnswer::Approved { used } = ask(&terms, StandingUsed::default(), &question) else {
            panic!("it answers for its first task");
        };
        assert_eq!(used, StandingUsed { total_usd: usd("2"), uses: 1 });
        assert_eq!(ask(&terms, used, &question), StandingAnswer::Silent);
        let free = StandingQuestion { estimate_usd: None, ..question };
        assert_eq!(
            ask(&terms, used, &free),
            StandingAnswer::Approved { used: StandingUsed { uses: 2, ..used } }
        );
        let worn = StandingUsed { uses: 2, ..used };
        let other = Name::new("other").unwrap();
        for (used, question) in [
            (worn, free),
            (used, StandingQuestion { require_dangerous: true, ..free }),
            (used, StandingQuestion { profile: &other, ..free }),
            (used, StandingQuestion { workspace: Some(&other), ..free }),
            (used, StandingQuestion { now: now.plus_ms(1), ..free }),
            (StandingUsed::default(), StandingQuestion { estimate_usd: Some(usd("2.000001")), ..free }),
        ] {
            assert_eq!(ask(&terms, used, &question), StandingAnswer::Silent, "{question:?}");
        }
    }
}
