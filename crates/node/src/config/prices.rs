//! What models cost: the shipped table, and what the file lays over it.

use std::collections::BTreeMap;
use std::path::Path;

use dispatch_core::policy::admission::Billing;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::price::{LongPrompt, Price, PriceTable, Rates};
use dispatch_core::policy::window::Day;
use dispatch_core::protocol::names::Name;
use dispatch_core::protocol::time::{DAY_MS, Timestamp};
use toml::de::DeTable;

use super::error::{ConfigError, Problem};
use super::section::{Section, Source};
use super::{AgentKind, Effective, Profile};

/// Public list prices, with their date and source.
const SHIPPED: &str = include_str!("prices.toml");
/// A price that was looked up longer ago than this may be another one by now.
const OLD_AFTER_DAYS: i64 = 90;
/// Tokens of the largest context and the longest answer that a price may name.
const TOKENS_MAX: u64 = 1_000_000_000;

/// What models cost, and when somebody looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    table: PriceTable,
    as_of: BTreeMap<String, Day>,
}

impl Prices {
    /// The prices.
    #[must_use]
    pub const fn table(&self) -> &PriceTable {
        &self.table
    }

    /// The day on which the oldest price in use was looked up; `None` for an empty table.
    #[must_use]
    pub fn oldest(&self) -> Option<Day> {
        self.as_of.values().copied().min()
    }

    /// The models whose prices are older than 90 days at `now`.
    #[must_use]
    pub fn old_at(&self, now: Timestamp) -> Vec<&str> {
        let newest_old = Day::of(now.plus_ms(OLD_AFTER_DAYS.saturating_mul(DAY_MS).saturating_neg()));
        self.as_of.iter().filter(|(_, day)| **day < newest_old).map(|(model, _)| model.as_str()).collect()
    }
}

/// The shipped prices under those of the file.
pub(super) fn prices(top: &mut Section<'_>, effective: &mut Vec<Effective>) -> Result<Prices, ConfigError> {
    let source = Source { file: Path::new("the prices that come with this release"), text: SHIPPED };
    let shipped = DeTable::parse(SHIPPED).map_err(|bad| {
        let line = bad.span().map(|span| source.line_of(span.start));
        source.error(line, Problem::NotToml { message: bad.message().to_owned() })
    })?;
    let mut rows = read(&mut Section::top(source, shipped.get_ref()), &mut Vec::new())?;
    rows.append(&mut read(top, effective)?);
    let as_of = rows.iter().map(|(model, (_, day))| (model.clone(), *day)).collect();
    let table = PriceTable::new(rows.into_iter().map(|(model, (price, _))| (model, price)).collect());
    Ok(Prices { table, as_of })
}

fn read(
    top: &mut Section<'_>,
    effective: &mut Vec<Effective>,
) -> Result<BTreeMap<String, (Price, Day)>, ConfigError> {
    let mut rows = BTreeMap::new();
    for (model, mut section) in top.children("price")? {
        let day = |text: &str| Day::parse(text).ok_or("a day like 2026-11-21");
        let as_of = section.required_text("as_of", day)?;
        let price = price(&mut section)?;
        effective.append(&mut section.finish()?);
        rows.insert(model, (price, as_of));
    }
    Ok(rows)
}

fn price(section: &mut Section<'_>) -> Result<Price, ConfigError> {
    let rates = Rates {
        input: section.required_text("input_usd", Usd::from_wire)?,
        output: section.required_text("output_usd", Usd::from_wire)?,
        cache_read: section.required_text("cache_read_usd", Usd::from_wire)?,
        cache_write_5m: section.required_text("cache_write_5m_usd", Usd::from_wire)?,
        cache_write_1h: section.required_text("cache_write_1h_usd", Usd::from_wire)?,
    };
    let context_tokens = section.number("context_tokens", 1..=TOKENS_MAX)?;
    let output_tokens = section.number("output_tokens", 1..=TOKENS_MAX)?;
    let long = match section.number("long_above_tokens", 1..=TOKENS_MAX)? {
        None => None,
        Some(above_tokens) => Some(LongPrompt {
            above_tokens,
            rates: Rates {
                input: section.required_text("long_input_usd", Usd::from_wire)?,
                output: section.required_text("long_output_usd", Usd::from_wire)?,
                cache_read: section.required_text("long_cache_read_usd", Usd::from_wire)?,
                cache_write_5m: section.required_text("long_cache_write_5m_usd", Usd::from_wire)?,
                cache_write_1h: section.required_text("long_cache_write_1h_usd", Usd::from_wire)?,
            },
        }),
    };
    Ok(Price {
        rates,
        long,
        context_tokens: context_tokens.ok_or_else(|| section.missing("context_tokens"))?,
        output_tokens: output_tokens.ok_or_else(|| section.missing("output_tokens"))?,
    })
}

/// A metered coding agent must have a price for every model it may use, and an overshoot that holds what can be spent
/// before it is seen: a cap that is never exceeded must hold that too.
pub(super) fn check_overshoot(
    top: &Section<'_>,
    profiles: &BTreeMap<Name, Profile>,
    prices: &Prices,
) -> Result<(), ConfigError> {
    for (name, profile) in profiles {
        let refuse = |key: &str, why: String| {
            Err(top.error_at("profile", Problem::value(format!("profile.{name}.{key}"), &why)))
        };
        if profile.billing != Billing::Metered || profile.agent == AgentKind::Command {
            continue;
        }
        let least = match profile.least_overshoot(prices.table()) {
            Ok(least) => least,
            Err(why) => {
                return refuse(
                    "models",
                    format!("{why}: add a [price.MODEL] for it, or take it off the list"),
                );
            }
        };
        if profile.overshoot.is_none_or(|overshoot| overshoot < least) {
            let requests = profile.parallel_requests;
            return refuse(
                "overshoot_usd",
                format!(
                    "at least \"{least}\": what {requests} request(s) of the dearest model allowed can cost before \
                     that is seen; name fewer `models`, or lower `output_tokens_max` or `parallel_requests`, for less"
                ),
            );
        }
    }
    Ok(())
}
