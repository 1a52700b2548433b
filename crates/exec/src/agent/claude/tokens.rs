//! Tokens so far, each message of the model counted once.

use std::collections::VecDeque;

use dispatch_node::job::Usage;

/// Messages that may be spoken of again: subagents talk at the same time, a message is repeated once per content block.
const OPEN_MESSAGES_MAX: usize = 64;

/// A sum over messages whose usage is told several times.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    closed: Usage,
    open: VecDeque<(String, Usage)>,
}

/// Whether a message was heard of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// It was not.
    New,
    /// It was.
    Known,
}

impl Tokens {
    /// Takes what is said of a message: the larger of two figures counts, because the first one is a forecast.
    pub(super) fn heard(&mut self, message: &str, usage: Usage) -> Message {
        if let Some((_, known)) = self.open.iter_mut().rev().find(|(id, _)| id == message) {
            *known = each(*known, usage, u64::max);
            return Message::Known;
        }
        self.open.push_back((message.to_owned(), usage));
        if self.open.len() > OPEN_MESSAGES_MAX {
            self.closed = self.open.pop_front().map_or(self.closed, |(_, usage)| sum(self.closed, usage));
        }
        Message::New
    }

    /// The sum.
    pub(super) fn so_far(&self) -> Usage {
        self.open.iter().fold(self.closed, |total, (_, usage)| sum(total, *usage))
    }
}

/// Both together.
pub(super) fn sum(one: Usage, other: Usage) -> Usage {
    each(one, other, u64::saturating_add)
}

/// All tokens, of whatever kind.
pub(super) fn total(usage: Usage) -> u64 {
    let Usage { input_tokens, output_tokens, cache_read_tokens, cache_write_tokens } = usage;
    [input_tokens, output_tokens, cache_read_tokens, cache_write_tokens]
        .into_iter()
        .fold(0, u64::saturating_add)
}

fn each(one: Usage, other: Usage, both: fn(u64, u64) -> u64) -> Usage {
    Usage {
        input_tokens: both(one.input_tokens, other.input_tokens),
        output_tokens: both(one.output_tokens, other.output_tokens),
        cache_read_tokens: both(one.cache_read_tokens, other.cache_read_tokens),
        cache_write_tokens: both(one.cache_write_tokens, other.cache_write_tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(output_tokens: u64) -> Usage {
        Usage { input_tokens: 100, output_tokens, ..Usage::default() }
    }

    #[test]
    fn a_message_told_several_times_counts_once_with_its_largest_figures() {
        let mut tokens = Tokens::default();
        assert_eq!(tokens.heard("a", of(1)), Message::New);
        assert_eq!(tokens.heard("a", of(25)), Message::Known);
        assert_eq!(tokens.heard("a", of(1)), Message::Known);
        assert_eq!(tokens.heard("b", of(5)), Message::New);
        assert_eq!(total(tokens.so_far()), 230);
    }

    #[test]
    fn a_long_run_is_summed_in_fixed_memory() {
        let mut tokens = Tokens::default();
        for message in 0..10_000 {
            tokens.heard(&format!("m{message}"), of(1));
            tokens.heard(&format!("m{message}"), of(2));
        }
        assert_eq!(total(tokens.so_far()), 1_020_000);
        assert_eq!(tokens.open.len(), OPEN_MESSAGES_MAX);
    }
}
