//! Where a task runs: the first backend, in a fixed order of kinds, that offers what it asks for (policy section 4).

use std::fmt;

use crate::policy::dec::{Dec, ONE};
use crate::protocol::fraction::Fraction;
use crate::protocol::task::Requires;

/// What a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendKind {
    /// The profile's agent on this node.
    Local,
    /// Another node's lane.
    LanWorker,
    /// An existing engine's own client, as a supervised command.
    CloudWorker,
    /// A profile whose agent calls a hosted API.
    Sdk,
}

impl BackendKind {
    /// All kinds, in the order in which they are preferred.
    pub const ALL: [BackendKind; 4] =
        [BackendKind::Local, BackendKind::LanWorker, BackendKind::CloudWorker, BackendKind::Sdk];

    /// The word in the configuration, in heartbeats and in results.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            BackendKind::Local => "local",
            BackendKind::LanWorker => "lan_worker",
            BackendKind::CloudWorker => "cloud_worker",
            BackendKind::Sdk => "sdk",
        }
    }

    /// The kind of that word.
    #[must_use]
    pub fn parse(text: &str) -> Option<BackendKind> {
        BackendKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a backend offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: BackendKind,
    /// Video memory in GB; `None` without a GPU. This figure decides, whatever `has_gpu` says elsewhere.
    pub available_vram_gb: Option<Dec>,
    /// Container images it runs; `None` is any.
    pub images: Option<Vec<String>>,
    /// Tools it runs; `None` is any.
    pub tools: Option<Vec<String>>,
}

/// What a task asks of a backend (protocol section 3, `requires`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// A tool.
    pub tool: Option<String>,
    /// Video memory in GB. Nothing at all is a requirement too: it needs a GPU.
    pub min_vram_gb: Option<Dec>,
    /// A container image.
    pub image: Option<String>,
}

impl From<&Requires> for Requirements {
    fn from(requires: &Requires) -> Requirements {
        Requirements {
            tool: requires.tool.clone(),
            min_vram_gb: requires.min_vram_gb.map(gigabytes),
            image: requires.image.clone(),
        }
    }
}

/// An amount of memory as the rules compute with it.
#[must_use]
pub fn gigabytes(amount: Fraction) -> Dec {
    // A thousandth is 10^9 units of 10^-12.
    Dec::from_units(i128::from(amount.thousandths()).saturating_mul(ONE / 1_000))
}

/// Whether a hosted API may be used: only when the task *and* the node allow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SdkUse {
    /// It may not.
    #[default]
    Denied,
    /// Both allow it.
    Allowed,
}

/// Why a backend is not eligible; the first that holds is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WhyNot {
    /// It is a hosted API, and that is not allowed.
    SdkNotAllowed,
    /// It has no GPU.
    NoGpu,
    /// Its GPU has too little memory.
    VramTooSmall,
    /// It does not run the image.
    ImageNotOffered,
    /// It does not run the tool, or runs certain tools and the task names none.
    ToolNotOffered,
    /// It is a node that the task came through; said by whoever offers backends to the rule, never by the rule itself.
    CameThrough,
}

impl WhyNot {
    /// The name in `policy eval` and in explanations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            WhyNot::SdkNotAllowed => "sdk_not_allowed",
            WhyNot::NoGpu => "no_gpu",
            WhyNot::VramTooSmall => "vram_too_small",
            WhyNot::ImageNotOffered => "image_not_offered",
            WhyNot::ToolNotOffered => "tool_not_offered",
            WhyNot::CameThrough => "came_through",
        }
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A figure below nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an amount of video memory is negative")]
pub struct NegativeVram;

impl NegativeVram {
    /// The code in `policy eval`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        "negative_vram"
    }
}

/// The choice of a backend.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection<'b> {
    /// This one.
    Backend(&'b Backend),
    /// None, and why not each of them, in configured order.
    NoneEligible(Vec<(&'b Backend, WhyNot)>),
}

/// The first eligible backend: by kind in the order of [`BackendKind::ALL`], then in configured order.
///
/// # Errors
/// A negative figure of any backend or of the task.
pub fn select_backend<'b>(
    backends: &'b [Backend],
    requirements: &Requirements,
    sdk: SdkUse,
) -> Result<Selection<'b>, NegativeVram> {
    let figures = backends.iter().map(|backend| backend.available_vram_gb);
    if figures.chain([requirements.min_vram_gb]).flatten().any(Dec::is_negative) {
        return Err(NegativeVram);
    }
    let mut eligible: Option<&Backend> = None;
    let mut refused = Vec::new();
    for backend in backends {
        match why_not(backend, requirements, sdk) {
            Some(reason) => refused.push((backend, reason)),
            // Only a kind that is preferred more replaces an earlier one.
            None if eligible.is_none_or(|best| backend.kind < best.kind) => eligible = Some(backend),
            None => {}
        }
    }
    Ok(eligible.map_or(Selection::NoneEligible(refused), Selection::Backend))
}

/// Whether a GPU has enough memory: no requirement fits anywhere, one without a GPU never fits.
///
/// # Errors
/// A negative figure.
pub fn vram_fits(available: Option<Dec>, required: Option<Dec>) -> Result<bool, NegativeVram> {
    if [available, required].into_iter().flatten().any(Dec::is_negative) {
        return Err(NegativeVram);
    }
    Ok(match (available, required) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(available), Some(required)) => available >= required,
    })
}

/// The first reason against a backend whose figures are known not to be negative.
fn why_not(backend: &Backend, requirements: &Requirements, sdk: SdkUse) -> Option<WhyNot> {
    if backend.kind == BackendKind::Sdk && sdk == SdkUse::Denied {
        return Some(WhyNot::SdkNotAllowed);
    }
    if !vram_fits(backend.available_vram_gb, requirements.min_vram_gb).unwrap_or(false) {
        let no_gpu = backend.available_vram_gb.is_none();
        return Some(if no_gpu { WhyNot::NoGpu } else { WhyNot::VramTooSmall });
    }
    let offers = |offered: &Option<Vec<String>>, asked: Option<&String>| {
        offered.as_ref().is_none_or(|list| asked.is_some_and(|asked| list.contains(asked)))
    };
    if requirements.image.is_some() {
        // What runs in an image brings its tools along.
        (!offers(&backend.images, requirements.image.as_ref())).then_some(WhyNot::ImageNotOffered)
    } else {
        (!offers(&backend.tools, requirements.tool.as_ref())).then_some(WhyNot::ToolNotOffered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn word() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
    }

    fn backend() -> impl Strategy<Value = Backend> {
        (
            prop::sample::select(BackendKind::ALL.to_vec()),
            prop::option::of(0..4_i128),
            prop::option::of(prop::collection::vec(word(), 0..3)),
            prop::option::of(prop::collection::vec(word(), 0..3)),
        )
            .prop_map(|(kind, vram, images, tools)| Backend {
                name: "x".to_owned(),
                kind,
                available_vram_gb: vram.map(Dec::from_units),
                images,
                tools,
            })
    }

    fn requirements() -> impl Strategy<Value = Requirements> {
        (prop::option::of(word()), prop::option::of(0..4_i128), prop::option::of(word())).prop_map(
            |(tool, vram, image)| Requirements { tool, min_vram_gb: vram.map(Dec::from_units), image },
        )
    }

    /// The rule once more, as section 4 says it.
    fn satisfies(backend: &Backend, asks: &Requirements, sdk: SdkUse) -> bool {
        let sdk_fits = backend.kind != BackendKind::Sdk || sdk == SdkUse::Allowed;
        let vram = match (asks.min_vram_gb, backend.available_vram_gb) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(least), Some(there)) => there >= least,
        };
        let software = match (&asks.image, &asks.tool) {
            (Some(image), _) => backend.images.as_ref().is_none_or(|images| images.contains(image)),
            (None, Some(tool)) => backend.tools.as_ref().is_none_or(|tools| tools.contains(tool)),
            (None, None) => backend.tools.is_none(),
        };
        sdk_fits && vram && software
    }

    #[test]
    fn a_task_asks_for_the_memory_it_says() {
        let min_vram_gb = Fraction::from_wire("23.5").ok();
        let asks = Requirements::from(&Requires { min_vram_gb, ..Requires::default() });
        assert_eq!(asks.min_vram_gb, Dec::parse("23.5").ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn select_backend_never_returns_what_the_requirements_deny(
            backends in prop::collection::vec(backend(), 0..6),
            asks in requirements(),
            sdk in prop::sample::select(vec![SdkUse::Denied, SdkUse::Allowed]),
        ) {
            let mut fitting: Vec<&Backend> =
                backends.iter().filter(|backend| satisfies(backend, &asks, sdk)).collect();
            // A stable sort keeps the configured order within a kind.
            fitting.sort_by_key(|backend| backend.kind);
            match select_backend(&backends, &asks, sdk).unwrap() {
                Selection::Backend(chosen) => prop_assert!(std::ptr::eq(chosen, fitting[0])),
                Selection::NoneEligible(reasons) => {
                    prop_assert!(fitting.is_empty());
                    prop_assert_eq!(reasons.len(), backends.len());
                }
            }
        }
    }
}
