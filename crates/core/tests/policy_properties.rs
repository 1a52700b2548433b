//! The rules against plain references, and invariants over random histories.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use dispatch_core::policy::admission::{
    Admission, BackendFacts, Billing, BudgetView, Look, PaidWork, Proposal, RUNS_PER_DAY, Refusal,
    RefusalCode, Reservation, RunStanding,
};
use dispatch_core::policy::budget;
use dispatch_core::policy::dec::Dec;
use dispatch_core::policy::eval::answer;
use dispatch_core::policy::gate::{GateLimits, PeerGate};
use dispatch_core::policy::lineage::Lineage;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::safeguards::{self, RobustMethod};
use dispatch_core::policy::window::{
    Balance, Balances, Caps, Payer, PerWindow, RunName, WhenFull, Window, WindowKey, WindowKeys,
};
use dispatch_core::policy::{admission, routing};
use dispatch_core::protocol::names::{NodeName, TaskId};
use dispatch_core::protocol::time::{DAY_MS, Timestamp};
use proptest::prelude::*;
use rust_decimal::{Decimal, RoundingStrategy};

fn cents(count: i64) -> Usd {
    Usd::from_decimal(Decimal::new(count, 2))
}

fn id(number: u8) -> TaskId {
    TaskId::parse(&format!("01a1f89c-fb83-734b-96bb-78a1dacaf1{number:02x}")).unwrap()
}

/// A paid task with nothing that gates it.
fn proposal(estimate: Usd) -> Proposal<'static> {
    Proposal {
        id: id(0),
        lineage: Lineage::of_root(id(0)),
        parent: None,
        depth_max: 8,
        comes_back: false,
        branch_left: None,
        require_ack: false,
        require_dangerous: false,
        dangerous_allowed: false,
        metered_allowed: true,
        peer_gate: PeerGate::Policy,
        gate_limits: GateLimits { gate_above_usd: cents(1_000_000), gate_depth: 1 },
        backend: Some(BackendFacts::LOCAL),
        billing: Billing::Metered,
        task_max_cost_usd: None,
        profile_max_cost_usd: Some(estimate),
        approved_max_cost_usd: None,
        overshoot_usd: Some(Usd::ZERO),
    }
}

/// The windows as a ledger keeps them.
#[derive(Default)]
struct Book {
    balances: BTreeMap<WindowKey, Balance>,
    open: Vec<Reservation>,
}

impl Book {
    fn view(&self, keys: WindowKeys, caps: Caps) -> BudgetView {
        let balances: Balances = keys.map(|key| self.balances.get(key).copied().unwrap_or_default());
        BudgetView {
            keys,
            balances,
            caps,
            run: RunStanding::Open,
            runs_per_day: RUNS_PER_DAY,
            paid_work: PaidWork::Open,
        }
    }

    fn change(&mut self, windows: &WindowKeys, change: impl Fn(Balance) -> Balance) {
        for (_, key) in windows.iter() {
            let balance = self.balances.entry(key.clone()).or_default();
            *balance = change(*balance);
        }
    }

    fn reserve(&mut self, reservation: Reservation) {
        self.change(&reservation.windows, |balance| budget::reserve(balance, reservation.amount).unwrap());
        self.open.push(reservation);
    }

    fn overdrawn(&self, caps: &Caps) -> Option<String> {
        self.balances.iter().find_map(|(key, balance)| {
            let cap = caps.get(key.window())?;
            let committed = balance.committed().unwrap();
            (committed > cap).then(|| format!("{key}: {committed} > {cap}"))
        })
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit { sender: usize, run: Option<usize>, root: u8, day: i64, cents: i64 },
    Settle { which: usize, permille: i64 },
    Release { which: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..2_usize, prop::option::of(0..2_usize), 0..2_u8, 0..40_i64, 1..400_i64)
            .prop_map(|(sender, run, root, day, cents)| Step::Admit { sender, run, root, day, cents }),
        1 => (0..8_usize, 0..=1_000_i64).prop_map(|(which, permille)| Step::Settle { which, permille }),
        1 => (0..8_usize).prop_map(|which| Step::Release { which }),
    ]
}

fn caps() -> impl Strategy<Value = Caps> {
    let optional = || prop::option::of((0..1_500_i64).prop_map(cents));
    ((0..1_000_i64).prop_map(cents), (0..2_000_i64).prop_map(cents), optional(), optional(), optional())
        .prop_map(|(run, month, day, sender, tree)| Caps { run, day, month, sender, tree })
}

fn take_step(book: &mut Book, step: &Step, caps: Caps) {
    let start = Timestamp::parse("2026-11-10T10:00:00.000Z").unwrap();
    match step {
        Step::Admit { sender, run, root, day, cents: amount } => {
            let sender = NodeName::new(["devbox", "laptop"][*sender]).unwrap();
            let run = run.map(|at| RunName::new(["nightly", "release"][at]).unwrap());
            let keys = WindowKeys::of(&sender, run.as_ref(), id(*root), start.plus_ms(day * DAY_MS));
            let view = book.view(keys, caps);
            if let Admission::Queue { reservation: Some(reservation), .. } =
                admission::admit(&proposal(cents(*amount)), &view, Look::Acceptance)
            {
                book.reserve(reservation);
            }
        }
        Step::Settle { which, permille } if !book.open.is_empty() => {
            let closed = book.open.swap_remove(which % book.open.len());
            let part = closed.amount.decimal() * Decimal::new(*permille, 3);
            let actual = Usd::from_decimal(part);
            book.change(&closed.windows, |balance| {
                budget::reconcile(balance, closed.amount, actual).unwrap()
            });
        }
        Step::Release { which } if !book.open.is_empty() => {
            let closed = book.open.swap_remove(which % book.open.len());
            book.change(&closed.windows, |balance| budget::release(balance, closed.amount).unwrap());
        }
        Step::Settle { .. } | Step::Release { .. } => {}
    }
}

fn nine_places(value: Decimal) -> String {
    let rounded = value.round_dp_with_strategy(9, RoundingStrategy::MidpointNearestEven).normalize();
    if rounded.is_zero() { "0".to_owned() } else { rounded.to_string() }
}

fn thousandths(count: i64) -> (Dec, Decimal) {
    (Dec::from_units(i128::from(count) * 1_000_000_000), Decimal::new(count, 3))
}

fn series() -> impl Strategy<Value = Vec<i64>> {
    prop::collection::vec(prop_oneof![Just(0_i64), 0..20_i64, 0..2_000_000_i64], 2..12)
}

fn split(points: &[i64]) -> (Vec<Dec>, Decimal, Vec<Decimal>) {
    let decs = points.iter().map(|point| thousandths(*point).0).collect();
    let mut plain: Vec<Decimal> = points.iter().map(|point| thousandths(*point).1).collect();
    let last = plain.pop().unwrap();
    (decs, last, plain)
}

fn plain_median(values: &[Decimal]) -> Decimal {
    let mut sorted = values.to_vec();
    sorted.sort();
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / Decimal::TWO }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn concurrent_reservations_never_exceed_cap(
        caps in caps(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut book = Book::default();
        for step in &steps {
            take_step(&mut book, step, caps);
            prop_assert_eq!(book.overdrawn(&caps), None, "after {:?}", step);
        }
        // Everything closed: nothing stays reserved.
        for closed in std::mem::take(&mut book.open) {
            book.change(&closed.windows, |balance| budget::release(balance, closed.amount).unwrap());
        }
        prop_assert!(book.balances.values().all(|balance| balance.reserved == Usd::ZERO));
    }

    #[test]
    fn a_paid_task_is_queued_with_a_reservation_or_told_which_window_is_full(
        caps in caps(),
        spent in prop::collection::vec(0..2_000_i64, 5),
        amount in 1..1_000_i64,
    ) {
        let at = |place: usize| Balance { reserved: Usd::ZERO, spent: cents(spent[place]) };
        let balances =
            PerWindow { run: at(0), day: at(1), month: at(2), sender: at(3), tree: at(4) };
        let now = Timestamp::parse("2026-11-10T10:00:00.000Z").unwrap();
        let keys = WindowKeys::of(&NodeName::new("devbox").unwrap(), None, id(0), now);
        let view = BudgetView { balances, ..Book::default().view(keys.clone(), caps) };
        let full = Window::ALL.into_iter().enumerate().find_map(|(place, window)| {
            (cents(spent[place] + amount) > caps.get(window)?).then_some(window)
        });
        match admission::admit(&proposal(cents(amount)), &view, Look::Acceptance) {
            Admission::Queue { reservation, .. } => {
                prop_assert_eq!(full, None);
                prop_assert_eq!(reservation, Some(Reservation { windows: keys, amount: cents(amount), payer: Payer::Here }));
            }
            Admission::WaitForRoom { wait, .. } => {
                let window = full.unwrap();
                prop_assert_eq!(window.when_full(), WhenFull::Wait);
                prop_assert_eq!(wait.window.as_ref(), Some(keys.get(window)));
                prop_assert_eq!(wait.limit, caps.get(window));
                prop_assert!(wait.resets_at.is_some());
            }
            Admission::Refuse(refusal) => {
                let window = full.unwrap();
                prop_assert_eq!(window.when_full(), WhenFull::Refuse);
                let Refusal { code, window: key, limit, asked, .. } = refusal;
                prop_assert_eq!((code, key.as_ref()), (RefusalCode::OverCap, Some(keys.get(window))));
                prop_assert_eq!((limit, asked), (caps.get(window), Some(cents(amount))));
            }
            Admission::Park { .. } => prop_assert!(false, "nothing gates it"),
        }
    }

    #[test]
    fn what_costs_nothing_never_asks_the_windows(
        spent in 0..2_000_i64,
        billing in prop::sample::select(vec![Billing::Free, Billing::Subscription]),
        ceiling in prop::option::of(0..400_i64),
    ) {
        let over = Balance { reserved: cents(spent), spent: cents(spent) };
        let balances = PerWindow { run: over, day: over, month: over, sender: over, tree: over };
        let now = Timestamp::parse("2026-11-10T10:00:00.000Z").unwrap();
        let keys = WindowKeys::of(&NodeName::new("devbox").unwrap(), None, id(0), now);
        let view = BudgetView {
            balances,
            run: RunStanding::Closed,
            paid_work: PaidWork::Blocked,
            ..Book::default().view(keys, Caps::default())
        };
        let task = Proposal {
            billing,
            profile_max_cost_usd: ceiling.map(cents),
            overshoot_usd: None,
            ..proposal(Usd::ZERO)
        };
        let admitted = admission::admit(&task, &view, Look::Acceptance);
        let queued = matches!(&admitted, Admission::Queue { reservation: None, .. });
        prop_assert!(queued, "{:?}", admitted);
    }

    #[test]
    fn reserving_and_releasing_leaves_a_balance_as_it_was(
        reserved in 0..1_000_000_i64, spent in 0..1_000_000_i64, amount in 0..1_000_000_i64,
    ) {
        let before = Balance { reserved: cents(reserved), spent: cents(spent) };
        let held = budget::reserve(before, cents(amount)).unwrap();
        prop_assert_eq!(budget::release(held, cents(amount)), Ok(before));
        let settled = budget::reconcile(held, cents(amount), cents(7)).unwrap();
        prop_assert_eq!(settled, Balance { reserved: before.reserved, spent: cents(spent + 7) });
    }

    #[test]
    fn check_budget_agrees_with_a_plain_reference(
        current in 0..3_000_000_i64, limit in 1..3_000_000_i64, ratio in 1..=1_000_i64,
    ) {
        let (current, plain) = thousandths(current);
        let (limit, plain_limit) = thousandths(limit);
        let (ratio, plain_ratio) = thousandths(ratio);
        let check = safeguards::check_budget(current, limit, ratio).unwrap();
        prop_assert_eq!(check.usage_ratio.to_string(), nine_places(plain / plain_limit));
        prop_assert_eq!(check.is_warning, plain >= plain_ratio * plain_limit);
        prop_assert_eq!(check.is_breached, plain >= plain_limit);
        prop_assert_eq!(check.remaining.to_string(), nine_places(plain_limit - plain));
    }

    #[test]
    fn spike_and_burn_rate_agree_with_a_plain_reference(
        points in series(), multiplier in 1_001..5_000_i64, min_baseline in 0..5_000_i64,
    ) {
        let (decs, last, history) = split(&points);
        let (multiplier, plain_multiplier) = thousandths(multiplier);
        let (least, plain_least) = thousandths(min_baseline);
        let count = Decimal::from(history.len());
        let sum: Decimal = history.iter().sum();
        let spike = safeguards::check_anomaly_spike(&decs, multiplier, least).unwrap();
        let floored = sum.max(plain_least * count);
        prop_assert_eq!(spike.baseline.to_string(), nine_places(sum / count));
        prop_assert_eq!(spike.threshold.to_string(), nine_places(floored * plain_multiplier / count));
        prop_assert_eq!(spike.is_spike, last * count > floored * plain_multiplier);

        let burn = safeguards::check_burn_rate(&decs, multiplier).unwrap();
        prop_assert_eq!(burn.average.to_string(), nine_places(sum / count));
        if sum.is_zero() {
            prop_assert_eq!(burn.is_hot, last > Decimal::ZERO);
            prop_assert_eq!(burn.ratio.to_string(), if burn.is_hot { "inf" } else { "1" });
        } else {
            prop_assert_eq!(burn.ratio.to_string(), nine_places(last * count / sum));
            prop_assert_eq!(burn.is_hot, last * count >= plain_multiplier * sum);
        }
    }

    #[test]
    fn robust_spikes_agree_with_a_plain_reference(
        points in series(),
        z in 1..10_000_i64,
        min_mad in 0..5_000_i64,
        percentile in 1..1_000_i64,
        min_baseline in 0..5_000_i64,
    ) {
        let (decs, last, history) = split(&points);
        let (z_threshold, plain_z) = thousandths(z);
        let (least_mad, plain_mad) = thousandths(min_mad);
        let (percentile, plain_percentile) = thousandths(percentile);
        let (least, plain_least) = thousandths(min_baseline);

        let mad = RobustMethod::Mad { z_threshold, min_mad: least_mad };
        let got = safeguards::check_anomaly_robust(&decs, mad, least).unwrap();
        let median = plain_median(&history);
        let distances: Vec<Decimal> = history.iter().map(|point| (*point - median).abs()).collect();
        let spread = plain_median(&distances).max(plain_mad);
        let scale = Decimal::new(6_745, 4);
        let scaled = median.max(plain_least) * scale + plain_z * spread;
        prop_assert_eq!(got.baseline.to_string(), nine_places(median));
        prop_assert_eq!(got.threshold.to_string(), nine_places(scaled / scale));
        prop_assert_eq!(got.is_spike, last * scale > scaled);

        let by_rank = RobustMethod::Percentile { percentile };
        let got = safeguards::check_anomaly_robust(&decs, by_rank, least).unwrap();
        let mut sorted = history;
        sorted.sort();
        let rank = plain_percentile * Decimal::from(sorted.len() - 1);
        let below = usize::try_from(rank.floor().mantissa()).unwrap();
        let next = sorted.get(below + 1).copied().unwrap_or_default();
        let weight = rank - rank.floor();
        let usual = sorted[below] * (Decimal::ONE - weight) + next * weight;
        prop_assert_eq!(got.baseline.to_string(), nine_places(usual));
        prop_assert_eq!(got.threshold.to_string(), nine_places(usual.max(plain_least)));
        prop_assert_eq!(got.is_spike, last > usual.max(plain_least));
    }

    #[test]
    fn forecast_agrees_with_a_plain_reference(
        current in 0..3_000_000_i64, limit in 1..3_000_000_i64, elapsed in 1..400_i64, more in 0..400_i64,
    ) {
        let (current, plain) = thousandths(current);
        let (limit, plain_limit) = thousandths(limit);
        let got = safeguards::forecast(current, limit, elapsed, elapsed + more).unwrap();
        let projected = plain * Decimal::from(elapsed + more);
        let over = (projected - plain_limit * Decimal::from(elapsed)).max(Decimal::ZERO);
        prop_assert_eq!(got.projected.to_string(), nine_places(projected / Decimal::from(elapsed)));
        prop_assert_eq!(got.overrun.to_string(), nine_places(over / Decimal::from(elapsed)));
        prop_assert_eq!(got.will_breach, projected >= plain_limit * Decimal::from(elapsed));
    }

    #[test]
    fn vram_fits_only_what_is_there(available in prop::option::of(0..9_i128), required in prop::option::of(0..9_i128)) {
        let fits = routing::vram_fits(available.map(Dec::from_units), required.map(Dec::from_units)).unwrap();
        prop_assert_eq!(fits, required.is_none_or(|least| available.is_some_and(|there| there >= least)));
    }

    #[test]
    fn every_line_is_answered_in_one_line(line in "\\PC{0,80}") {
        let answer = answer(&line);
        let refused = answer.starts_with("{\"error\":\"");
        prop_assert!(refused && !answer.contains('\n'), "{}", answer);
    }
}
