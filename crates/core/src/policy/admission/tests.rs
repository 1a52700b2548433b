use super::*;
use crate::policy::budget::{MachineRates, MachineUse};
use crate::policy::gate::{GateLimits, PeerGate};
use crate::policy::lineage::Lineage;
use crate::policy::window::{Balance, Balances, Caps, RunName, WindowKeys};
use crate::protocol::names::{NodeName, TaskId};
use crate::protocol::time::Timestamp;

fn usd(text: &str) -> Usd {
    Usd::from_wire(text).unwrap()
}

fn id() -> TaskId {
    TaskId::parse("01a1f89c-fb83-734b-96bb-78a1dacaf1ff").unwrap()
}

/// A paid task of at most 2 + 0.5 dollars, which nothing gates.
fn paid() -> Proposal<'static> {
    Proposal {
        id: id(),
        lineage: Lineage::of_root(id()),
        parent: None,
        depth_max: 8,
        comes_back: false,
        branch_left: None,
        require_ack: false,
        require_dangerous: false,
        dangerous_allowed: false,
        metered_allowed: true,
        peer_gate: PeerGate::Policy,
        gate_limits: GateLimits::default(),
        backend: Some(BackendFacts::LOCAL),
        billing: Billing::Metered,
        task_max_cost_usd: None,
        profile_max_cost_usd: Some(usd("2")),
        approved_max_cost_usd: None,
        overshoot_usd: Some(usd("0.5")),
    }
}

/// A budget with 5 dollars for the run and 100 for the month, nothing of it used.
fn budget() -> BudgetView {
    let now = Timestamp::parse("2026-11-21T12:00:00.000Z").unwrap();
    let run = RunName::new("nightly").unwrap();
    BudgetView {
        keys: WindowKeys::of(&NodeName::new("devbox").unwrap(), Some(&run), id(), now),
        balances: Balances::default(),
        caps: Caps { run: usd("5"), month: usd("100"), ..Caps::default() },
        run: RunStanding::Open,
        runs_per_day: RUNS_PER_DAY,
        paid_work: PaidWork::Open,
    }
}

fn spent(text: &str) -> Balance {
    Balance { reserved: Usd::ZERO, spent: usd(text) }
}

fn refusal(admission: Admission) -> Refusal {
    let Admission::Refuse(refusal) = admission else { panic!("not refused: {admission:?}") };
    refusal
}

fn refused(admission: Admission) -> RefusalCode {
    refusal(admission).code
}

fn reserved(admission: &Admission) -> Option<Usd> {
    let Admission::Queue { reservation, .. } = admission else { panic!("not queued: {admission:?}") };
    reservation.as_ref().map(|reservation| reservation.amount)
}

fn parked(admission: Admission) -> (Cost, Vec<GateReason>) {
    let Admission::Park { cost, gates } = admission else { panic!("not parked: {admission:?}") };
    (cost, gates)
}

fn waits(admission: Admission) -> RoomWait {
    let Admission::WaitForRoom { wait, .. } = admission else { panic!("does not wait: {admission:?}") };
    wait
}

#[test]
fn paid_work_is_off_until_caps_are_set() {
    let fresh = BudgetView { caps: Caps::default(), ..budget() };
    assert_eq!(refused(admit(&paid(), &fresh, Look::Acceptance)), RefusalCode::OverCap);
}

#[test]
fn a_paid_task_reserves_its_ceiling_and_the_overshoot() {
    assert_eq!(reserved(&admit(&paid(), &budget(), Look::Acceptance)), Some(usd("2.5")));
    let lowered = Proposal { task_max_cost_usd: Some(usd("1")), ..paid() };
    assert_eq!(reserved(&admit(&lowered, &budget(), Look::Acceptance)), Some(usd("1.5")));
    let raised = Proposal { task_max_cost_usd: Some(usd("3")), ..paid() };
    assert_eq!(reserved(&admit(&raised, &budget(), Look::Acceptance)), Some(usd("2.5")));
    let approved = Proposal { approved_max_cost_usd: Some(usd("0.25")), ..paid() };
    assert_eq!(reserved(&admit(&approved, &budget(), Look::Budget)), Some(usd("0.75")));
}

#[test]
fn a_full_run_sender_or_tree_refuses_and_a_full_day_or_month_waits() {
    let balances = Balances { run: spent("2.500001"), ..Balances::default() };
    let refusal = refusal(admit(&paid(), &BudgetView { balances, ..budget() }, Look::Acceptance));
    let (limit, left, asked) = (Some(usd("5")), Some(usd("2.499999")), Some(usd("2.5")));
    let window = Some(budget().keys.run);
    let code = RefusalCode::OverCap;
    assert_eq!(refusal, Refusal { window, limit, left, asked, ..Refusal::plain(code) });

    let balances = Balances { month: spent("99"), ..Balances::default() };
    let wait = waits(admit(&paid(), &BudgetView { balances, ..budget() }, Look::Acceptance));
    assert_eq!(wait.window, Some(budget().keys.month));
    assert_eq!(wait.resets_at.unwrap().to_string(), "2026-12-01T00:00:00.000Z");
}

#[test]
fn a_full_run_refuses_before_a_person_is_asked_and_a_full_month_after() {
    let gated = Proposal { require_ack: true, ..paid() };
    let balances = Balances { run: spent("5"), ..Balances::default() };
    let full = BudgetView { balances, ..budget() };
    assert_eq!(refused(admit(&gated, &full, Look::Acceptance)), RefusalCode::OverCap);
    let balances = Balances { month: spent("100"), ..Balances::default() };
    let full = BudgetView { balances, ..budget() };
    assert!(matches!(admit(&gated, &full, Look::Acceptance), Admission::Park { .. }));
    assert!(matches!(admit(&gated, &full, Look::Budget), Admission::WaitForRoom { .. }));
}

#[test]
fn a_gated_task_is_parked_with_its_reasons_and_reserves_nothing_yet() {
    let gated = Proposal { require_ack: true, peer_gate: PeerGate::Always, ..paid() };
    let (cost, gates) = parked(admit(&gated, &budget(), Look::Acceptance));
    assert_eq!(gates, [GateReason::RequireAck, GateReason::PeerGate]);
    assert_eq!(cost, Cost { ceiling_usd: Some(usd("2")), estimate_usd: Some(usd("2.5")) });
    assert_eq!(reserved(&admit(&gated, &budget(), Look::Budget)), Some(usd("2.5")));
}

#[test]
fn what_is_paid_by_use_is_refused_where_its_sender_may_not_cost_anything() {
    let unpaid = Proposal { metered_allowed: false, ..paid() };
    assert_eq!(refused(admit(&unpaid, &budget(), Look::Acceptance)), RefusalCode::MeteredNotAllowed);
    let free = Proposal { billing: Billing::Free, ..unpaid };
    assert!(matches!(admit(&free, &budget(), Look::Acceptance), Admission::Queue { reservation: None, .. }));
    // A free profile on a machine that is paid by use costs, too.
    let machine = BackendFacts { billing: Billing::Metered, ..BackendFacts::LOCAL };
    let rented = Proposal { backend: Some(machine), ..free };
    assert_eq!(refused(admit(&rented, &budget(), Look::Acceptance)), RefusalCode::MeteredNotAllowed);
}

#[test]
fn the_unrestricted_mode_is_refused_where_it_is_not_allowed_and_gated_where_it_is() {
    let asks = Proposal { require_dangerous: true, ..paid() };
    assert_eq!(refused(admit(&asks, &budget(), Look::Acceptance)), RefusalCode::DangerousNotAllowed);
    let allowed = Proposal { dangerous_allowed: true, ..asks };
    assert_eq!(parked(admit(&allowed, &budget(), Look::Acceptance)).1, [GateReason::Dangerous]);
}

#[test]
fn throttling_gates_paid_tasks_only() {
    let throttled = BudgetView { paid_work: PaidWork::Throttled, ..budget() };
    assert_eq!(parked(admit(&paid(), &throttled, Look::Acceptance)).1, [GateReason::Throttled]);
    let free = Proposal { billing: Billing::Free, ..paid() };
    assert_eq!(reserved(&admit(&free, &throttled, Look::Acceptance)), None);
}

#[test]
fn what_is_metered_and_has_no_price_is_refused_and_never_free() {
    let none = RefusalCode::NoEstimate;
    for (task, code) in [
        (Proposal { profile_max_cost_usd: None, ..paid() }, none),
        (Proposal { overshoot_usd: None, ..paid() }, none),
        (Proposal { overshoot_usd: usd("0").checked_sub(usd("1")), ..paid() }, none),
        (Proposal { task_max_cost_usd: Some(Usd::ZERO), ..paid() }, RefusalCode::CeilingTooLow),
        (Proposal { backend: None, ..paid() }, RefusalCode::NoEligibleBackend),
    ] {
        assert_eq!(refused(admit(&task, &budget(), Look::Acceptance)), code, "{task:?}");
    }
}

#[test]
fn a_metered_machine_is_paid_for_beside_or_without_tokens() {
    let rates = MachineRates { gpu: usd("0.01"), vcpu: Usd::ZERO, gib: Usd::ZERO, idle_tail_s: 0 };
    let machine = Some(MachineUse { rates, max_runtime_s: 100, vcpus: 1, memory_gib: 1 });
    let backend = BackendFacts { billing: Billing::Metered, machine, ..BackendFacts::LOCAL };
    let both = Proposal { backend: Some(backend), ..paid() };
    assert_eq!(reserved(&admit(&both, &budget(), Look::Acceptance)), Some(usd("3.5")));
    let flat = Proposal { billing: Billing::Subscription, ..both };
    assert_eq!(reserved(&admit(&flat, &budget(), Look::Acceptance)), Some(usd("1")));
    let half = Proposal { profile_max_cost_usd: None, ..both };
    assert_eq!(refused(admit(&half, &budget(), Look::Acceptance)), RefusalCode::NoEstimate);
    let unpriced = Some(BackendFacts { machine: None, ..backend });
    let unpriced = Proposal { backend: unpriced, ..paid() };
    assert_eq!(refused(admit(&unpriced, &budget(), Look::Acceptance)), RefusalCode::NoEstimate);
}

#[test]
fn a_closed_run_and_one_run_too_many_are_refused() {
    let closed = BudgetView { run: RunStanding::Closed, ..budget() };
    assert_eq!(refused(admit(&paid(), &closed, Look::Acceptance)), RefusalCode::RunClosed);
    let new = |opened_today| BudgetView { run: RunStanding::New { opened_today }, ..budget() };
    assert_eq!(reserved(&admit(&paid(), &new(19), Look::Acceptance)), Some(usd("2.5")));
    assert_eq!(refused(admit(&paid(), &new(20), Look::Acceptance)), RefusalCode::TooManyRuns);
}

#[test]
fn a_branchs_own_budget_is_a_limit_beside_the_caps() {
    let branch = |budget_usd| Proposal { lineage: Lineage { budget_usd, ..paid().lineage }, ..paid() };
    let enough = branch(Some(usd("2.5")));
    assert_eq!(reserved(&admit(&enough, &budget(), Look::Acceptance)), Some(usd("2.5")));
    let short = branch(Some(usd("2.499999")));
    assert_eq!(refused(admit(&short, &budget(), Look::Acceptance)), RefusalCode::OverCap);
}

#[test]
fn nothing_paid_is_reserved_while_paid_work_is_held() {
    for (paid_work, cause) in [
        (PaidWork::ClockSuspect, WaitCause::ClockSuspect),
        (PaidWork::DayClosed, WaitCause::DayClosed),
        (PaidWork::MonthClosed, WaitCause::MonthClosed),
        (PaidWork::Blocked, WaitCause::SpendBlocked),
        (PaidWork::SenderHeld, WaitCause::SenderHeld),
    ] {
        let wait = waits(admit(&paid(), &BudgetView { paid_work, ..budget() }, Look::Acceptance));
        assert_eq!(wait.cause, cause);
    }
}

#[test]
fn words_survive_their_names() {
    for code in RefusalCode::ALL {
        assert_eq!(RefusalCode::parse(code.as_str()), Some(code));
    }
    for cause in WaitCause::ALL {
        assert_eq!(WaitCause::parse(cause.as_str()), Some(cause));
    }
    for billing in [Billing::Metered, Billing::Subscription, Billing::Free] {
        assert_eq!(Billing::parse(billing.as_str()), Some(billing));
    }
}
