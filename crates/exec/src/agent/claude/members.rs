//! One JSON object whose members are read one by one.
//!
//! The agent's format grows without notice: every member may be missing or of another type than yesterday, and that must
//! cost this one member only. A number keeps its text: money is never read through a float.

use std::collections::BTreeMap;

use dispatch_core::policy::money::Usd;
use dispatch_core::policy::price::Tokens;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// An object, taken apart as far as its members.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Members(BTreeMap<String, Box<RawValue>>);

impl Members {
    /// Reads an object; `None` for anything else.
    pub(super) fn read(bytes: &[u8]) -> Option<Members> {
        serde_json::from_slice(bytes).ok()
    }

    fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name)
    }

    /// A text, compared.
    pub(super) fn is(&self, name: &str, text: &str) -> bool {
        self.text(name).is_some_and(|found| found == text)
    }

    /// A number that counts something.
    pub(super) fn count(&self, name: &str) -> Option<u64> {
        self.get(name)
    }

    /// True only where it says so.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some(true)
    }

    /// True where it is there and not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.get() != "null")
    }

    /// An object; an empty one where there is none.
    pub(super) fn object(&self, name: &str) -> Members {
        self.get(name).unwrap_or_default()
    }

    /// The objects of a list, others left out.
    pub(super) fn objects(&self, name: &str) -> Vec<Members> {
        let list: Vec<Box<RawValue>> = self.get(name).unwrap_or_default();
        list.iter().filter_map(|item| serde_json::from_str(item.get()).ok()).collect()
    }

    /// The texts of a list, others left out.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let list: Vec<Box<RawValue>> = self.get(name).unwrap_or_default();
        list.iter().filter_map(|item| serde_json::from_str(item.get()).ok()).collect()
    }

    /// The objects that are this object's members, with their names.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, Members)> {
        self.0
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), serde_json::from_str(value.get()).ok()?)))
    }

    /// An amount of money, from the very digits that were printed.
    pub(super) fn usd(&self, name: &str) -> Option<Usd> {
        Usd::from_number_text(self.0.get(name)?.get()).ok()
    }

    /// Tokens, in the words of the wire format of the model's API.
    pub(super) fn usage(&self, name: &str) -> Option<Tokens> {
        let usage: Members = self.get(name)?;
        let written = usage.object("cache_creation");
        Some(usage.tokens(
            ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"],
            written.count("ephemeral_1h_input_tokens"),
        ))
    }

    /// Tokens of a model, in the agent's own words for its sums.
    pub(super) fn model_usage(&self) -> Tokens {
        self.tokens(
            ["inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens"],
            self.count("cacheCreationEphemeral1hInputTokens"),
        )
    }

    /// Tokens under names for: read, written, read from the cache, written to it. What is not said to stay in the cache for
    /// an hour stays for five minutes, which is what a cache does unless it is told.
    fn tokens(&self, names: [&str; 4], cached_1h: Option<u64>) -> Tokens {
        let [input, output, cache_read, cache_write] = names.map(|name| self.count(name).unwrap_or(0));
        let cache_write_1h = cached_1h.unwrap_or(0).min(cache_write);
        let cache_write_5m = cache_write.saturating_sub(cache_write_1h);
        Tokens { input, output, cache_read, cache_write_5m, cache_write_1h }
    }
}
