//! Money: nothing exceeds a cap, nothing is booked twice, every balance is the sum of its postings.

use dispatch_core::policy::window::{Balance, Window, WindowKey};
use proptest::prelude::*;

use super::*;

fn reservation(number: u128, task: u32, nth: u32, amount: &str) -> NewReservation {
    NewReservation {
        id: Uuid::from_u128(number),
        key: key(task),
        nth,
        amount: usd(amount),
        windows: windows(task),
        payer: Payer::Here,
    }
}

/// A ledger that knows the tasks these tests reserve for.
fn desk() -> Desk {
    let mut desk = super::desk();
    for number in 0..5 {
        desk.write(|tx| tx.insert_task(&task(number))).unwrap();
    }
    desk
}

fn run_window() -> WindowKey {
    windows(1).run
}

fn held(ledger: &Ledger) -> (String, String) {
    let balance = ledger.balance(&run_window()).unwrap();
    (balance.reserved.to_string(), balance.spent.to_string())
}

#[test]
fn a_reservation_counts_at_once_in_every_window() {
    let mut desk = desk();
    let made = desk.write(|tx| tx.reserve_within(&reservation(1, 1, 1, "2.50"), &caps("5", "100"))).unwrap();
    assert_eq!(made, Reserving::Reserved);
    let expected = Balance { reserved: usd("2.5"), spent: Usd::ZERO };
    for (_, balance) in desk.ledger.balances(&windows(1)).unwrap().iter() {
        assert_eq!(*balance, expected);
    }
    let row = desk.ledger.reservation(Uuid::from_u128(1)).unwrap().unwrap();
    assert_eq!((row.key, row.nth, row.amount, row.closed_at), (key(1), 1, usd("2.5"), None));
}

#[test]
fn a_window_without_room_is_named_and_nothing_is_set_aside_anywhere() {
    let mut desk = desk();
    let made = desk.write(|tx| tx.reserve_within(&reservation(1, 1, 1, "6"), &caps("10", "5"))).unwrap();
    assert!(matches!(made, Reserving::WouldExceed { window, .. } if window == windows(1).month));
    assert_eq!(desk.ledger.windows().unwrap(), []);
    assert_eq!(desk.ledger.open_reservations().unwrap(), []);
    let exactly = desk.write(|tx| tx.reserve_within(&reservation(1, 1, 1, "5"), &caps("10", "5"))).unwrap();
    assert_eq!(exactly, Reserving::Reserved);
}

#[test]
fn money_is_set_aside_only_for_a_task_that_is_there_and_once_for_each_attempt() {
    let mut desk = desk();
    let unknown = desk.write(|tx| tx.reserve_within(&reservation(1, 99, 1, "1"), &caps("10", "10")));
    assert!(matches!(unknown, Err(LedgerError::UnknownTask { .. })));
    assert_eq!(desk.ledger.windows().unwrap(), []);
    let made = desk.write(|tx| tx.reserve_within(&reservation(1, 1, 1, "1"), &caps("10", "10"))).unwrap();
    assert_eq!(made, Reserving::Reserved);
    let again =
        desk.write(|tx| tx.reserve_within(&reservation(2, 1, 1, "1"), &caps("10", "10"))).unwrap_err();
    assert_eq!(again.disposition(), Disposition::Quarantine);
}

#[test]
fn a_closed_window_takes_nothing_more_and_still_settles() {
    let mut desk = desk();
    let caps = caps("10", "10");
    let made = desk.write(|tx| tx.reserve_within(&reservation(1, 1, 1, "1"), &caps)).unwrap();
    assert_eq!(made, Reserving::Reserved);
    desk.write(|tx| tx.close_window(&run_window(), "done with it")).unwrap();
    let refused = desk.write(|tx| tx.reserve_within(&reservation(2, 2, 1, "1"), &caps)).unwrap();
    assert_eq!(refused, Reserving::Closed { window: run_window() });
    assert_eq!(
        desk.write(|tx| tx.settle(Uuid::from_u128(1), usd("1"), CostBasis::Reserved)).unwrap(),
        Closing::Now
    );
    assert_eq!(held(&desk.ledger), ("0".to_owned(), "1".to_owned()));
}

#[test]
fn settling_twice_changes_nothing() {
    let mut desk = desk();
    let id = Uuid::from_u128(1);
    let made = desk.write(|tx| tx.reserve_within(&reservation(1, 1, 1, "2"), &caps("5", "5"))).unwrap();
    assert_eq!(made, Reserving::Reserved);
    assert_eq!(desk.write(|tx| tx.settle(id, usd("0.7"), CostBasis::Reported)).unwrap(), Closing::Now);
    let after = (
        held(&desk.ledger),
        desk.ledger.postings(&PostingFilter { limit: 100, ..PostingFilter::default() }).unwrap(),
    );
    assert_eq!(after.0, ("0".to_owned(), "0.7".to_owned()));
    assert_eq!(desk.write(|tx| tx.settle(id, usd("0.9"), CostBasis::Derived)).unwrap(), Closing::Before);
    assert_eq!(desk.write(|tx| tx.release(id)).unwrap(), Closing::Before);
    assert_eq!(
        (
            held(&desk.ledger),
            desk.ledger.postings(&PostingFilter { limit: 100, ..PostingFilter::default() }).unwrap()
        ),
        after
    );
    let row = desk.ledger.reservation(id).unwrap().unwrap();
    assert_eq!((row.actual, row.basis), (Some(usd("0.7")), Some(CostBasis::Reported)));
}

#[test]
fn a_log_gives_out_the_newest_that_fit_and_no_more() {
    let mut desk = desk();
    for number in 1..=3 {
        let made =
            desk.write(|tx| tx.reserve_within(&reservation(number.into(), number, 1, "1"), &caps("9", "9")));
        assert_eq!(made.unwrap(), Reserving::Reserved);
    }
    let log = |filter: PostingFilter| {
        let rows = desk.ledger.postings(&filter).unwrap();
        rows.iter().map(|row| (row.key.window(), row.reservation.unwrap().as_u128())).collect::<Vec<_>>()
    };
    let month = || PostingFilter { kind: Some(Window::Month), limit: 2, ..PostingFilter::default() };
    assert_eq!(log(month()), [(Window::Month, 3), (Window::Month, 2)]);
    assert_eq!(log(PostingFilter { task: Some(key(1).id), ..month() }), [(Window::Month, 1)]);
    assert_eq!(log(PostingFilter { why: Some("settle".to_owned()), ..month() }), []);
    assert_eq!(log(PostingFilter { since: Some(now().plus_ms(1)), ..month() }), []);
    let run = PostingFilter { window: Some(run_window()), limit: 9, ..PostingFilter::default() };
    assert_eq!(log(run).len(), 3, "a window by its key");
}

#[test]
fn an_actual_above_the_reservation_is_booked_as_it_is() {
    let mut desk = desk();
    let made = desk.write(|tx| tx.reserve_within(&reservation(1, 1, 1, "2"), &caps("5", "5"))).unwrap();
    assert_eq!(made, Reserving::Reserved);
    assert_eq!(
        desk.write(|tx| tx.settle(Uuid::from_u128(1), usd("7"), CostBasis::Reported)).unwrap(),
        Closing::Now
    );
    assert_eq!(held(&desk.ledger), ("0".to_owned(), "7".to_owned()));
    desk.ledger.verify_money().unwrap();
}

#[test]
fn what_is_finer_than_a_millionth_is_rounded_up() {
    let mut desk = desk();
    let made = desk.write(|tx| tx.reserve_within(&reservation(1, 1, 1, "2"), &caps("5", "5"))).unwrap();
    assert_eq!(made, Reserving::Reserved);
    let fine = Usd::from_decimal(rust_decimal::Decimal::new(10_000_001, 10));
    assert_eq!(
        desk.write(|tx| tx.settle(Uuid::from_u128(1), fine, CostBasis::Reported)).unwrap(),
        Closing::Now
    );
    assert_eq!(held(&desk.ledger).1, "0.001001");
}

#[test]
fn the_next_attempt_is_reserved_in_the_transaction_that_settles_the_last() {
    let mut desk = desk();
    let caps = caps("3", "3");
    let made = desk.write(|tx| tx.reserve_within(&reservation(1, 1, 1, "2"), &caps)).unwrap();
    assert_eq!(made, Reserving::Reserved);
    let next = desk.write(|tx| {
        assert_eq!(tx.settle(Uuid::from_u128(1), usd("0.5"), CostBasis::Reported)?, Closing::Now);
        tx.reserve_within(&reservation(2, 1, 2, "2"), &caps)
    });
    assert_eq!(next.unwrap(), Reserving::Reserved);
    assert_eq!(held(&desk.ledger), ("2".to_owned(), "0.5".to_owned()));
}

#[test]
fn raising_what_was_spent_never_lowers_it() {
    let mut desk = desk();
    let month = windows(1).month;
    assert_eq!(
        desk.write(|tx| tx.raise_spent(&month, usd("12.5"), CostBasis::Reserved)).unwrap(),
        usd("12.5")
    );
    assert_eq!(desk.write(|tx| tx.raise_spent(&month, usd("10"), CostBasis::Reserved)).unwrap(), Usd::ZERO);
    assert_eq!(desk.ledger.balance(&month).unwrap().spent, usd("12.5"));
    desk.ledger.verify_money().unwrap();
}

#[test]
fn spending_is_summed_by_the_hour() {
    let mut desk = desk();
    for (number, hours) in [(1, 0), (2, 0), (3, 2)] {
        let at = now().plus_ms(hours * 3_600_000 + 60_000);
        let new = reservation(u128::from(number), number, 1, "1");
        desk.ledger
            .write(Fence::of(1), at, |tx| {
                assert_eq!(tx.reserve_within(&new, &caps("9", "9"))?, Reserving::Reserved);
                tx.settle(new.id, usd("0.25"), CostBasis::Reported)
            })
            .map(|closing| assert_eq!(closing, Closing::Now))
            .unwrap();
    }
    let series = desk.ledger.spend_series(&windows(1).month, now(), 3_600_000).unwrap();
    let bucket =
        |hours: i64, spent: &str| SpendBucket { start: now().plus_ms(hours * 3_600_000), spent: usd(spent) };
    assert_eq!(series, [bucket(0, "0.5"), bucket(2, "0.25")]);
}

#[test]
fn runs_of_a_day_are_not_counted_as_named_runs() {
    let mut desk = desk();
    let named = |run: &str| WindowKey::parse(&format!("run:devbox/{run}")).unwrap();
    for window in [named("a"), named("b"), run_window(), WindowKey::parse("run:devbox2/c").unwrap()] {
        desk.write(|tx| tx.close_window(&window, "test")).unwrap();
    }
    assert_eq!(desk.ledger.runs_opened(&node("devbox"), now()).unwrap(), 2);
    assert_eq!(desk.ledger.runs_opened(&node("devbox"), now().plus_ms(1)).unwrap(), 0);
}

/// One step of the property below.
#[derive(Clone, Debug)]
enum Step {
    Reserve { task: u32, cents: i64 },
    Settle { nth: usize, cents: i64 },
    Release { nth: usize },
    Abort { task: u32, cents: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4_u32, 0..400_i64).prop_map(|(task, cents)| Step::Reserve { task, cents }),
        2 => (0..20_usize, 0..300_i64).prop_map(|(nth, cents)| Step::Settle { nth, cents }),
        1 => (0..20_usize).prop_map(|nth| Step::Release { nth }),
        1 => (0..4_u32, 0..400_i64).prop_map(|(task, cents)| Step::Abort { task, cents }),
    ]
}

fn cents(amount: i64) -> Usd {
    Usd::from_decimal(rust_decimal::Decimal::new(amount, 2))
}

/// What the ledger should hold: open reservations in cents, and what was spent.
#[derive(Default)]
struct Model {
    made: Vec<(Uuid, i64)>,
    open: std::collections::BTreeMap<Uuid, i64>,
    spent: i64,
}

impl Model {
    const CAP: i64 = 1_000;

    fn committed(&self) -> i64 {
        self.open.values().sum::<i64>() + self.spent
    }

    fn close(&mut self, desk: &mut Desk, nth: usize, actual: Option<i64>) {
        let Some((id, amount)) = self.made.get(nth % self.made.len().max(1)).copied() else { return };
        // Nothing ever costs more than was set aside, here: that is the case in which the cap must hold.
        let actual = actual.map(|actual| actual.min(amount));
        let closing = desk
            .write(|tx| match actual {
                Some(actual) => tx.settle(id, cents(actual), CostBasis::Reported),
                None => tx.release(id),
            })
            .unwrap();
        let was_open = self.open.remove(&id).is_some();
        assert_eq!(closing == Closing::Now, was_open);
        if was_open {
            self.spent += actual.unwrap_or(0);
        }
    }

    fn reserve(&mut self, desk: &mut Desk, task: u32, amount: i64) {
        let new = NewReservation {
            id: Uuid::from_u128(u128::try_from(self.made.len()).unwrap() + 1),
            key: key(task),
            nth: u32::try_from(self.made.len()).unwrap() + 1,
            amount: cents(amount),
            windows: windows(task),
            payer: Payer::Here,
        };
        let answer = desk.write(|tx| tx.reserve_within(&new, &caps("10", "10"))).unwrap();
        assert_eq!(answer == Reserving::Reserved, self.committed() + amount <= Self::CAP);
        if answer == Reserving::Reserved {
            self.made.push((new.id, amount));
            self.open.insert(new.id, amount);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// No interleaving of reservations, settlements, releases and transactions that fail passes a cap, and every
    /// balance is the sum of its postings, also after the ledger is opened again.
    #[test]
    fn concurrent_reservations_never_exceed_cap(steps in proptest::collection::vec(step(), 1..40)) {
        let mut desk = desk();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Reserve { task, cents } => model.reserve(&mut desk, task, cents),
                Step::Settle { nth, cents } => model.close(&mut desk, nth, Some(cents)),
                Step::Release { nth } => model.close(&mut desk, nth, None),
                Step::Abort { task, cents: amount } => {
                    let new = reservation(u128::MAX, task, 99, "0");
                    let failed = desk.write(|tx| {
                        let answer = tx.reserve_within(&NewReservation { amount: cents(amount), ..new }, &caps("10", "10"))?;
                        drop(answer);
                        tx.release(Uuid::from_u128(0))
                    });
                    let unknown = matches!(failed, Err(LedgerError::UnknownReservation { .. }));
                    prop_assert!(unknown);
                }
            }
            let balance = desk.ledger.balance(&windows(1).month).unwrap();
            prop_assert_eq!(balance.spent, cents(model.spent));
            prop_assert_eq!(balance.committed(), Some(cents(model.committed())));
            prop_assert!(model.committed() <= Model::CAP);
            desk.ledger.verify_money().unwrap();
        }
        let path = desk.path();
        drop(desk.ledger);
        let again = Ledger::open(&path).unwrap();
        prop_assert_eq!(again.open_reservations().unwrap().len(), model.open.len());
    }
}

#[test]
fn a_branch_holds_what_its_task_and_every_task_below_it_cost() {
    let mut desk = super::desk();
    for (number, parent) in [(1, None), (2, Some(1)), (3, Some(2)), (4, None)] {
        let new = NewTask { parent: parent.map(|parent| key(parent).id), ..task(number) };
        desk.write(|tx| tx.insert_task(&new)).unwrap();
    }
    for (number, amount) in [(1, "1"), (2, "2"), (3, "4"), (4, "8")] {
        let made = desk.write(|tx| {
            tx.reserve_within(&reservation(u128::from(number), number, 1, amount), &caps("100", "100"))
        });
        assert_eq!(made.unwrap(), Reserving::Reserved);
    }
    let branch = |desk: &Desk, number| desk.ledger.branch_committed(key(number).id).unwrap();
    assert_eq!((branch(&desk, 1), branch(&desk, 2), branch(&desk, 4)), (usd("7"), usd("6"), usd("8")));
    let settled = desk.write(|tx| tx.settle(Uuid::from_u128(3), usd("0.5"), CostBasis::Reported)).unwrap();
    let released = desk.write(|tx| tx.release(Uuid::from_u128(2))).unwrap();
    assert_eq!((settled, released), (Closing::Now, Closing::Now));
    assert_eq!((branch(&desk, 1), branch(&desk, 2)), (usd("1.5"), usd("0.5")));
}
