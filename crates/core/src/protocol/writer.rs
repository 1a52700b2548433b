//! Writing strict JSON: compact, members in the order they are put.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rust_decimal::{Decimal, RoundingStrategy};
use uuid::Uuid;

use crate::policy::money::{Usd, WIRE_FRACTION_DIGITS_MAX};
use crate::protocol::fraction::Fraction;
use crate::protocol::names::{Digest, Name, NodeName, TaskId};
use crate::protocol::time::Timestamp;

/// The largest amount of money that the wire can spell: 999 999 999 999.999999.
const MONEY_MAX: Decimal = Decimal::from_parts(0xA763_FFFF, 0x0DE0_B6B3, 0, false, 6);

/// A value that has one form in JSON.
pub trait Emit {
    /// Appends the value to a text.
    fn emit(&self, out: &mut String);
}

/// An object being written.
#[derive(Debug)]
pub struct Object<'o> {
    out: &'o mut String,
    empty: bool,
}

impl Object<'_> {
    /// Appends a member.
    pub fn put<T: Emit + ?Sized>(&mut self, member: &str, value: &T) -> &mut Self {
        if !self.empty {
            self.out.push(',');
        }
        self.empty = false;
        member.emit(self.out);
        self.out.push(':');
        value.emit(self.out);
        self
    }

    /// Appends a member if there is a value for it.
    pub fn put_some<T: Emit>(&mut self, member: &str, value: Option<&T>) -> &mut Self {
        match value {
            Some(value) => self.put(member, value),
            None => self,
        }
    }
}

/// Appends an object whose members `fill` puts.
pub fn object(out: &mut String, fill: impl FnOnce(&mut Object<'_>)) {
    out.push('{');
    fill(&mut Object { out, empty: true });
    out.push('}');
}

/// The bytes of an object whose members `fill` puts.
pub fn object_bytes(fill: impl FnOnce(&mut Object<'_>)) -> Vec<u8> {
    let mut out = String::with_capacity(1024);
    object(&mut out, fill);
    out.into_bytes()
}

fn display(out: &mut String, value: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _infallible = write!(out, "{value}");
}

fn quoted(out: &mut String, value: impl std::fmt::Display) {
    out.push('"');
    display(out, value);
    out.push('"');
}

impl Emit for str {
    fn emit(&self, out: &mut String) {
        out.push('"');
        let mut rest = self;
        while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
            let (plain, special) = rest.split_at(at);
            out.push_str(plain);
            let mut chars = special.chars();
            match chars.next() {
                Some('"') => out.push_str("\\\""),
                Some('\\') => out.push_str("\\\\"),
                Some('\n') => out.push_str("\\n"),
                Some('\r') => out.push_str("\\r"),
                Some('\t') => out.push_str("\\t"),
                Some(control) => {
                    let _infallible = write!(out, "\\u{:04x}", u32::from(control));
                }
                None => {}
            }
            rest = chars.as_str();
        }
        out.push_str(rest);
        out.push('"');
    }
}

impl Emit for String {
    fn emit(&self, out: &mut String) {
        self.as_str().emit(out);
    }
}

impl Emit for bool {
    fn emit(&self, out: &mut String) {
        display(out, self);
    }
}

impl Emit for i32 {
    fn emit(&self, out: &mut String) {
        display(out, self);
    }
}

impl Emit for u8 {
    fn emit(&self, out: &mut String) {
        display(out, self);
    }
}

impl Emit for u32 {
    fn emit(&self, out: &mut String) {
        display(out, self);
    }
}

impl Emit for i64 {
    fn emit(&self, out: &mut String) {
        display(out, self);
    }
}

impl Emit for u64 {
    fn emit(&self, out: &mut String) {
        // Integers on the wire are signed: a count past that is shown as the largest one.
        display(out, i64::try_from(*self).unwrap_or(i64::MAX));
    }
}

impl Emit for Usd {
    fn emit(&self, out: &mut String) {
        let places = u32::try_from(WIRE_FRACTION_DIGITS_MAX).unwrap_or(0);
        let rounded = self.decimal().round_dp_with_strategy(places, RoundingStrategy::AwayFromZero);
        quoted(out, Usd::from_decimal(rounded.clamp(Decimal::ZERO, MONEY_MAX)));
    }
}

impl Emit for Fraction {
    fn emit(&self, out: &mut String) {
        quoted(out, self);
    }
}

impl Emit for Uuid {
    fn emit(&self, out: &mut String) {
        quoted(out, self.hyphenated());
    }
}

impl Emit for TaskId {
    fn emit(&self, out: &mut String) {
        quoted(out, self);
    }
}

impl Emit for Digest {
    fn emit(&self, out: &mut String) {
        quoted(out, self);
    }
}

impl Emit for Timestamp {
    fn emit(&self, out: &mut String) {
        quoted(out, self);
    }
}

impl Emit for Name {
    fn emit(&self, out: &mut String) {
        self.as_str().emit(out);
    }
}

impl Emit for NodeName {
    fn emit(&self, out: &mut String) {
        self.as_str().emit(out);
    }
}

impl<T: Emit> Emit for Option<T> {
    fn emit(&self, out: &mut String) {
        match self {
            Some(value) => value.emit(out),
            None => out.push_str("null"),
        }
    }
}

impl<T: Emit> Emit for Vec<T> {
    fn emit(&self, out: &mut String) {
        self.as_slice().emit(out);
    }
}

impl<T: Emit> Emit for [T] {
    fn emit(&self, out: &mut String) {
        out.push('[');
        for (at, item) in self.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            item.emit(out);
        }
        out.push(']');
    }
}

impl<K: AsRef<str>, T: Emit> Emit for BTreeMap<K, T> {
    fn emit(&self, out: &mut String) {
        object(out, |object| {
            for (key, value) in self {
                object.put(key.as_ref(), value);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    #[test]
    fn every_text_survives_its_writing() {
        let text: String =
            (1..0x180).filter_map(char::from_u32).chain("\u{2028}\u{1F600}\"\\/".chars()).collect();
        let mut out = String::new();
        text.emit(&mut out);
        assert_eq!(json::parse(out.as_bytes()).unwrap(), json::Value::Text(text.into()));
    }

    #[test]
    fn money_past_the_spelling_is_written_as_what_it_can_spell() {
        let emit = |text: &str| {
            let mut out = String::new();
            Usd::from_decimal(text.parse().unwrap()).emit(&mut out);
            out
        };
        assert_eq!(emit("-1"), "\"0\"");
        assert_eq!(emit("0.0000001"), "\"0.000001\"");
        assert_eq!(emit("1000000000000"), "\"999999999999.999999\"");
        assert_eq!(emit("1.50"), "\"1.5\"");
    }
}
