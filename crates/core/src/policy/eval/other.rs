//! `routing.*`, `lifecycle.*`, `lease.*`, `fleet.*`, `pace.*`

use crate::policy::eval::RuleResult;
use crate::policy::eval::input::{Failure, Fields};
use crate::policy::eval::json::Json;
use crate::policy::eval::output::Answer;
use crate::policy::fleet::{self, DEAD_AFTER_S, FleetError, HealthLimits, STALE_AFTER_S, Worker};
use crate::policy::lease::{self, LeaseError};
use crate::policy::lifecycle::TaskState;
use crate::policy::pace::{self, PaceError};
use crate::policy::routing::{self, Backend, BackendKind, NegativeVram, Requirements, SdkUse, Selection};

impl From<NegativeVram> for Failure {
    fn from(error: NegativeVram) -> Failure {
        Failure::Code(error.code())
    }
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Failure {
        Failure::Code(error.code())
    }
}

impl From<FleetError> for Failure {
    fn from(error: FleetError) -> Failure {
        Failure::Code(error.code())
    }
}

impl From<PaceError> for Failure {
    fn from(error: PaceError) -> Failure {
        Failure::Code(error.code())
    }
}

pub(super) fn select(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["backends", "requirements", "allow_sdk"])?;
    let backends: Vec<Backend> =
        fields.list("backends")?.iter().map(backend).collect::<Result<_, &'static str>>()?;
    let asks = fields.object("requirements", &["tool", "min_vram_gb", "image"])?;
    let requirements = Requirements {
        tool: asks.text_or_none("tool")?.map(str::to_owned),
        min_vram_gb: asks.dec_or_none("min_vram_gb")?,
        image: asks.text_or_none("image")?.map(str::to_owned),
    };
    let sdk = if fields.bool_or_false("allow_sdk")? { SdkUse::Allowed } else { SdkUse::Denied };
    match routing::select_backend(&backends, &requirements, sdk)? {
        Selection::Backend(chosen) => {
            ok.text("name", &chosen.name);
            ok.word("kind", chosen.kind.as_str());
            Ok(())
        }
        Selection::NoneEligible(refused) => Err(Failure::NoBackend(
            refused.into_iter().map(|(backend, why)| (backend.name.clone(), why.as_str())).collect(),
        )),
    }
}

fn backend(value: &Json<'_>) -> Result<Backend, &'static str> {
    let fields = Fields::of(value, &["name", "kind", "has_gpu", "available_vram_gb", "images", "tools"])?;
    // Looked at for its type only: the figure decides.
    fields.bool_or_false("has_gpu")?;
    Ok(Backend {
        name: fields.text("name")?.to_owned(),
        kind: BackendKind::parse(fields.text("kind")?).ok_or("unknown_kind")?,
        available_vram_gb: fields.dec_or_none("available_vram_gb")?,
        images: fields.texts_or_none("images")?,
        tools: fields.texts_or_none("tools")?,
    })
}

pub(super) fn vram_fits(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["available", "required"])?;
    let (available, required) = (fields.dec_or_none("available")?, fields.dec_or_none("required")?);
    ok.bool("fits", routing::vram_fits(available, required)?);
    Ok(())
}

pub(super) fn can_transition(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["from", "to"])?;
    let state = |name| TaskState::parse(fields.text(name)?).ok_or("unknown_state");
    let (from, to) = (state("from")?, state("to")?);
    ok.bool("legal", from.can_transition(to));
    Ok(())
}

pub(super) fn is_stale(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["leased_at", "now", "ttl"])?;
    let stale = lease::is_stale(fields.int("leased_at")?, fields.int("now")?, fields.int("ttl")?)?;
    ok.bool("stale", stale);
    Ok(())
}

pub(super) fn should_give_up(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["attempts", "max_attempts"])?;
    let give_up = lease::should_give_up(fields.int("attempts")?, fields.int("max_attempts")?)?;
    ok.bool("give_up", give_up);
    Ok(())
}

/// The two ages; that they do not fit each other is an error of the rule, not of the shape.
fn limits(fields: &Fields<'_, '_>) -> Result<Result<HealthLimits, FleetError>, &'static str> {
    let stale_after = fields.int_or("stale_after", STALE_AFTER_S)?;
    let dead_after = fields.int_or("dead_after", DEAD_AFTER_S)?;
    Ok(HealthLimits::new(stale_after, dead_after))
}

pub(super) fn worker_health(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["last_seen", "now", "stale_after", "dead_after"])?;
    let (last_seen, now) = (fields.int("last_seen")?, fields.int("now")?);
    let limits = limits(&fields)??;
    ok.word("health", limits.health(last_seen, now).as_str());
    Ok(())
}

pub(super) fn summarize(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["workers", "now", "stale_after", "dead_after"])?;
    let workers: Vec<Worker<'_>> =
        fields.list("workers")?.iter().map(worker).collect::<Result<_, &'static str>>()?;
    let now = fields.int("now")?;
    let summary = fleet::summarize(&workers, now, limits(&fields)?)?;
    ok.int("total", summary.total);
    ok.int("healthy", summary.healthy);
    ok.int("stale", summary.stale);
    ok.int("dead", summary.dead);
    ok.int("busy", summary.busy);
    ok.int("idle", summary.idle);
    ok.int("gpu_healthy", summary.gpu_healthy);
    Ok(())
}

fn worker<'a>(value: &'a Json<'_>) -> Result<Worker<'a>, &'static str> {
    let fields = Fields::of(value, &["name", "last_seen", "gpu", "vram_gb", "current_task", "recent_rtf"])?;
    Ok(Worker {
        name: fields.text("name")?,
        last_seen: fields.int("last_seen")?,
        gpu: fields.bool_or_false("gpu")?,
        vram_gb: fields.dec_or_none("vram_gb")?,
        current_task: fields.text_or_none("current_task")?,
        recent_rtf: fields.dec_or_none("recent_rtf")?,
    })
}

pub(super) fn real_time_factor(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["wall", "work"])?;
    match pace::real_time_factor(fields.int("wall")?, fields.int("work")?)? {
        Some(factor) => ok.ratio("rtf", &factor),
        None => ok.null("rtf"),
    }
    Ok(())
}

pub(super) fn is_overrunning(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["work", "elapsed", "rtf_ceiling"])?;
    let (work, elapsed) = (fields.int("work")?, fields.int("elapsed")?);
    ok.bool("overrunning", pace::is_overrunning(work, elapsed, fields.dec("rtf_ceiling")?)?);
    Ok(())
}
