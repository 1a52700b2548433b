//! Which doors are open, what is taken there in a pass, and what is laid there after it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dispatch_ledger::{AttemptRow, LedgerError};
use dispatch_node::job::JobDir;
use dispatch_node::job::door::{AgentDoor, ChildAnswer};

use super::{Answered, Audit, Knock};
use crate::node::Node;

/// Requests taken at one door in a pass.
const TAKEN_PER_PASS: usize = 8;
/// Requests answered at one door in all. An agent has to do with a hundredth of it; one that asks in a loop is stopped.
const ANSWERED_MAX: u32 = 1_000;
/// Refusals of one attempt that have an audit entry each.
const AUDITED_MAX: u32 = 16;

/// A door that is served.
struct Served {
    door: AgentDoor,
    answered: u32,
    refused: u32,
    /// Its agent asked too much: nobody looks there any more.
    is_shut: bool,
}

/// The doors of the attempts that run.
#[derive(Default)]
pub(crate) struct AgentDoors {
    open: BTreeMap<u64, Served>,
    /// Whether every result that is known lies where its agent waits for it.
    delivered: bool,
}

impl AgentDoors {
    /// Where requests appear.
    pub(crate) fn requests_dirs(&self) -> BTreeMap<u64, PathBuf> {
        let served = self.open.iter().filter(|(_, served)| !served.is_shut);
        served.map(|(epoch, served)| (*epoch, served.door.requests_dir())).collect()
    }

    /// Results of children came into the ledger.
    pub(crate) fn deliver(&mut self) {
        self.delivered = false;
    }
}

impl Node {
    fn runs_with_doors(&self) -> Result<Vec<AttemptRow>, LedgerError> {
        let mut runs = self.ledger.open_runs()?;
        runs.retain(|row| row.token_sha256.is_some());
        Ok(runs)
    }

    fn job_of(&self, row: &AttemptRow) -> JobDir {
        JobDir::at(self.home.config.state.path(), &row.key.from, row.key.id, row.epoch)
    }

    /// Takes what agents ask for. Doors that cannot be looked into are looked into again.
    pub(crate) fn knocks(&mut self) -> Result<Vec<Knock>, LedgerError> {
        let mut knocks = Vec::new();
        for row in self.runs_with_doors()? {
            let job = self.job_of(&row);
            let served = self.agent_doors.open.entry(row.epoch).or_insert_with(|| Served::at(&job));
            if served.is_shut {
                continue;
            }
            let claims = match served.door.claim(TAKEN_PER_PASS) {
                Ok(claims) => claims,
                Err(error) => {
                    tracing::warn!(epoch = row.epoch, %error, "an agent's door cannot be looked into");
                    continue;
                }
            };
            self.again |= claims.more;
            if claims.claimed.is_empty() {
                continue;
            }
            let started = job.read_started().ok().flatten().map(|started| started.at);
            for (refused, claim) in (served.refused..).zip(claims.claimed) {
                let audit = if refused < AUDITED_MAX { Audit::Each } else { Audit::Counted };
                knocks.push(Knock { row: row.clone(), started, claim, audit });
            }
        }
        Ok(knocks)
    }

    /// Lays the answers at the doors, and shuts those of agents that asked too much.
    pub(crate) fn answer_agents(&mut self, answers: Vec<Answered>) {
        for Answered { epoch, id, answer, counted } in answers {
            if let Some(code) = counted {
                self.count_refusal(code);
            }
            let Some(served) = self.agent_doors.open.get_mut(&epoch) else { continue };
            served.answered = served.answered.saturating_add(1);
            if matches!(answer, ChildAnswer::Refused(_)) {
                served.refused = served.refused.saturating_add(1);
            }
            if let Err(error) = served.door.reply(id, &answer) {
                tracing::warn!(epoch, %error, "an agent could not be answered; it is answered again");
            }
            if served.answered >= ANSWERED_MAX && !served.is_shut {
                served.is_shut = true;
                tracing::warn!(epoch, "an agent asked {ANSWERED_MAX} times; its door is shut");
                served.close(epoch);
                self.count_refusal("door_flooded");
            }
        }
    }

    /// The doors of attempts that run are open, all others shut; results lie where agents wait for them.
    pub(crate) fn tend_doors(&mut self) -> Result<(), LedgerError> {
        let runs = self.runs_with_doors()?;
        self.agent_doors.open.retain(|epoch, served| {
            let runs = runs.iter().any(|row| row.epoch == *epoch);
            if !runs && !served.is_shut {
                served.close(*epoch);
            }
            runs
        });
        for row in &runs {
            if !self.agent_doors.open.contains_key(&row.epoch) {
                let served = Served::at(&self.job_of(row));
                self.agent_doors.open.insert(row.epoch, served);
            }
        }
        if !self.agent_doors.delivered {
            self.agent_doors.delivered = self.deliver(&runs)?;
        }
        Ok(())
    }

    /// True when everything was delivered.
    fn deliver(&self, runs: &[AttemptRow]) -> Result<bool, LedgerError> {
        let mut all = true;
        for row in runs {
            let door = AgentDoor::of(&self.job_of(row));
            for child in self.ledger.children_of_attempt(row.epoch)? {
                if child.status.is_none() || door.has_result(child.id).unwrap_or(false) {
                    continue;
                }
                let Some(payload) = self.ledger.child_result(child.id)? else { continue };
                if let Err(error) = door.put_result(child.id, &payload) {
                    tracing::warn!(epoch = row.epoch, %error, "a result could not be laid at an agent's door");
                    all = false;
                }
            }
        }
        Ok(all)
    }
}

impl Served {
    fn at(job: &JobDir) -> Served {
        Served { door: AgentDoor::of(job), answered: 0, refused: 0, is_shut: false }
    }

    fn close(&self, epoch: u64) {
        if let Err(error) = self.door.close() {
            tracing::warn!(epoch, %error, "an agent's door could not be shut");
        }
    }
}
