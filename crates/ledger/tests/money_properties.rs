//! The ledger's money over random histories, against books that are kept here by hand: windows by their names, amounts in
//! millionths as whole numbers. A crash is what the disk holds while the ledger is open, opened again elsewhere.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dispatch_core::policy::admission::{Billing, Cost};
use dispatch_core::policy::budget::{Admits, admits_for};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::{Balance, Caps, Payer, RunName, WindowKey, WindowKeys};
use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::parts::CostBasis;
use dispatch_core::protocol::task::Priority;
use dispatch_core::protocol::time::{DAY_MS, Timestamp};
use dispatch_ledger::{
    Birth, ChainCheck, Closing, Fence, Ledger, LedgerError, NewBoot, NewReservation, NewTask, PostingFilter,
    PostingRow, ReservationRow, Reserving, TaskKey, Terms, Tx, Whole, WindowRow,
};
use proptest::prelude::*;
use rust_decimal::Decimal;
use tempfile::TempDir;
use uuid::Uuid;

/// Histories that share a ledger, each in months, runs and trees of its own.
const SHARED_BY: u32 = 50;
const SENDERS: [&str; 2] = ["devbox", "laptop"];
/// Days of a history: two of a month, one of the next.
const DAYS: usize = 3;

/// A ledger, held by boot 1, on a disk that is a part of memory where there is one.
struct Desk {
    directory: TempDir,
    ledger: Ledger,
    used: u32,
    crashes: u32,
}

thread_local! {
    static DESK: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

impl Desk {
    fn new() -> Desk {
        let memory = Path::new("/dev/shm");
        let directory =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let birth = Birth {
            ledger: Uuid::from_u128(1),
            cluster: Uuid::from_u128(2),
            node: NodeName::new("gpubox").unwrap(),
            chain: Uuid::from_u128(3),
            whole: Whole::Yes,
            accept_after: None,
        };
        let now = Timestamp::parse("2026-01-01T00:00:00.000Z").unwrap();
        let mut ledger = Ledger::create(&directory.path().join("ledger.db"), &birth, now).unwrap();
        let instance = Uuid::from_u128(4);
        let boot = NewBoot { boot: 1, instance, host_boot_id: "host".to_owned(), dev: 1, ino: 1 };
        ledger.write(Fence::NONE, now, |tx| tx.note_boot(&boot)).unwrap();
        ledger.write(Fence::NONE, now, |tx| tx.hold_boot(1, instance)).unwrap();
        Desk { directory, ledger, used: 0, crashes: 0 }
    }

    /// The power goes: what has reached the disk by now is all there is.
    fn crash(&mut self) {
        self.crashes += 1;
        let to = self.directory.path().join(format!("after-{}", self.crashes));
        fs::create_dir(&to).unwrap();
        let path = self.ledger.path().to_owned();
        for name in ["ledger.db", "ledger.db-wal"] {
            let from = path.with_file_name(name);
            if from.exists() {
                fs::copy(from, to.join(name)).unwrap();
            }
        }
        self.ledger = Ledger::open(&to.join("ledger.db")).unwrap();
    }

    /// Everything that a look at the whole ledger checks.
    fn holds(&self) {
        self.ledger.verify_file().unwrap();
        self.ledger.verify_money().unwrap();
        assert!(matches!(self.ledger.verify_chain().unwrap(), ChainCheck::Intact { .. }));
    }
}

/// Runs one history on the ledger of this thread.
fn on_a_desk(history: impl FnOnce(&mut Desk, u32)) {
    DESK.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|desk| desk.used == SHARED_BY) {
            if let Some(desk) = kept.take() {
                desk.holds();
            }
            *kept = Some(Desk::new());
        }
        let desk = kept.as_mut().unwrap();
        desk.used += 1;
        let number = desk.used;
        history(desk, number);
    });
}

/// What a step asks for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    sender: usize,
    run: Option<usize>,
    root: u32,
    day: usize,
    micros: i64,
    payer: Payer,
}

#[derive(Clone, Debug)]
enum Step {
    /// A task is taken: its windows are asked and its money is set aside in one transaction.
    Admit(Asked),
    /// Money is set aside without asking before: the ledger looks at the windows itself.
    Reserve(Asked),
    /// A reservation is closed, perhaps one that was closed before: at so many thousandths of it, or given back.
    Close(usize, Option<i64>),
    /// An attempt is settled and the next one reserved in the same transaction.
    Again(usize, i64),
    /// Such steps in one transaction.
    Together(Vec<Step>),
    /// Such steps in a transaction that does not come to its end.
    Lost(Vec<Step>),
    /// The power goes.
    Crash,
}

fn asked() -> impl Strategy<Value = Asked> {
    let payer = prop_oneof![4 => Just(Payer::Here), 1 => Just(Payer::Elsewhere)];
    (0..2_usize, prop::option::of(0..2_usize), 0..2_u32, 0..DAYS, 1..4_000_000_i64, payer)
        .prop_map(|(sender, run, root, day, micros, payer)| Asked { sender, run, root, day, micros, payer })
}

/// `most`: the most that is charged, in thousandths of what was set aside.
fn step(most: i64) -> impl Strategy<Value = Step> {
    let plain = move || {
        prop_oneof![
            3 => asked().prop_map(Step::Admit),
            2 => asked().prop_map(Step::Reserve),
            3 => (0..12_usize, prop::option::of(0..=most)).prop_map(|(which, part)| Step::Close(which, part)),
            1 => (0..12_usize, 0..=most).prop_map(|(which, part)| Step::Again(which, part)),
        ]
    };
    prop_oneof![
        40 => prop::collection::vec(plain(), 1..4).prop_map(Step::Together),
        4 => prop::collection::vec(plain(), 1..4).prop_map(Step::Lost),
        1 => Just(Step::Crash),
    ]
}

fn history(most: i64) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(most), 1..5)
}

/// For run, day, month, sender and tree, in millionths.
type PlainCaps = [Option<i64>; 5];

fn caps() -> impl Strategy<Value = PlainCaps> {
    let optional = || prop::option::of(0..8_000_000_i64);
    (0..8_000_000_i64, optional(), 0..12_000_000_i64, optional(), optional())
        .prop_map(|(run, day, month, sender, tree)| [Some(run), day, Some(month), sender, tree])
}

fn usd(micros: i64) -> Usd {
    Usd::from_decimal(Decimal::new(micros, 6))
}

fn micros(amount: Usd) -> i64 {
    let scaled = (amount.decimal() * Decimal::from(1_000_000)).normalize();
    assert_eq!(scaled.scale(), 0);
    i64::try_from(scaled.mantissa()).unwrap()
}

/// One history with its own names and its caps.
#[derive(Clone, Copy, Debug)]
struct Case {
    number: u32,
    caps: PlainCaps,
}

impl Case {
    fn caps(&self) -> Caps {
        let [run, day, month, sender, tree] = self.caps.map(|cap| cap.map(usd));
        Caps { run: run.unwrap(), day, month: month.unwrap(), sender, tree }
    }

    fn task(&self, place: u32) -> TaskKey {
        let id = (u128::from(self.number) << 16) | u128::from(place);
        let id = Uuid::from_u128(0x01a1_f89c_fb83_734b_96bb_0000_0000_0000 + id);
        TaskKey { from: NodeName::new("devbox").unwrap(), id: TaskId::from_uuid(id) }
    }

    /// A day and its month. Each history has two months of its own: its last day lies in the second.
    fn date(&self, day: usize) -> (String, String) {
        let (after, day) = [(0, 27), (0, 28), (1, 1)][day];
        let month = format!("{:04}-{:02}", 2026 + self.number / 6, self.number % 6 * 2 + 1 + after);
        (format!("{month}-{day:02}"), month)
    }

    fn now(&self, day: usize) -> Timestamp {
        Timestamp::parse(&format!("{}T12:00:00.000Z", self.date(day).0)).unwrap()
    }

    fn run(&self, asked: &Asked) -> Option<String> {
        asked.run.map(|run| format!("r{}-{run}", self.number))
    }

    /// The names of the windows that are asked, as the policy says them.
    fn windows(&self, asked: &Asked) -> Vec<String> {
        let (day, month) = self.date(asked.day);
        let sender = SENDERS[asked.sender];
        let run = self.run(asked).unwrap_or_else(|| format!("{day}@day"));
        let tree = format!("tree:{}", self.task(asked.root).id);
        match asked.payer {
            Payer::Here => vec![
                format!("run:{sender}/{run}"),
                format!("day:{day}"),
                format!("month:{month}"),
                format!("sender:{sender}/{month}"),
                tree,
            ],
            Payer::Elsewhere => vec![tree],
        }
    }

    fn cap(&self, window: &str) -> Option<i64> {
        let (kind, _) = window.split_once(':').unwrap();
        let place = ["run", "day", "month", "sender", "tree"].iter().position(|known| *known == kind);
        self.caps[place.unwrap()]
    }

    /// The same for the ledger, whose own rule draws the windows.
    fn reservation(&self, asked: &Asked, task: &TaskKey, nth: u32, made: u32) -> NewReservation {
        let sender = NodeName::new(SENDERS[asked.sender]).unwrap();
        let run = self.run(asked).map(|run| RunName::new(&run).unwrap());
        NewReservation {
            id: Uuid::from_u128((u128::from(self.number) << 64) | u128::from(made)),
            key: task.clone(),
            nth,
            amount: usd(asked.micros),
            windows: WindowKeys::of(&sender, run.as_ref(), self.task(asked.root).id, self.now(asked.day)),
            payer: asked.payer,
        }
    }
}

/// A reservation in the books.
#[derive(Clone, Debug)]
struct Held {
    id: Uuid,
    asked: Asked,
    task: TaskKey,
    nth: u32,
    open: bool,
}

/// The books: reserved and spent by window, in millionths, and everything that was set aside.
#[derive(Clone, Default)]
struct Books {
    windows: BTreeMap<String, (i64, i64)>,
    held: Vec<Held>,
    made: u32,
}

/// Whether the rule is asked before money is set aside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    First,
    Nobody,
}

/// A step in the ledger and in the books, in one transaction with others.
struct Both<'b, 'l> {
    case: Case,
    tx: &'b mut Tx<'l>,
    books: &'b mut Books,
}

impl Both<'_, '_> {
    fn step(&mut self, step: &Step) -> Result<(), LedgerError> {
        let nth = |which: &usize, books: &Books| which.checked_rem(books.held.len());
        match step {
            Step::Admit(asked) => self.take(asked, Asks::First),
            Step::Reserve(asked) => self.take(asked, Asks::Nobody),
            Step::Close(which, part) => nth(which, self.books).map_or(Ok(()), |at| self.close(at, *part)),
            Step::Again(which, part) => {
                let Some(at) = nth(which, self.books) else { return Ok(()) };
                self.close(at, Some(*part))?;
                let Held { asked, task, .. } = self.books.held[at].clone();
                let tried = self.books.held.iter().filter(|held| held.task == task).map(|held| held.nth);
                let next = tried.max().unwrap_or(0) + 1;
                self.reserve(&asked, &task, next)
            }
            Step::Together(_) | Step::Lost(_) | Step::Crash => Ok(()),
        }
    }

    /// Whether the books have room in every window.
    fn fits(&self, asked: &Asked) -> bool {
        self.case.windows(asked).iter().all(|window| {
            let (reserved, spent) = self.books.windows.get(window).copied().unwrap_or_default();
            self.case.cap(window).is_none_or(|cap| reserved + spent + asked.micros <= cap)
        })
    }

    /// A fresh task, with its money.
    fn take(&mut self, asked: &Asked, asks: Asks) -> Result<(), LedgerError> {
        let task = self.case.task(16 + self.books.made);
        self.tx.insert_task(&new_task(&task, self.case.now(asked.day)))?;
        if asks == Asks::First {
            let new = self.case.reservation(asked, &task, 1, 0);
            let balances = self.tx.balances(&new.windows)?;
            let answer = admits_for(asked.payer, new.amount, &balances, &self.case.caps()).unwrap();
            assert_eq!(answer == Admits::WithinBudget, self.fits(asked), "{answer:?} for {asked:?}");
            if answer != Admits::WithinBudget {
                self.books.made += 1;
                return Ok(());
            }
        }
        self.reserve(asked, &task, 1)
    }

    fn reserve(&mut self, asked: &Asked, task: &TaskKey, nth: u32) -> Result<(), LedgerError> {
        let new = self.case.reservation(asked, task, nth, self.books.made);
        self.books.made += 1;
        let answer = self.tx.reserve_within(&new, &self.case.caps())?;
        let fits = self.fits(asked);
        assert_eq!(answer == Reserving::Reserved, fits, "{answer:?} for {asked:?}");
        if fits {
            for window in self.case.windows(asked) {
                self.books.windows.entry(window).or_default().0 += asked.micros;
            }
            self.books.held.push(Held { id: new.id, asked: *asked, task: task.clone(), nth, open: true });
        }
        Ok(())
    }

    fn close(&mut self, at: usize, part: Option<i64>) -> Result<(), LedgerError> {
        let held = &mut self.books.held[at];
        let actual = part.map(|part| held.asked.micros * part / 1_000);
        let closing = match actual {
            Some(actual) => self.tx.settle(held.id, usd(actual), CostBasis::Reported)?,
            None => self.tx.release(held.id)?,
        };
        assert_eq!(closing == Closing::Now, held.open, "closed once: {held:?}");
        if std::mem::replace(&mut held.open, false) {
            for window in self.case.windows(&held.asked) {
                let balance = self.books.windows.get_mut(&window).unwrap();
                *balance = (balance.0 - held.asked.micros, balance.1 + actual.unwrap_or(0));
            }
        }
        Ok(())
    }
}

/// Whether a transaction comes to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Committed,
    Lost,
}

/// Every reservation of a history, and its windows with their movements, as the ledger has them.
type Everything = (Vec<Option<ReservationRow>>, Vec<(Option<WindowRow>, Vec<PostingRow>)>);

struct Play<'d> {
    desk: &'d mut Desk,
    case: Case,
    books: Books,
}

impl Play<'_> {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Crash => self.desk.crash(),
            Step::Lost(steps) => self.transact(steps, End::Lost),
            Step::Together(steps) => self.transact(steps, End::Committed),
            Step::Admit(_) | Step::Reserve(_) | Step::Close(..) | Step::Again(..) => {
                self.transact(std::slice::from_ref(step), End::Committed);
            }
        }
    }

    /// Closes every reservation, whether it is open or not.
    fn close_all(&mut self, part: Option<i64>) {
        let steps: Vec<Step> = (0..self.books.held.len()).map(|at| Step::Close(at, part)).collect();
        self.transact(&steps, End::Committed);
    }

    /// One transaction with these steps; then the books say the same, or what they said before.
    fn transact(&mut self, steps: &[Step], end: End) {
        let (case, mut books) = (self.case, self.books.clone());
        let day = steps.iter().find_map(|step| match step {
            Step::Admit(asked) | Step::Reserve(asked) => Some(asked.day),
            Step::Close(..) | Step::Again(..) | Step::Together(_) | Step::Lost(_) | Step::Crash => None,
        });
        let answer = self.desk.ledger.write(Fence::of(1), case.now(day.unwrap_or(0)), |tx| {
            for step in steps {
                Both { case, tx, books: &mut books }.step(step)?;
            }
            match end {
                End::Committed => Ok(()),
                // Nobody made this reservation: the transaction fails with everything in it.
                End::Lost => tx.release(Uuid::from_u128(u128::MAX)).map(drop),
            }
        });
        match (answer, end) {
            (Ok(()), End::Committed) => self.books = books,
            (Err(LedgerError::UnknownReservation { .. }), End::Lost) => {}
            (answer, _) => panic!("{answer:?} for {steps:?}"),
        }
    }

    /// The ledger holds in every window what the books say.
    fn agrees(&self) {
        for (window, (reserved, spent)) in &self.books.windows {
            let balance = self.desk.ledger.balance(&WindowKey::parse(window).unwrap()).unwrap();
            let expected = Balance { reserved: usd(*reserved), spent: usd(*spent) };
            assert_eq!(balance, expected, "{window}");
        }
        for held in &self.books.held {
            let row = self.desk.ledger.reservation(held.id).unwrap().unwrap();
            assert_eq!(row.closed_at.is_none(), held.open, "{held:?}");
        }
    }

    fn never_over(&self) {
        for (window, (reserved, spent)) in &self.books.windows {
            assert!(
                self.case.cap(window).is_none_or(|cap| reserved + spent <= cap),
                "{window} is over its cap"
            );
        }
    }

    /// What the movements of a window come to: reserved and spent.
    fn postings(&self, window: &str) -> (i64, i64) {
        let key = WindowKey::parse(window).unwrap();
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        for posting in self.desk.ledger.postings(&movements(&key)).unwrap() {
            *sums.entry(posting.source).or_default() -= micros(posting.amount);
            *sums.entry(posting.target).or_default() += micros(posting.amount);
        }
        // Double entry: what is in one account came out of another.
        assert_eq!(sums.values().sum::<i64>(), 0, "{window}: {sums:?}");
        let sum = |account: &str| sums.get(account).copied().unwrap_or(0);
        (sum("reserved"), sum("spent"))
    }

    fn everything(&self) -> Everything {
        let ledger = &self.desk.ledger;
        let rows: Vec<_> = self.books.held.iter().map(|held| ledger.reservation(held.id).unwrap()).collect();
        let windows = self.books.windows.keys().map(|window| {
            let key = WindowKey::parse(window).unwrap();
            (ledger.window(&key).unwrap(), ledger.postings(&movements(&key)).unwrap())
        });
        (rows, windows.collect::<Vec<_>>())
    }
}

/// All movements of a window.
fn movements(key: &WindowKey) -> PostingFilter {
    PostingFilter { window: Some(key.clone()), limit: 1_000, ..PostingFilter::default() }
}

fn new_task(key: &TaskKey, now: Timestamp) -> NewTask {
    NewTask {
        key: key.clone(),
        digest: Digest::of(key.to_string().as_bytes()),
        envelope: Vec::new(),
        priority: Priority::Normal,
        created: now,
        expires: now.plus_ms(DAY_MS),
        run: None,
        root: key.id,
        parent: None,
        depth: 0,
        profile: "default".to_owned(),
        workspace: None,
        max_attempts: 9,
        terms: Terms {
            recipe: "{}".to_owned(),
            payload: None,
            sha256: None,
            gates: "[]".to_owned(),
            cost: Cost::default(),
            billing: Billing::Metered,
            required_approvals: 0,
        },
        first_line: String::new(),
        labels: "{}".to_owned(),
    }
}

fn played(caps: PlainCaps, then: impl FnOnce(&mut Play<'_>)) {
    on_a_desk(|desk, number| then(&mut Play { desk, case: Case { number, caps }, books: Books::default() }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing costs more than was set aside for it here: that is the case in which the cap must hold.
    #[test]
    fn no_interleaving_of_admit_reserve_settle_release_and_crash_passes_a_cap(
        caps in caps(), steps in history(1_000),
    ) {
        played(caps, |play| {
            for step in &steps {
                play.step(step);
                play.never_over();
            }
            play.agrees();
        });
    }

    #[test]
    fn settling_twice_changes_nothing_whatever_was_before_and_a_crash_between(
        caps in caps(),
        steps in history(1_500),
        again in prop::collection::vec(prop::option::of(0..3_000_i64), 1..3),
        crash in 0..16_u8,
    ) {
        played(caps, |play| {
            steps.iter().for_each(|step| play.step(step));
            play.close_all(Some(700));
            let before = play.everything();
            if crash == 0 {
                play.desk.crash();
            }
            again.iter().for_each(|part| play.close_all(*part));
            assert!(play.everything() == before, "{:?}\nwas {before:?}", play.everything());
        });
    }

    /// Also where an attempt cost more than was set aside, which is booked as it is.
    #[test]
    fn postings_sum_to_the_balances(caps in caps(), steps in history(3_000)) {
        played(caps, |play| {
            steps.iter().for_each(|step| play.step(step));
            play.agrees();
            for (window, balance) in &play.books.windows {
                assert_eq!(play.postings(window), *balance, "{window}");
            }
        });
    }
}
