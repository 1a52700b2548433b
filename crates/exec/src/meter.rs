//! What a run costs while it runs: usage as it is heard, each message of a model counted once and priced at once.

use std::collections::{BTreeSet, VecDeque};

use dispatch_core::policy::money::Usd;
use dispatch_core::policy::price::{PriceTable, Priced, Tokens, rounded_up};
use dispatch_node::job::{Metered, Order};

/// Messages that may be spoken of again: subagents talk at the same time, a message is repeated once per content block.
const OPEN_MESSAGES_MAX: usize = 64;
/// Models without a price that are named in the outcome.
const UNKNOWN_MODELS_MAX: usize = 16;

/// The meter of one run.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Empty where dollars do not count.
    prices: PriceTable,
    /// The longest answer, in tokens: what an answer that was cut off may have come to.
    output_tokens_max: u64,
    closed: Sum,
    open: VecDeque<(String, Message)>,
    messages: u64,
    unknown: BTreeSet<String>,
}

/// Tokens and what they cost; no dollars where they cannot be told.
#[derive(Clone, Copy, Debug)]
struct Sum {
    tokens: Tokens,
    usd: Option<Usd>,
}

impl Default for Sum {
    fn default() -> Sum {
        Sum { tokens: Tokens::default(), usd: Some(Usd::ZERO) }
    }
}

/// A message of a model as far as it was heard.
#[derive(Clone, Debug, Default)]
struct Message {
    /// The tool call whose subagent speaks; `None` = the agent itself.
    speaker: Option<String>,
    model: Option<String>,
    tokens: Tokens,
    end: End,
}

/// How far a meter was at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    messages: u64,
    usd: Option<Usd>,
    at_most: Option<Usd>,
}

/// Whether a message has come to its end, and its figures with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// Not that anybody said.
    #[default]
    Unknown,
    /// It has.
    Reached,
}

/// Whether a message was heard of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It was not.
    New,
    /// It was.
    Known,
}

/// What is said of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said<'a> {
    /// Its id.
    pub(crate) message: &'a str,
    /// The tool call whose subagent speaks; `None` = the agent itself.
    pub(crate) speaker: Option<&'a str>,
    /// The model that speaks, where that is said.
    pub(crate) model: Option<&'a str>,
    /// Its usage so far.
    pub(crate) tokens: Tokens,
    /// Whether these are the last figures.
    pub(crate) end: End,
}

impl Meter {
    /// The meter of an order; without prices it only counts.
    pub(crate) fn of(order: &Order) -> Meter {
        let metering = order.metering.as_ref();
        Meter {
            prices: metering.map(dispatch_node::job::Metering::table).unwrap_or_default(),
            output_tokens_max: metering.map_or(0, |metering| metering.output_tokens_max),
            ..Meter::default()
        }
    }

    /// Takes what is said of a message: the larger of two figures counts, because the first one is a forecast.
    pub(crate) fn heard(&mut self, said: &Said<'_>) -> Heard {
        if let Some(model) = said.model {
            self.note_model(model);
        }
        if let Some((_, known)) = self.open.iter_mut().rev().find(|(id, _)| id == said.message) {
            known.tokens = known.tokens.largest(said.tokens);
            known.model = said.model.map(ToOwned::to_owned).or_else(|| known.model.take());
            if said.end == End::Reached {
                known.end = End::Reached;
            }
            return Heard::Known;
        }
        let message = Message {
            speaker: said.speaker.map(ToOwned::to_owned),
            model: said.model.map(ToOwned::to_owned),
            tokens: said.tokens,
            end: said.end,
        };
        self.messages = self.messages.saturating_add(1);
        self.open.push_back((said.message.to_owned(), message));
        if self.open.len() > OPEN_MESSAGES_MAX {
            // One that may still grow is kept while there is another.
            let over = self.open.iter().position(|(_, message)| message.end == End::Reached).unwrap_or(0);
            if let Some((_, oldest)) = self.open.remove(over) {
                self.closed = self.closed.plus(&self.prices, &oldest);
            }
        }
        Heard::New
    }

    /// Takes every message heard of so far from one speaker as ended: nobody answers one that is not. Others may be in the
    /// middle of theirs.
    pub(crate) fn ended(&mut self, speaker: Option<&str>) {
        let theirs = self.open.iter_mut().filter(|(_, message)| message.speaker.as_deref() == speaker);
        for (_, message) in theirs {
            message.end = End::Reached;
        }
    }

    /// How far it is now.
    pub(crate) fn mark(&self) -> Mark {
        Mark { messages: self.messages, usd: self.usd(), at_most: self.usd_at_most() }
    }

    /// Whether a message began after a mark.
    pub(crate) const fn has_begun_since(&self, mark: Mark) -> bool {
        self.messages > mark.messages
    }

    /// The most that was spent after a mark: nothing without prices, `None` for a sum that cannot be held.
    pub(crate) fn usd_since(&self, mark: Mark) -> Option<Usd> {
        if self.prices.is_empty() {
            return Some(Usd::ZERO);
        }
        let heard = self.usd()?.checked_sub(mark.usd?)?;
        // What was open then and ended since counts with less than it was thought to come to.
        let at_most = self.usd_at_most()?.checked_sub(mark.at_most?)?;
        Some(heard.max(at_most).max(Usd::ZERO))
    }

    fn note_model(&mut self, model: &str) {
        if !self.prices.is_empty()
            && self.prices.known(model).is_none()
            && self.unknown.len() < UNKNOWN_MODELS_MAX
        {
            self.unknown.insert(model.to_owned());
        }
    }

    /// How many messages of a model were heard of.
    pub(crate) const fn messages(&self) -> u64 {
        self.messages
    }

    /// Tokens so far.
    pub(crate) fn tokens(&self) -> Tokens {
        self.sum(Message::clone).tokens
    }

    /// Dollars so far, exact; `None` without prices, and for a sum that cannot be held.
    pub(crate) fn usd(&self) -> Option<Usd> {
        self.sum(Message::clone).usd.filter(|_| !self.prices.is_empty())
    }

    /// The most that the messages can have cost: one that was cut off counts with its longest answer.
    pub(crate) fn usd_at_most(&self) -> Option<Usd> {
        let longest = |message: &Message| match message.end {
            End::Reached => message.clone(),
            End::Unknown => {
                let output = message.tokens.output.max(self.output_tokens_max);
                Message { tokens: Tokens { output, ..message.tokens }, ..message.clone() }
            }
        };
        self.sum(longest).usd.filter(|_| !self.prices.is_empty())
    }

    /// True when a message was heard of and not its end.
    pub(crate) fn has_cut_off(&self) -> bool {
        self.open.iter().any(|(_, message)| message.end == End::Unknown)
    }

    /// What the outcome says of it; `None` without prices.
    pub(crate) fn metered(&self) -> Option<Metered> {
        let unknown_models = self.unknown.iter().cloned().collect();
        self.usd().map(|usd| Metered { usd: rounded_up(usd), unknown_models })
    }

    /// What some model's tokens cost by themselves.
    pub(crate) fn price(&self, model: &str, tokens: &Tokens) -> Option<Usd> {
        price(&self.prices, Some(model), tokens)
    }

    fn sum(&self, of: impl Fn(&Message) -> Message) -> Sum {
        self.open.iter().fold(self.closed, |sum, (_, message)| sum.plus(&self.prices, &of(message)))
    }
}

impl Sum {
    fn plus(self, prices: &PriceTable, message: &Message) -> Sum {
        let more = price(prices, message.model.as_deref(), &message.tokens);
        Sum {
            tokens: self.tokens.plus(message.tokens),
            usd: self.usd.zip(more).and_then(|(usd, more)| usd.checked_add(more)),
        }
    }
}

/// A message of a model nobody named is one of a model nobody knows.
fn price(prices: &PriceTable, model: Option<&str>, tokens: &Tokens) -> Option<Usd> {
    match prices.price(model.unwrap_or_default()).as_ref().map(Priced::price) {
        Some(price) => price.cost(tokens),
        None => Some(Usd::ZERO),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dispatch_core::policy::price::{Price, Rates};

    use super::*;

    fn usd(text: &str) -> Usd {
        Usd::from_wire(text).unwrap()
    }

    fn meter() -> Meter {
        let price = |input: &str, output: &str| Price {
            rates: Rates { input: usd(input), output: usd(output), ..Rates::default() },
            long: None,
            context_tokens: 1_000_000,
            output_tokens: 64_000,
        };
        let prices =
            BTreeMap::from([("small".to_owned(), price("1", "5")), ("large".to_owned(), price("4", "20"))]);
        Meter { prices: PriceTable::new(prices), output_tokens_max: 1_000, ..Meter::default() }
    }

    fn said<'a>(message: &'a str, model: Option<&'a str>, output: u64) -> Said<'a> {
        Said {
            message,
            speaker: None,
            model,
            tokens: Tokens { input: 100, output, ..Tokens::default() },
            end: End::Unknown,
        }
    }

    #[test]
    fn a_message_told_several_times_counts_once_with_its_largest_figures() {
        let mut meter = meter();
        assert_eq!(meter.heard(&said("a", Some("large"), 1)), Heard::New);
        assert_eq!(meter.heard(&said("a", None, 25)), Heard::Known);
        assert_eq!(meter.heard(&said("a", Some("large"), 1)), Heard::Known);
        assert_eq!(meter.heard(&said("b", Some("small"), 5)), Heard::New);
        assert_eq!((meter.tokens().total(), meter.messages()), (230, 2));
        assert_eq!(meter.usd(), Some(usd("0.001025")));
        assert_eq!(meter.metered(), Some(Metered { usd: usd("0.001025"), unknown_models: Vec::new() }));
    }

    #[test]
    fn a_long_run_is_summed_in_fixed_memory() {
        let mut meter = meter();
        for message in 0..10_000 {
            meter.heard(&said(&format!("m{message}"), Some("small"), 1));
            meter.heard(&said(&format!("m{message}"), None, 2));
        }
        assert_eq!(meter.tokens().total(), 1_020_000);
        assert_eq!(meter.usd(), Some(usd("1.1")));
        assert_eq!(meter.open.len(), OPEN_MESSAGES_MAX);
    }

    #[test]
    fn an_unknown_model_is_paid_at_the_dearest_rates_and_named() {
        let mut meter = meter();
        meter.heard(&said("a", Some("brand-new"), 10));
        meter.heard(&said("b", None, 10));
        assert_eq!(meter.usd(), Some(usd("0.0012")));
        assert_eq!(meter.metered().unwrap().unknown_models, ["brand-new"]);
    }

    #[test]
    fn a_message_that_was_cut_off_may_have_cost_its_longest_answer() {
        let mut meter = meter();
        meter.heard(&Said { end: End::Reached, ..said("a", Some("large"), 50) });
        assert_eq!(meter.usd_at_most(), meter.usd());
        meter.heard(&said("b", Some("large"), 1));
        assert_eq!(meter.usd(), Some(usd("0.00182")));
        assert_eq!(meter.usd_at_most(), Some(usd("0.0218")));
    }

    #[test]
    fn one_speakers_messages_end_without_those_of_others_and_an_open_one_is_kept() {
        let mut meter = meter();
        meter.heard(&Said { speaker: Some("call"), ..said("a", Some("large"), 1) });
        for message in 0..10_000 {
            meter.heard(&said(&format!("m{message}"), Some("small"), 1));
            meter.ended(None);
        }
        assert_eq!((meter.has_cut_off(), meter.open.len()), (true, OPEN_MESSAGES_MAX));
        meter.ended(Some("call"));
        assert!(!meter.has_cut_off());
    }

    #[test]
    fn without_prices_it_only_counts() {
        let mut meter = Meter::default();
        meter.heard(&said("a", Some("large"), 1));
        assert_eq!((meter.tokens().total(), meter.usd(), meter.metered()), (101, None, None));
    }
}
