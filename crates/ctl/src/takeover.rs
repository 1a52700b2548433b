//! Taking ownership of a node whose ledger was lost, or is older than what the node already showed (protocol section 7).
//!
//! It can be repeated after a crash at any point: until the last transaction the ledger is not whole, and a watcher
//! refuses it. The order is the protocol's: note the instance, publish the boot record (from then on any other watcher
//! of this node stops), take every job's lock and revoke what has no outcome, then one transaction for all the rest.

mod jobs;
mod settle;
mod shown;

use dispatch_core::planner::ownership::{Known, foreign, next_boot};
use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::BootRecord;
use dispatch_core::protocol::keys::SealingKey;
use dispatch_core::protocol::limits::SKEW_MS;
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::seal::seal;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{Fence, Ledger, NewBoot, ShownHead, Whole};
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::ids;
use dispatch_node::keys::Keys;
use dispatch_node::report::{Exit, Report};
use dispatch_node::state::WatchLock;
use dispatch_spool::{File, PosixShare, Published, Share as _};
use uuid::Uuid;

use crate::context::share;
use settle::Closing;
pub(crate) use shown::Shows;

/// Most starts that are compared: more than a node has in its life.
const STARTS_MAX: usize = 1_000_000;

/// Why, and what a person said with it.
pub(crate) struct Why<'a> {
    /// The person's reason, for the audit.
    pub(crate) reason: &'a str,
    /// What the month has spent at least, as a person says.
    pub(crate) month_spent: Option<Usd>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) boot: u64,
    pub(crate) accept_after: Timestamp,
    pub(crate) attempts_revoked: usize,
    pub(crate) tasks_unknown: usize,
    /// What was added to the month's spend.
    pub(crate) month_raised: Usd,
    /// True: nobody knows what this month spent, so nothing paid starts before the next.
    pub(crate) paid_off: bool,
}

impl Taken {
    /// What a person is told.
    pub(crate) fn text(&self) -> String {
        let money = if self.paid_off {
            "What this month has spent is not known: paid work is off until the next month.".to_owned()
        } else {
            format!(
                "The month's spend was raised by {} USD; paid work starts again tomorrow.",
                self.month_raised
            )
        };
        format!(
            "boot {} owns the node; tasks made before {} are answered `unknown`.\n\
             {} tasks that were not done ended `unknown`, {} attempts were revoked.\n{money}",
            self.boot, self.accept_after, self.tasks_unknown, self.attempts_revoked
        )
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "boot": self.boot,
            "accept_after": self.accept_after.to_string(),
            "attempts_revoked": self.attempts_revoked,
            "tasks_unknown": self.tasks_unknown,
            "month_raised_usd": self.month_raised.to_string(),
            "paid_work_off": self.paid_off,
        })
    }
}

/// A node whose ledger is open and whose lock is held.
pub(crate) struct Takeover<'a> {
    config: &'a Config,
    share: PosixShare,
    keys: Keys,
    lock: &'a WatchLock,
}

impl<'a> Takeover<'a> {
    /// Begins: keys are read, nothing is written.
    pub(crate) fn of(config: &'a Config, lock: &'a WatchLock) -> Result<Takeover<'a>, Report> {
        let keys = Keys::load(config)?;
        if !keys.iter().any(|(_, ring)| ring.signing().is_some()) {
            return Err(Report::new(Exit::Config, "no peer with a pair key is configured")
                .help("a boot record must be sealed for somebody: add a peer with its keys first"));
        }
        Ok(Takeover { config, share: share(config), keys, lock })
    }

    /// What this node already showed, by its own heartbeat and its peers'.
    pub(crate) fn shows(&self) -> Result<Shows, Report> {
        shown::look(self)
    }

    /// Takes ownership with this ledger and makes it whole.
    pub(crate) fn take(&self, ledger: &mut Ledger, why: &Why<'_>) -> Result<Taken, Report> {
        let shows = self.shows()?;
        let newer = self.newer_head(ledger, &shows)?;
        let instance = ids::uuid_v4()?;
        let boot = self.note(ledger, instance)?;
        self.publish(ledger, boot, instance)?;
        let attempts_revoked = jobs::revoke_all(&self.config.state)?;
        let now = clock::now();
        let accept_after = now.plus_ms(SKEW_MS);
        let chain = ids::uuid_v4()?;
        let closing = Closing { config: self.config, shows: &shows, why, now };
        let (tasks_unknown, carried) = ledger.write(Fence::NONE, now, |tx| {
            tx.set_accept_after(accept_after)?;
            tx.begin_new_chain(chain, None, why.reason, newer.as_ref())?;
            tx.hold_boot(boot, instance)?;
            let tasks = settle::end_all(tx, &closing)?;
            let carried = settle::carry_over(tx, &closing)?;
            tx.set_recovery(None)?;
            tx.set_whole(Whole::Yes)?;
            Ok((tasks, carried))
        })?;
        Ok(Taken {
            boot,
            accept_after,
            attempts_revoked,
            tasks_unknown,
            month_raised: carried.raised,
            paid_off: carried.paid_off,
        })
    }

    /// The head that proves this ledger older than its node; for the audit.
    pub(crate) fn newer_head(&self, ledger: &Ledger, shows: &Shows) -> Result<Option<ShownHead>, Report> {
        let meta = ledger.meta()?;
        if let Some(noted) = meta.recovery {
            return Ok(Some(noted));
        }
        Ok(shows.newer_than(ledger, meta.head.chain, clock::now())?)
    }

    /// Whether the share shows a start of this node's watcher that this ledger never noted, above every one it held.
    pub(crate) fn is_owned_by_stranger(&self, ledger: &Ledger) -> Result<bool, Report> {
        let instances = ledger.boots(STARTS_MAX)?.into_iter().map(|row| row.boot.instance).collect();
        let known = Known { highest_held: ledger.highest_held()?.unwrap_or(0), instances };
        Ok(foreign(&shown::boot_records(self)?, &known).is_some())
    }

    /// Notes the new start; from here until the last transaction no watcher takes this ledger.
    fn note(&self, ledger: &mut Ledger, instance: Uuid) -> Result<u64, Report> {
        let records = shown::boot_records(self)?;
        let known = Known { highest_held: ledger.highest_held()?.unwrap_or(0), instances: Vec::new() };
        let now = clock::now();
        let seconds = u64::try_from(now.unix_ms().div_euclid(1_000)).unwrap_or(0);
        let boot = next_boot(&records, &known, seconds);
        let (dev, ino) = self.lock.device_and_inode()?;
        let host_boot_id = clock::host_boot_id()?.to_string();
        ledger.write(Fence::NONE, now, |tx| {
            tx.set_whole(Whole::No)?;
            tx.note_boot(&NewBoot { boot, instance, host_boot_id, dev, ino })
        })?;
        Ok(boot)
    }

    fn publish(&self, ledger: &Ledger, boot: u64, instance: Uuid) -> Result<(), Report> {
        let record = BootRecord {
            cluster: self.config.cluster,
            node: self.config.node.clone(),
            ledger: ledger.meta()?.ledger,
            boot,
            instance,
            host_boot_id: clock::host_boot_id()?,
            at: clock::now(),
        };
        let keys: Vec<&dyn SealingKey> = self
            .keys
            .iter()
            .filter_map(|(_, ring)| ring.signing())
            .map(|key| -> &dyn SealingKey { key })
            .collect();
        let sealed = seal(Kind::Boot, &record.to_payload(), &keys);
        let file = File::Boot(self.config.node.clone(), boot);
        let (Published::Created | Published::AlreadyPresent) = self.share.publish_once(&file, &sealed)?;
        Ok(())
    }
}
