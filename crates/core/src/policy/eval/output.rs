//! Writing an answer: members in the order of the contract, one spelling for every value.

use std::fmt::{self, Write as _};

use crate::policy::dec::{Dec, Ratio};
use crate::policy::eval::input::Failure;
use crate::policy::eval::json::write_text;
use crate::policy::money::Usd;

/// The members of `ok`, as they are written.
pub(super) struct Answer {
    text: String,
}

impl Answer {
    pub(super) fn new() -> Answer {
        let mut text = String::with_capacity(96);
        text.push_str("{\"ok\":{");
        Answer { text }
    }

    fn name(&mut self, name: &str) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
    }

    fn quoted(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        // Writing to a String cannot fail.
        write!(self.text, "\"{value}\"").unwrap_or_default();
    }

    #[expect(clippy::fn_params_excessive_bools, reason = "the value to write, not a switch")]
    pub(super) fn bool(&mut self, name: &str, value: bool) {
        self.name(name);
        self.text.push_str(if value { "true" } else { "false" });
    }

    pub(super) fn int(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        write!(self.text, "{value}").unwrap_or_default();
    }

    /// A word of ours: nothing in it needs an escape.
    pub(super) fn word(&mut self, name: &str, value: &'static str) {
        self.quoted(name, value);
    }

    pub(super) fn null(&mut self, name: &str) {
        self.name(name);
        self.text.push_str("null");
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        write_text(&mut self.text, value);
    }

    pub(super) fn words(&mut self, name: &str, values: impl Iterator<Item = &'static str>) {
        self.name(name);
        self.text.push('[');
        for (at, value) in values.enumerate() {
            if at > 0 {
                self.text.push(',');
            }
            write_text(&mut self.text, value);
        }
        self.text.push(']');
    }

    pub(super) fn ratio(&mut self, name: &str, value: &Ratio) {
        self.quoted(name, value);
    }

    pub(super) fn dec(&mut self, name: &str, value: Dec) {
        self.quoted(name, value);
    }

    pub(super) fn usd(&mut self, name: &str, value: Usd) {
        match Dec::from_usd(value) {
            Some(value) => self.quoted(name, value),
            // More than 12 places: no rule makes such an amount.
            None => self.quoted(name, value),
        }
    }

    /// The whole line.
    pub(super) fn finish(mut self) -> String {
        self.text.push_str("}}");
        self.text
    }
}

/// The line of a failure.
pub(super) fn failure(failure: &Failure) -> String {
    match failure {
        Failure::Code(code) => format!("{{\"error\":\"{code}\"}}"),
        Failure::NoBackend(backends) => {
            let mut text = String::from("{\"error\":\"no_eligible_backend\",\"backends\":[");
            for (at, (name, reason)) in backends.iter().enumerate() {
                text.push_str(if at > 0 { ",{\"name\":" } else { "{\"name\":" });
                write_text(&mut text, name);
                write!(text, ",\"reason\":\"{reason}\"}}").unwrap_or_default();
            }
            text.push_str("]}");
            text
        }
    }
}
