//! `budget.*`

use crate::policy::budget::{self, Admits, BudgetError, EstimateError, MachineRates, MachineUse, Pricing};
use crate::policy::eval::RuleResult;
use crate::policy::eval::input::{Failure, Fields};
use crate::policy::eval::json::Json;
use crate::policy::eval::output::Answer;
use crate::policy::window::{Balance, Caps, PerWindow, Window};

impl From<BudgetError> for Failure {
    fn from(error: BudgetError) -> Failure {
        Failure::Code(error.code())
    }
}

impl From<EstimateError> for Failure {
    fn from(error: EstimateError) -> Failure {
        Failure::Code(error.code())
    }
}

const WINDOWS: [&str; 5] = ["run", "day", "month", "sender", "tree"];

fn balance(value: &Json<'_>) -> Result<Balance, &'static str> {
    let fields = Fields::of(value, &["reserved", "spent"])?;
    Ok(Balance { reserved: fields.usd_or_zero("reserved")?, spent: fields.usd_or_zero("spent")? })
}

pub(super) fn admits(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["estimate", "states", "caps"])?;
    let estimate = fields.usd("estimate")?;
    let states = fields.object("states", &WINDOWS)?;
    let names = PerWindow { run: "run", day: "day", month: "month", sender: "sender", tree: "tree" };
    let balances = names.try_map(|name| states.given(name).map_or(Ok(Balance::default()), balance))?;
    let given = fields.object("caps", &WINDOWS)?;
    let caps = Caps {
        run: given.usd_or_zero("run")?,
        day: given.usd_or_none("day")?,
        month: given.usd_or_zero("month")?,
        sender: given.usd_or_none("sender")?,
        tree: given.usd_or_none("tree")?,
    };
    let (refused, reason) = match budget::admits(estimate, &balances, &caps)? {
        Admits::WithinBudget => (None, "within_budget"),
        Admits::OverCap { window, .. } => (Some(window), "over_cap"),
        Admits::NegativeEstimate => (None, "negative_estimate"),
    };
    ok.bool("admitted", reason == "within_budget");
    match refused.map(Window::as_str) {
        Some(window) => ok.word("refused_window", window),
        None => ok.null("refused_window"),
    }
    ok.word("reason", reason);
    Ok(())
}

pub(super) fn estimate(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["task", "profile", "rates", "max_runtime_s", "vcpus", "memory_gib"])?;
    let task = fields.object("task", &["max_cost_usd"])?;
    let profile = fields.object("profile", &["max_cost_usd", "overshoot_usd"])?;
    let rates = fields.nullable("rates").map(machine_rates).transpose()?;
    let sizes = (
        fields.int_or_none("max_runtime_s")?,
        fields.int_or_none("vcpus")?,
        fields.int_or_none("memory_gib")?,
    );
    let mut pricing = Pricing {
        task_max_cost_usd: task.usd_or_none("max_cost_usd")?,
        profile_max_cost_usd: profile.usd_or_none("max_cost_usd")?,
        approved_max_cost_usd: None,
        overshoot_usd: profile.usd_or_none("overshoot_usd")?,
        machine: None,
    };
    if let Some(rates) = rates {
        // A size left out comes before everything that the rule itself asks.
        let (Some(max_runtime_s), Some(vcpus), Some(memory_gib)) = sizes else {
            return Err("missing_member".into());
        };
        pricing.machine = Some(MachineUse { rates, max_runtime_s, vcpus, memory_gib });
    }
    ok.usd("estimate", budget::estimate(&pricing)?);
    Ok(())
}

fn machine_rates(value: &Json<'_>) -> Result<MachineRates, &'static str> {
    let fields = Fields::of(value, &["gpu", "vcpu", "gib", "idle_tail_s"])?;
    Ok(MachineRates {
        gpu: fields.usd("gpu")?,
        vcpu: fields.usd("vcpu")?,
        gib: fields.usd("gib")?,
        idle_tail_s: fields.int_or("idle_tail_s", 0)?,
    })
}

pub(super) fn reserve(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["state", "estimate"])?;
    let (state, estimate) = (balance(fields.required("state")?)?, fields.usd("estimate")?);
    write_balance(budget::reserve(state, estimate)?, ok);
    Ok(())
}

pub(super) fn reconcile(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["state", "estimate", "actual"])?;
    let state = balance(fields.required("state")?)?;
    let (estimate, actual) = (fields.usd("estimate")?, fields.usd("actual")?);
    write_balance(budget::reconcile(state, estimate, actual)?, ok);
    Ok(())
}

pub(super) fn release(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["state", "estimate"])?;
    let (state, estimate) = (balance(fields.required("state")?)?, fields.usd("estimate")?);
    write_balance(budget::release(state, estimate)?, ok);
    Ok(())
}

fn write_balance(balance: Balance, ok: &mut Answer) {
    ok.usd("reserved", balance.reserved);
    ok.usd("spent", balance.spent);
}
