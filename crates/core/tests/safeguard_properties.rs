//! Every safeguard of policy section 2, asked as `dispatchctl policy eval` asks it, against references that are written
//! from the words of the policy alone: on exact fractions of 512-bit numbers made here, with no arithmetic of the product.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::cmp::Ordering;

use dispatch_core::policy::breaker::{Breaker, BreakerCause, BreakerEvent, BreakerLimits, Opened, Stand};
use dispatch_core::policy::eval::answer;
use dispatch_core::policy::hold::{Hold, Running, by_breaker};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::velocity::{VelocityFacts, VelocityLimits, VelocityTrip, velocity_breaker};
use dispatch_core::protocol::time::Timestamp;
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// One, in units of 10^-12: every input of a safeguard is a whole number of them.
const ONE: i128 = 1_000_000_000_000;

/// A whole number from 0 on, of 512 bits, lowest limb first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Big([u64; 8]);

/// The halves of a product or a sum: what stays in its limb, and what is carried.
fn halves(value: u128) -> (u64, u64) {
    let low = u64::try_from(value & u128::from(u64::MAX)).unwrap();
    (low, u64::try_from(value >> 64).unwrap())
}

impl Big {
    const ZERO: Big = Big([0; 8]);

    fn of(value: i128) -> Big {
        let (low, high) = halves(u128::try_from(value).unwrap());
        Big([low, high, 0, 0, 0, 0, 0, 0])
    }

    fn plus(self, other: Big) -> Big {
        let (mut sum, mut carried) = (Big::ZERO, 0);
        for at in 0..8 {
            let both = u128::from(self.0[at]) + u128::from(other.0[at]) + u128::from(carried);
            (sum.0[at], carried) = halves(both);
        }
        assert_eq!(carried, 0, "512 bits are enough");
        sum
    }

    /// What is left when a smaller one is taken away.
    fn minus(self, other: Big) -> Big {
        let (mut rest, mut borrowed) = (Big::ZERO, false);
        for at in 0..8 {
            let (once, over) = self.0[at].overflowing_sub(other.0[at]);
            let (twice, under) = once.overflowing_sub(borrowed.into());
            (rest.0[at], borrowed) = (twice, over || under);
        }
        assert!(!borrowed, "a smaller one is taken away");
        rest
    }

    fn times(self, other: Big) -> Big {
        let mut product = Big::ZERO;
        for low in (0..8).filter(|at| self.0[*at] != 0) {
            let mut carried = 0;
            for high in 0..8 {
                let Some(place) = product.0.get_mut(low + high) else {
                    assert!(other.0[high] == 0 && carried == 0, "512 bits are enough");
                    continue;
                };
                let sum = u128::from(self.0[low]) * u128::from(other.0[high]);
                (*place, carried) = halves(sum + u128::from(*place) + u128::from(carried));
            }
        }
        product
    }

    fn bits(self) -> u32 {
        let top = self.0.iter().rposition(|limb| *limb != 0);
        top.map_or(0, |top| 64 * u32::try_from(top).unwrap() + 64 - self.0[top].leading_zeros())
    }

    fn doubled(self) -> Big {
        self.plus(self)
    }

    fn halved(self) -> Big {
        let mut half = Big::ZERO;
        for at in 0..8 {
            let above = self.0.get(at + 1).copied().unwrap_or(0);
            half.0[at] = (self.0[at] >> 1) | (above << 63);
        }
        half
    }

    /// How often `by` goes into it, and what is left: as by hand, one binary digit after the other.
    fn divided(self, by: Big) -> (u128, Big) {
        let places = self.bits().saturating_sub(by.bits());
        let (mut often, mut rest) = (0_u128, self);
        let mut shifted = (0..places).fold(by, |shifted, _| shifted.doubled());
        for _ in 0..=places {
            often *= 2;
            if rest >= shifted {
                (often, rest) = (often + 1, rest.minus(shifted));
            }
            shifted = shifted.halved();
        }
        (often, rest)
    }
}

impl PartialOrd for Big {
    fn partial_cmp(&self, other: &Big) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Big {
    fn cmp(&self, other: &Big) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

/// A fraction from 0 on, never reduced.
#[derive(Clone, Copy, Debug)]
struct Frac {
    top: Big,
    bottom: Big,
}

impl Frac {
    /// So many units of 10^-12.
    fn units(units: i128) -> Frac {
        Frac { top: Big::of(units), bottom: Big::of(ONE) }
    }

    fn whole(count: i128) -> Frac {
        Frac { top: Big::of(count), bottom: Big::of(1) }
    }

    fn times(self, other: Frac) -> Frac {
        Frac { top: self.top.times(other.top), bottom: self.bottom.times(other.bottom) }
    }

    fn over(self, other: Frac) -> Frac {
        Frac { top: self.top.times(other.bottom), bottom: self.bottom.times(other.top) }
    }

    fn plus(self, other: Frac) -> Frac {
        let (one, two) = (self.top.times(other.bottom), other.top.times(self.bottom));
        Frac { top: one.plus(two), bottom: self.bottom.times(other.bottom) }
    }

    /// What is left above `other`, or nothing.
    fn above(self, other: Frac) -> Frac {
        let (one, two) = (self.top.times(other.bottom), other.top.times(self.bottom));
        let top = if one > two { one.minus(two) } else { Big::ZERO };
        Frac { top, bottom: self.bottom.times(other.bottom) }
    }

    fn larger(self, other: Frac) -> Frac {
        if self.is(Ordering::Less, other) { other } else { self }
    }

    fn is(self, order: Ordering, other: Frac) -> bool {
        self.top.times(other.bottom).cmp(&other.top.times(self.bottom)) == order
    }

    fn at_least(self, other: Frac) -> bool {
        !self.is(Ordering::Less, other)
    }

    /// Rounded half-even to nine places, with no zeros behind.
    fn text(self) -> String {
        const NINE: u128 = 1_000_000_000;
        let (mut nine, rest) = self.top.times(Big::of(1_000_000_000)).divided(self.bottom);
        let half = rest.doubled().cmp(&self.bottom);
        if half == Ordering::Greater || (half == Ordering::Equal && nine % 2 == 1) {
            nine += 1;
        }
        let part = format!("{:09}", nine % NINE);
        let part = part.trim_end_matches('0');
        if part.is_empty() { (nine / NINE).to_string() } else { format!("{}.{part}", nine / NINE) }
    }
}

fn mean(points: &[i128]) -> Frac {
    Frac::units(points.iter().sum()).over(Frac::whole(i128::try_from(points.len()).unwrap()))
}

fn sorted(points: &[i128]) -> Vec<i128> {
    let mut sorted = points.to_vec();
    sorted.sort_unstable();
    sorted
}

/// Twice the median, in units of 10^-12: whole, whatever the number of points.
fn median_twice(points: &[i128]) -> i128 {
    let (sorted, n) = (sorted(points), points.len());
    sorted[(n - 1) / 2] + sorted[n / 2]
}

/// A decimal as it is written in a request.
fn dec(units: i128) -> String {
    let sign = if units < 0 { "-" } else { "" };
    let units = units.abs();
    let part = format!("{:012}", units % ONE);
    let part = part.trim_end_matches('0');
    let dot = if part.is_empty() { "" } else { "." };
    format!("{sign}{}{dot}{part}", units / ONE)
}

fn ask(rule: &str, input: &Value) -> Value {
    serde_json::from_str(&answer(&json!({"rule": rule, "input": input}).to_string())).unwrap()
}

/// The first of these that holds is the error.
fn first(errors: &[(bool, &str)]) -> Option<Value> {
    errors.iter().find(|(holds, _)| *holds).map(|(_, code)| json!({"error": code}))
}

/// An amount: nothing, round, tiny, with all its places, large; now and then below nothing.
fn amount() -> impl Strategy<Value = i128> {
    prop_oneof![
        2 => Just(0),
        4 => (0..50_i128).prop_map(|whole| whole * ONE),
        3 => (0..5_000_i128).prop_map(|cents| cents * ONE / 100),
        2 => 0..3_i128,
        4 => 0..2_000 * ONE,
        1 => 0..=999_999_999_999_i128 * ONE,
        1 => -3 * ONE..0,
    ]
}

/// A factor: most are usual, some are on the edge of what is allowed, or beyond it.
fn factor() -> impl Strategy<Value = i128> {
    prop_oneof![
        6 => (1_001..6_000_i128).prop_map(|thousandths| thousandths * ONE / 1_000),
        2 => ONE + 1..5 * ONE,
        1 => prop::sample::select(vec![0, 1, ONE - 1, ONE, ONE + 1, -ONE]),
    ]
}

/// A share of one, most of them between 0 and 1.
fn share() -> impl Strategy<Value = i128> {
    prop_oneof![
        6 => (1..=1_000_i128).prop_map(|thousandths| thousandths * ONE / 1_000),
        2 => 1..ONE,
        1 => prop::sample::select(vec![0, 1, ONE - 1, ONE, ONE + 1, -ONE]),
    ]
}

/// A series of spending: flat with a step at its end, or anything.
fn series() -> impl Strategy<Value = Vec<i128>> {
    series_and_factor().prop_map(|(series, _)| series)
}

/// The same with a factor: where the series is flat, its step lies on that factor, or one unit beside it.
fn series_and_factor() -> impl Strategy<Value = (Vec<i128>, i128)> {
    let any = (prop::collection::vec(amount(), 0..9), factor());
    let flat = (1..9_usize, 1..9_i128, 1_001..3_000_i128, -1..=1_i128).prop_map(|(n, point, times, off)| {
        let mut series = vec![point * ONE; n];
        series.push(point * times * ONE / 1_000 + off);
        (series, times * ONE / 1_000)
    });
    prop_oneof![3 => any, 2 => flat]
}

fn limit_left(current: i128, limit: i128) -> String {
    dec(limit - current)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn check_budget_is_the_policys(current in amount(), limit in amount(), ratio in share(), same in 0..4_u8) {
        // A quarter of them stand exactly on the limit.
        let current = if same == 0 { limit } else { current };
        let input = json!({"current": dec(current), "limit": dec(limit), "warning_ratio": dec(ratio)});
        let errors = [
            (limit <= 0, "limit_not_positive"),
            (ratio <= 0 || ratio > ONE, "warning_ratio_out_of_range"),
            (current < 0, "negative_current"),
        ];
        let expected = first(&errors).unwrap_or_else(|| {
            let used = Frac::units(current).over(Frac::units(limit));
            json!({"ok": {
                "usage_ratio": used.text(), "remaining": limit_left(current, limit),
                "is_warning": used.at_least(Frac::units(ratio)), "is_breached": current >= limit,
            }})
        });
        prop_assert_eq!(ask("safeguards.check_budget", &input), expected, "{}", input);
    }

    #[test]
    fn a_spike_is_the_policys((series, times) in series_and_factor(), least in amount()) {
        let points: Vec<String> = series.iter().map(|point| dec(*point)).collect();
        let input = json!({"series": points, "spike_multiplier": dec(times), "min_baseline": dec(least)});
        let errors = [
            (series.len() < 2, "series_too_short"),
            (times <= ONE, "multiplier_not_above_one"),
            (least < 0, "negative_min_baseline"),
            (series.iter().any(|point| *point < 0), "negative_spend"),
        ];
        let expected = first(&errors).unwrap_or_else(|| {
            let (last, before) = series.split_last().unwrap();
            let usual = mean(before);
            let threshold = usual.larger(Frac::units(least)).times(Frac::units(times));
            json!({"ok": {
                "baseline": usual.text(), "threshold": threshold.text(),
                "is_spike": Frac::units(*last).is(Ordering::Greater, threshold),
            }})
        });
        prop_assert_eq!(ask("safeguards.anomaly_spike", &input), expected, "{}", input);
    }

    #[test]
    fn a_robust_spike_by_the_median_is_the_policys(
        series in series(), z in factor(), least_mad in amount(), least in amount(),
    ) {
        let points: Vec<String> = series.iter().map(|point| dec(*point)).collect();
        let input = json!({
            "series": points, "method": "mad", "z_threshold": dec(z), "min_mad": dec(least_mad),
            "min_baseline": dec(least),
        });
        let errors = [
            (series.len() < 2, "series_too_short"),
            (series.iter().any(|point| *point < 0), "negative_spend"),
            (least < 0, "negative_min_baseline"),
            (z <= 0, "z_threshold_not_positive"),
            (least_mad < 0, "negative_min_mad"),
        ];
        let expected = first(&errors).unwrap_or_else(|| {
            let (last, before) = series.split_last().unwrap();
            // Twice the median and four times the deviation are whole.
            let twice = median_twice(before);
            let off: Vec<i128> = before.iter().map(|point| (2 * point - twice).abs()).collect();
            let (median, deviation) = (
                Frac::units(twice).over(Frac::whole(2)),
                Frac::units(median_twice(&off)).over(Frac::whole(4)),
            );
            let spread = deviation.larger(Frac::units(least_mad));
            let scale = Frac::whole(6_745).over(Frac::whole(10_000));
            let threshold =
                median.larger(Frac::units(least)).plus(Frac::units(z).times(spread).over(scale));
            json!({"ok": {
                "baseline": median.text(), "threshold": threshold.text(),
                "is_spike": Frac::units(*last).is(Ordering::Greater, threshold),
            }})
        });
        prop_assert_eq!(ask("safeguards.anomaly_robust", &input), expected, "{}", input);
    }

    #[test]
    fn a_robust_spike_by_rank_is_the_policys(series in series(), percentile in share(), least in amount()) {
        let points: Vec<String> = series.iter().map(|point| dec(*point)).collect();
        let input = json!({
            "series": points, "method": "percentile", "percentile": dec(percentile), "min_baseline": dec(least),
        });
        let errors = [
            (series.len() < 2, "series_too_short"),
            (series.iter().any(|point| *point < 0), "negative_spend"),
            (least < 0, "negative_min_baseline"),
            (percentile <= 0 || percentile >= ONE, "percentile_out_of_range"),
        ];
        let expected = first(&errors).unwrap_or_else(|| {
            let (last, before) = series.split_last().unwrap();
            let sorted = sorted(before);
            let rank = percentile * i128::try_from(sorted.len() - 1).unwrap();
            let (below, part) = (usize::try_from(rank / ONE).unwrap(), rank % ONE);
            let upper = sorted.get(below + 1).copied().unwrap_or(sorted[below]);
            let step = Frac::units(upper - sorted[below]).times(Frac::units(part));
            let usual = Frac::units(sorted[below]).plus(step);
            let threshold = usual.larger(Frac::units(least));
            json!({"ok": {
                "baseline": usual.text(), "threshold": threshold.text(),
                "is_spike": Frac::units(*last).is(Ordering::Greater, threshold),
            }})
        });
        prop_assert_eq!(ask("safeguards.anomaly_robust", &input), expected, "{}", input);
    }

    #[test]
    fn a_burn_rate_is_the_policys((series, times) in series_and_factor()) {
        let points: Vec<String> = series.iter().map(|point| dec(*point)).collect();
        let input = json!({"series": points, "hot_multiplier": dec(times)});
        let errors = [
            (series.len() < 2, "series_too_short"),
            (times <= ONE, "multiplier_not_above_one"),
            (series.iter().any(|point| *point < 0), "negative_spend"),
        ];
        let expected = first(&errors).unwrap_or_else(|| {
            let (last, before) = series.split_last().unwrap();
            let average = mean(before);
            let (ratio, is_hot) = if before.iter().sum::<i128>() == 0 {
                (if *last > 0 { "inf".to_owned() } else { "1".to_owned() }, *last > 0)
            } else {
                let ratio = Frac::units(*last).over(average);
                (ratio.text(), ratio.at_least(Frac::units(times)))
            };
            json!({"ok": {"average": average.text(), "ratio": ratio, "is_hot": is_hot}})
        });
        prop_assert_eq!(ask("safeguards.burn_rate", &input), expected, "{}", input);
    }

    #[test]
    fn a_forecast_is_the_policys(
        current in amount(), limit in amount(), elapsed in -1..40_i64, total in -1..60_i64, same in 0..4_u8,
    ) {
        // A quarter of them come out exactly at the limit.
        let limit = if same == 0 && elapsed > 0 { current * i128::from(total) / i128::from(elapsed) } else { limit };
        prop_assume!(limit < 1_000_000_000_000 * ONE);
        let input = json!({
            "current": dec(current), "limit": dec(limit), "periods_elapsed": elapsed, "total_periods": total,
        });
        let errors = [
            (current < 0, "negative_current"),
            (limit <= 0, "limit_not_positive"),
            (elapsed <= 0, "periods_elapsed_not_positive"),
            (total <= 0, "total_periods_not_positive"),
            (elapsed > total, "periods_elapsed_exceeds_total"),
        ];
        let expected = first(&errors).unwrap_or_else(|| {
            let pace = Frac::units(current).over(Frac::whole(elapsed.into()));
            let (projected, limit) = (pace.times(Frac::whole(total.into())), Frac::units(limit));
            json!({"ok": {
                "projected": projected.text(), "overrun": projected.above(limit).text(),
                "will_breach": projected.at_least(limit),
            }})
        });
        prop_assert_eq!(ask("safeguards.forecast", &input), expected, "{}", input);
    }

    #[test]
    fn a_circuit_breaker_is_the_policys(failures in -2..9_i64, threshold in -1..6_i64, cooldown in -1..4_i64) {
        let input = json!({
            "consecutive_failures": failures, "failure_threshold": threshold, "cooldown_steps_remaining": cooldown,
        });
        let errors = [
            (failures < 0, "negative_failures"),
            (threshold <= 0, "failure_threshold_not_positive"),
            (cooldown < 0, "negative_cooldown"),
        ];
        let expected = first(&errors).unwrap_or_else(|| {
            json!({"ok": {"is_open": failures >= threshold || cooldown > 0, "retry_after": cooldown}})
        });
        prop_assert_eq!(ask("safeguards.circuit_breaker", &input), expected, "{}", input);
    }

    #[test]
    fn a_spend_decision_is_the_policys(
        signs in prop::array::uniform4(any::<bool>()), breakers in prop::collection::vec(any::<bool>(), 0..4),
    ) {
        let [warning, breached, spike, hot] = signs;
        let each: Vec<Value> = breakers.iter().map(|open| json!({"is_open": open})).collect();
        let input = json!({
            "budget": {"is_warning": warning, "is_breached": breached}, "anomaly": {"is_spike": spike},
            "burn_rate": {"is_hot": hot}, "breakers": each,
        });
        let open = breakers.contains(&true);
        let named = |signs: &[(bool, &'static str)]| -> Vec<&'static str> {
            signs.iter().filter(|(holds, _)| *holds).map(|(_, word)| *word).collect()
        };
        let block = named(&[(breached, "budget_breached"), (open, "breaker_open")]);
        let throttle = named(&[(warning, "budget_warning"), (spike, "spend_spike"), (hot, "burn_rate_hot")]);
        let expected = if !block.is_empty() {
            json!({"action": "block", "severity": "critical", "reasons": block})
        } else if !throttle.is_empty() {
            json!({"action": "throttle", "severity": "warning", "reasons": throttle})
        } else {
            json!({"action": "allow", "severity": "info", "reasons": []})
        };
        prop_assert_eq!(ask("safeguards.spend_policy", &input), json!({"ok": expected}), "{}", input);
    }

    /// Defaults: a fifth of the month's cap an hour, 60 tasks of a tree, 10 identical paid requests; the next one trips.
    #[test]
    fn a_velocity_breaker_is_the_policys(
        cap in 0..500_000_i64, spent in 0..120_000_i64, same in 0..3_u8, tasks in 55..66_u32, identical in 7..14_u32,
    ) {
        let micros = |count: i64| Usd::from_decimal(Decimal::new(count, 6));
        let spent = if same == 0 { cap / 5 } else { spent };
        let facts = VelocityFacts {
            spent_per_hour: micros(spent), tasks_per_hour_of_tree: tasks, identical_requests: identical,
        };
        let mut expected = Vec::new();
        if spent * 5 > cap {
            expected.push(VelocityTrip::SpendPerHour);
        }
        if tasks > 60 {
            expected.push(VelocityTrip::TasksPerHour);
        }
        if identical > 10 {
            expected.push(VelocityTrip::IdenticalRequests);
        }
        prop_assert_eq!(velocity_breaker(&facts, &VelocityLimits::of_month_cap(micros(cap))), expected);
    }
}

/// What happens to a breaker.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Success,
    Failure,
    /// A wall, and the second at which it says that it resets, counted from now.
    Wall(Option<i64>),
}

fn happens() -> impl Strategy<Value = (i64, Happens)> {
    let what = prop_oneof![
        3 => Just(Happens::Failure),
        2 => Just(Happens::Success),
        2 => prop::option::of(-100..4_000_000_i64).prop_map(Happens::Wall),
    ];
    (prop_oneof![0..10_i64, 0..400_i64, 0..100_000_i64], what)
}

/// The breaker of one profile and backend as the policy words it: failures in a row, and until when what is open.
#[derive(Default)]
struct Plain {
    failures: i64,
    until: Option<(i64, BreakerCause)>,
}

impl Plain {
    fn take(&mut self, what: Happens, now: i64, (threshold, cooldown, wall): (i64, i64, i64)) {
        let longer = |known: Option<(i64, BreakerCause)>, until: i64, cause: BreakerCause| match known {
            // Nothing that comes late makes the wait shorter.
            Some(known) if known.0 > until => Some(known),
            Some(_) | None => Some((until, cause)),
        };
        match what {
            Happens::Success => {
                self.failures = 0;
                let stands =
                    |(until, cause): &(i64, BreakerCause)| *cause == BreakerCause::QuotaWall && *until > now;
                self.until = self.until.filter(stands);
            }
            Happens::Failure => {
                self.failures += 1;
                if threshold > 0 && (self.failures >= threshold || self.until.is_some()) {
                    self.until = longer(self.until, now + cooldown, BreakerCause::Failures);
                }
            }
            Happens::Wall(resets) => {
                let month = 31 * 24 * 3_600;
                let after = resets.filter(|after| *after > 0).unwrap_or(wall).min(month);
                self.until = longer(self.until, now + after, BreakerCause::QuotaWall);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: nothing starts while it is open, one alone when its time is over, and all again
    /// after a success.
    #[test]
    fn the_life_of_a_breaker_is_the_policys(
        history in prop::collection::vec(happens(), 1..20),
        threshold in 0..5_u32,
        cooldown in 0..600_i64,
        others in 0..3_u64,
    ) {
        let limits = BreakerLimits { failure_threshold: threshold, cooldown_ms: cooldown * 1_000, wall_ms: 3_600_000 };
        let at = |s: i64| Timestamp::from_unix_ms(1_800_000_000_000 + s * 1_000);
        let (mut plain, mut breaker, mut now) = (Plain::default(), Breaker::default(), 0);
        for (later, what) in history {
            now += later;
            let event = match what {
                Happens::Success => BreakerEvent::Succeeded,
                Happens::Failure => BreakerEvent::Failed,
                Happens::Wall(resets) => BreakerEvent::Walled { resets_at: resets.map(|after| at(now + after)) },
            };
            breaker = breaker.apply(event, at(now), &limits);
            plain.take(what, now, (threshold.into(), cooldown, 3_600));
            for look in [now, now + 1, now + cooldown, now + 3_600] {
                let expected = match plain.until {
                    None => Stand::Closed,
                    Some((until, _)) if look >= until => Stand::HalfOpen,
                    Some((until, cause)) => Stand::Open(Opened { cause, until: at(until) }),
                };
                prop_assert_eq!(breaker.stand(at(look)), expected, "after {:?} at {}, looked at {}", what, now, look);
                let running = Running { behind_breaker: others, ..Running::default() };
                let held = by_breaker(&breaker, "p", running, at(look));
                let starts = match expected {
                    Stand::Closed => true,
                    Stand::HalfOpen => others == 0,
                    Stand::Open(_) => false,
                };
                prop_assert_eq!(held.is_none(), starts);
                let is_named = matches!(held, Some(Hold::BreakerOpen { opened, .. }) if Stand::Open(opened) == expected);
                prop_assert_eq!(is_named, matches!(expected, Stand::Open(_)));
            }
        }
    }
}

/// The arithmetic of the references, by cases that are known.
#[test]
fn the_references_count_right() {
    assert_eq!(Frac::whole(2).over(Frac::whole(3)).text(), "0.666666667");
    assert_eq!(Frac::whole(1).over(Frac::whole(1_000_000_000)).text(), "0.000000001");
    assert_eq!(Frac::whole(1).over(Frac::whole(2_000_000_000)).text(), "0");
    assert_eq!(Frac::whole(3).over(Frac::whole(2_000_000_000)).text(), "0.000000002");
    assert_eq!(Frac::units(12 * ONE).times(Frac::units(ONE / 2)).text(), "6");
    assert_eq!(dec(-3 * ONE / 2), "-1.5");
    assert_eq!((median_twice(&[3, 1, 2]), median_twice(&[4, 1, 2, 3])), (4, 5));
}
