//! What tokens cost: rates of models, and the price of usage as it is heard (policy section 1, "live metering").
//!
//! Everything is exact: a rate has at most six places, a price at most twelve. Rounding happens once, where a figure
//! leaves this module for a result.

use std::collections::BTreeMap;

use rust_decimal::{Decimal, RoundingStrategy};

use crate::policy::money::{Usd, WIRE_FRACTION_DIGITS_MAX};

/// Tokens that a rate is for.
const PER_TOKENS: u64 = 1_000_000;
/// Digits of a date behind a model's name.
const DATE_DIGITS: usize = 8;

/// Tokens of one kind each, as a model's provider bills them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read, and in no cache.
    pub input: u64,
    /// Written by the model.
    pub output: u64,
    /// Read from a cache.
    pub cache_read: u64,
    /// Put into a cache for five minutes.
    pub cache_write_5m: u64,
    /// Put into a cache for an hour.
    pub cache_write_1h: u64,
}

impl Tokens {
    /// All that the model had in front of it.
    #[must_use]
    pub const fn prompt(&self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write_5m)
            .saturating_add(self.cache_write_1h)
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.prompt().saturating_add(self.output)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Tokens) -> Tokens {
        self.each(other, u64::saturating_add)
    }

    /// The larger of each kind: what is said of a message twice is one figure that grew.
    #[must_use]
    pub fn largest(self, other: Tokens) -> Tokens {
        self.each(other, u64::max)
    }

    fn each(self, other: Tokens, both: fn(u64, u64) -> u64) -> Tokens {
        Tokens {
            input: both(self.input, other.input),
            output: both(self.output, other.output),
            cache_read: both(self.cache_read, other.cache_read),
            cache_write_5m: both(self.cache_write_5m, other.cache_write_5m),
            cache_write_1h: both(self.cache_write_1h, other.cache_write_1h),
        }
    }
}

/// Dollars for a million tokens of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Read, and in no cache.
    pub input: Usd,
    /// Written by the model.
    pub output: Usd,
    /// Read from a cache.
    pub cache_read: Usd,
    /// Put into a cache for five minutes.
    pub cache_write_5m: Usd,
    /// Put into a cache for an hour.
    pub cache_write_1h: Usd,
}

impl Rates {
    /// What tokens cost; `None` where the sum cannot be held.
    #[must_use]
    pub fn cost(&self, tokens: &Tokens) -> Option<Usd> {
        let parts = [
            (self.input, tokens.input),
            (self.output, tokens.output),
            (self.cache_read, tokens.cache_read),
            (self.cache_write_5m, tokens.cache_write_5m),
            (self.cache_write_1h, tokens.cache_write_1h),
        ];
        parts.into_iter().try_fold(Usd::ZERO, |sum, (rate, count)| sum.checked_add(of_tokens(rate, count)?))
    }

    /// The dearest way in which a token of a prompt is billed when nothing is cached for longer than five minutes.
    fn dearest_input(&self) -> Usd {
        self.input.max(self.cache_read).max(self.cache_write_5m)
    }

    fn largest(self, other: Rates) -> Rates {
        Rates {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
            cache_read: self.cache_read.max(other.cache_read),
            cache_write_5m: self.cache_write_5m.max(other.cache_write_5m),
            cache_write_1h: self.cache_write_1h.max(other.cache_write_1h),
        }
    }
}

fn of_tokens(rate: Usd, count: u64) -> Option<Usd> {
    let product = rate.decimal().checked_mul(Decimal::from(count))?;
    product.checked_div(Decimal::from(PER_TOKENS)).map(Usd::from_decimal)
}

/// Other rates for every token of a request whose prompt is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongPrompt {
    /// From a prompt of more tokens than these on.
    pub above_tokens: u64,
    /// What is paid then.
    pub rates: Rates,
}

/// What a model costs, and how much one request of it can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// What is paid.
    pub rates: Rates,
    /// What is paid for long prompts, where that differs.
    pub long: Option<LongPrompt>,
    /// The longest prompt, in tokens.
    pub context_tokens: u64,
    /// The longest answer, in tokens.
    pub output_tokens: u64,
}

impl Price {
    /// What one request costs; `None` where the sum cannot be held.
    #[must_use]
    pub fn cost(&self, tokens: &Tokens) -> Option<Usd> {
        match &self.long {
            Some(long) if tokens.prompt() > long.above_tokens => long.rates.cost(tokens),
            Some(_) | None => self.rates.cost(tokens),
        }
    }

    /// The most that one request can cost whose answer is limited to `output_limit` tokens: a whole context, read in
    /// the dearest way, and the longest answer.
    #[must_use]
    pub fn largest_request(&self, output_limit: u64) -> Option<Usd> {
        let rates = self.long.map_or(self.rates, |long| long.rates.largest(self.rates));
        let read = of_tokens(rates.dearest_input(), self.context_tokens)?;
        read.checked_add(of_tokens(rates.output, output_limit.min(self.output_tokens))?)
    }

    fn dearest(self, other: Price) -> Price {
        let long = match (self.long, other.long) {
            (Some(one), Some(other)) => Some(LongPrompt {
                above_tokens: one.above_tokens.min(other.above_tokens),
                rates: one.rates.largest(other.rates),
            }),
            (one, other) => one.or(other),
        };
        let rates = self.rates.largest(other.rates);
        Price {
            rates,
            // A long prompt of one model must not come out cheaper than a short one of another.
            long: long.map(|long| LongPrompt { rates: long.rates.largest(rates), ..long }),
            context_tokens: self.context_tokens.max(other.context_tokens),
            output_tokens: self.output_tokens.max(other.output_tokens),
        }
    }
}

/// What models cost, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceTable {
    prices: BTreeMap<String, Price>,
}

/// What a table says of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priced {
    /// The model's own price.
    Known(Price),
    /// The table does not know the model: each rate is the dearest in the table.
    Dearest(Price),
}

impl Priced {
    /// The price, wherever it comes from.
    #[must_use]
    pub const fn price(&self) -> &Price {
        match self {
            Priced::Known(price) | Priced::Dearest(price) => price,
        }
    }
}

/// Input that no overshoot can be computed from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OvershootError {
    /// A model without a price.
    #[error("the price table has no model `{model}`")]
    NoPrice {
        /// The model.
        model: String,
    },
    /// No model at all.
    #[error("the price table is empty")]
    EmptyTable,
    /// A product that cannot be held.
    #[error("the price of the largest request is out of range")]
    OutOfRange,
}

impl PriceTable {
    /// A table of these models.
    #[must_use]
    pub const fn new(prices: BTreeMap<String, Price>) -> PriceTable {
        PriceTable { prices }
    }

    /// The models with their prices, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Price)> {
        self.prices.iter().map(|(name, price)| (name.as_str(), price))
    }

    /// True when it has no model.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prices.is_empty()
    }

    /// The price of a model under one of the names agents use for it: as in the table, with a date behind it
    /// (`-20251001`), with the size of a context window behind that (`[1m]`). `None` for a model without a price.
    #[must_use]
    pub fn known(&self, model: &str) -> Option<Price> {
        let plain = model.split_once('[').map_or(model, |(name, _)| name);
        let undated = plain.rsplit_once(['-', '@']).filter(|(_, date)| is_date(date)).map(|(name, _)| name);
        let names = [Some(model), Some(plain), undated];
        names.into_iter().flatten().find_map(|name| self.prices.get(name).copied())
    }

    /// The price of a model, the dearest of every kind where the table does not know it. `None` for an empty table.
    #[must_use]
    pub fn price(&self, model: &str) -> Option<Priced> {
        match self.known(model) {
            Some(price) => Some(Priced::Known(price)),
            None => self.prices.values().copied().reduce(Price::dearest).map(Priced::Dearest),
        }
    }

    /// What can be spent before it is seen: so many requests at once, each of the dearest of these models (of the whole
    /// table when none is named), as large as a context allows, with an answer of at most `output_limit` tokens. Rounded
    /// up to six places.
    ///
    /// # Errors
    /// A named model without a price, an empty table, or a product out of range.
    pub fn overshoot(
        &self,
        models: &[String],
        output_limit: u64,
        parallel_requests: u32,
    ) -> Result<Usd, OvershootError> {
        let named = models
            .iter()
            .map(|model| self.known(model).ok_or_else(|| OvershootError::NoPrice { model: model.clone() }));
        let prices = if models.is_empty() {
            self.prices.values().copied().collect()
        } else {
            named.collect::<Result<Vec<Price>, OvershootError>>()?
        };
        let mut largest = None;
        for price in prices {
            let request = price.largest_request(output_limit).ok_or(OvershootError::OutOfRange)?;
            largest = largest.max(Some(request));
        }
        let one = largest.ok_or(OvershootError::EmptyTable)?;
        let all = one.decimal().checked_mul(Decimal::from(parallel_requests));
        all.map(|all| rounded_up(Usd::from_decimal(all))).ok_or(OvershootError::OutOfRange)
    }
}

fn is_date(text: &str) -> bool {
    text.len() == DATE_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The figure that a result can hold: rounded up to six places, never down.
#[must_use]
pub fn rounded_up(usd: Usd) -> Usd {
    let places = u32::try_from(WIRE_FRACTION_DIGITS_MAX).unwrap_or(0);
    Usd::from_decimal(usd.decimal().round_dp_with_strategy(places, RoundingStrategy::ToPositiveInfinity))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Usd {
        Usd::from_wire(text).unwrap()
    }

    fn rates(input: &str, output: &str) -> Rates {
        Rates {
            input: usd(input),
            output: usd(output),
            cache_read: usd("0.2"),
            cache_write_5m: usd("5"),
            cache_write_1h: usd("8"),
        }
    }

    fn price(input: &str, output: &str) -> Price {
        Price { rates: rates(input, output), long: None, context_tokens: 1_000_000, output_tokens: 128_000 }
    }

    fn table(models: &[(&str, Price)]) -> PriceTable {
        PriceTable::new(models.iter().map(|(name, price)| ((*name).to_owned(), *price)).collect())
    }

    #[test]
    fn usage_is_priced_to_the_last_digit() {
        let tokens =
            Tokens { input: 100, output: 25, cache_read: 3_000, cache_write_5m: 2_000, cache_write_1h: 1 };
        assert_eq!(rates("4", "20").cost(&tokens), Some(usd("0.011508")));
        let one = Tokens { cache_read: 1, ..Tokens::default() };
        let exact = rates("4", "20").cost(&one).unwrap();
        assert_eq!((exact.to_string().as_str(), rounded_up(exact)), ("0.0000002", usd("0.000001")));
    }

    #[test]
    fn more_tokens_than_there_are_dollars_for_are_no_figure() {
        let dear = Rates { input: Usd::from_decimal(Decimal::MAX), ..Rates::default() };
        assert_eq!(dear.cost(&Tokens { input: 2, ..Tokens::default() }), None);
        let all = Tokens { input: u64::MAX, output: u64::MAX, ..Tokens::default() };
        assert!(rates("999999999999", "999999").cost(&all).is_none_or(Usd::is_positive));
    }

    #[test]
    fn a_long_prompt_is_paid_at_its_own_rates_as_a_whole() {
        let long = LongPrompt { above_tokens: 100_000, rates: rates("0.5", "2.5") };
        let price = Price { long: Some(long), ..price("0.1", "0.5") };
        let at = |input| price.cost(&Tokens { input, output: 1_000_000, ..Tokens::default() });
        assert_eq!(at(100_000), Some(usd("0.51")));
        assert_eq!(at(100_001).map(rounded_up), Some(usd("2.550001")));
    }

    #[test]
    fn a_model_is_known_by_its_dated_and_its_sized_names() {
        let table = table(&[("claude-haiku-4-5", price("1", "5"))]);
        for name in [
            "claude-haiku-4-5",
            "claude-haiku-4-5-20251001",
            "claude-haiku-4-5[1m]",
            "claude-haiku-4-5-20251001[1m]",
            "claude-haiku-4-5@20251001",
        ] {
            assert_eq!(table.price(name), Some(Priced::Known(price("1", "5"))), "{name}");
        }
        for name in ["claude-haiku-4", "claude-haiku-4-5-2025", "haiku", "", "claude-haiku-4-5-2025100x"] {
            assert_eq!(table.price(name), Some(Priced::Dearest(price("1", "5"))), "{name}");
        }
        assert_eq!(PriceTable::default().price("claude-haiku-4-5"), None);
    }

    #[test]
    fn an_unknown_model_pays_the_dearest_of_every_kind() {
        let table = table(&[("one", price("1", "50")), ("other", price("15", "5"))]);
        let Some(Priced::Dearest(dearest)) = table.price("new") else { panic!("{:?}", table.price("new")) };
        assert_eq!((dearest.rates.input, dearest.rates.output), (usd("15"), usd("50")));
    }

    #[test]
    fn overshoot_is_the_largest_request_of_the_dearest_model_allowed() {
        let models = [("small", price("1", "5")), ("large", price("6", "20"))];
        let table = table(&models);
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        // A prompt can be put into a cache as a whole, which is dearer than reading it.
        assert_eq!(table.overshoot(&named(&["small"]), 32_000, 1), Ok(usd("5.16")));
        assert_eq!(table.overshoot(&named(&["small", "large"]), 32_000, 1), Ok(usd("6.64")));
        assert_eq!(table.overshoot(&[], 32_000, 3), Ok(usd("19.92")));
        // No model answers with more than it can.
        assert_eq!(table.overshoot(&named(&["large"]), u64::MAX, 1), Ok(usd("8.56")));
        let unknown = OvershootError::NoPrice { model: "new".to_owned() };
        assert_eq!(table.overshoot(&named(&["small", "new"]), 1, 1), Err(unknown));
        assert_eq!(PriceTable::default().overshoot(&[], 1, 1), Err(OvershootError::EmptyTable));
    }
}
