//! How an attempt is metered, and what the meter came to.

use std::collections::BTreeMap;

use dispatch_core::policy::dec::Dec;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::price::{LongPrompt, Price, PriceTable, Rates};
use dispatch_core::protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::text;

/// In `order.json`: what the agent may use, what that costs, and when somebody is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metering {
    /// The part of the ceiling that is worth a word.
    #[serde(with = "text")]
    pub soft_ratio: Dec,
    /// The models it may use, the one it works with first; empty: as it chooses.
    pub models: Vec<String>,
    /// The longest answer of a model, in tokens.
    pub output_tokens_max: u64,
    /// Requests it may have open at once; 1 forbids subagents.
    pub parallel_requests: u32,
    /// What models cost.
    pub prices: BTreeMap<String, ModelPrice>,
}

impl Metering {
    /// The prices as the rules take them.
    #[must_use]
    pub fn table(&self) -> PriceTable {
        PriceTable::new(self.prices.iter().map(|(name, price)| (name.clone(), price.price())).collect())
    }

    /// The prices of a table as an order holds them.
    #[must_use]
    pub fn prices_of(table: &PriceTable) -> BTreeMap<String, ModelPrice> {
        table.iter().map(|(name, price)| (name.to_owned(), ModelPrice::of(price))).collect()
    }
}

/// A model's price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPrice {
    rates: ModelRates,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    long_above_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    long: Option<ModelRates>,
    context_tokens: u64,
    output_tokens: u64,
}

/// Dollars for a million tokens of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelRates {
    #[serde(with = "text")]
    input: Usd,
    #[serde(with = "text")]
    output: Usd,
    #[serde(with = "text")]
    cache_read: Usd,
    #[serde(with = "text")]
    cache_write_5m: Usd,
    #[serde(with = "text")]
    cache_write_1h: Usd,
}

impl ModelPrice {
    fn of(price: &Price) -> ModelPrice {
        ModelPrice {
            rates: ModelRates::of(&price.rates),
            long_above_tokens: price.long.map(|long| long.above_tokens),
            long: price.long.map(|long| ModelRates::of(&long.rates)),
            context_tokens: price.context_tokens,
            output_tokens: price.output_tokens,
        }
    }

    fn price(&self) -> Price {
        let long = self.long_above_tokens.zip(self.long);
        Price {
            rates: self.rates.rates(),
            long: long.map(|(above_tokens, rates)| LongPrompt { above_tokens, rates: rates.rates() }),
            context_tokens: self.context_tokens,
            output_tokens: self.output_tokens,
        }
    }
}

impl ModelRates {
    const fn of(rates: &Rates) -> ModelRates {
        let Rates { input, output, cache_read, cache_write_5m, cache_write_1h } = *rates;
        ModelRates { input, output, cache_read, cache_write_5m, cache_write_1h }
    }

    const fn rates(self) -> Rates {
        let ModelRates { input, output, cache_read, cache_write_5m, cache_write_1h } = self;
        Rates { input, output, cache_read, cache_write_5m, cache_write_1h }
    }
}

/// `near_ceiling.json`: the agent's spend has reached the soft part of its ceiling. Written once, and synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearCeiling {
    /// The lease's fencing number.
    pub epoch: u64,
    /// When it was seen.
    #[serde(with = "text")]
    pub at: Timestamp,
    /// What was spent then, as the meter has it.
    #[serde(with = "text")]
    pub usd: Usd,
    /// The ceiling.
    #[serde(with = "text")]
    pub ceiling_usd: Usd,
}

/// In `outcome.json`: what the meter came to, whatever the agent itself says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metered {
    /// What the usage comes to that was heard, rounded up to six places.
    #[serde(with = "text")]
    pub usd: Usd,
    /// Models without a price: their tokens are paid at the dearest rates.
    pub unknown_models: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    #[test]
    fn an_order_carries_every_price_of_the_configuration() {
        let text = "root = \"/s\"\nnode = \"a\"\nstate = \"/v\"\ncluster = \"00000000-0000-4000-8000-000000000000\"\n";
        let config = Config::check(std::path::Path::new("/d"), text, &Environment::empty()).unwrap();
        let prices = Metering::prices_of(config.prices.table());
        let metering = Metering {
            soft_ratio: Dec::ONE,
            models: Vec::new(),
            output_tokens_max: 1,
            parallel_requests: 1,
            prices,
        };
        let written = serde_json::to_string(&metering).unwrap();
        let read: Metering = serde_json::from_str(&written).unwrap();
        assert_eq!(&read.table(), config.prices.table());
        assert!(read.table().iter().any(|(_, price)| price.long.is_some()));
    }
}
