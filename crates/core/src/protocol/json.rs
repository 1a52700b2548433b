//! A strict JSON reader: what is signed has one meaning, whoever reads it.
//!
//! Refused beyond what RFC 8259 refuses: members given twice, floats, exponents, `-0`, integers past 64 bits signed,
//! NUL in a string, bytes after the end, a byte-order mark. All of that is *form* (protocol section 3).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Objects up to this size are searched for double members pair by pair.
const PAIRWISE_MEMBERS_MAX: usize = 32;

/// One value of strict JSON; strings without escapes borrow from the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'t> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number of 64 bits, signed.
    Int(i64),
    /// A string without NUL.
    Text(Cow<'t, str>),
    /// An array.
    List(Vec<Value<'t>>),
    /// An object, its members in the order of the text, each name once.
    Object(Vec<(Cow<'t, str>, Value<'t>)>),
}

/// A text that is not strict JSON.
#[derive(Debug, thiserror::Error)]
#[error("not strict JSON")]
pub struct NotJson {
    source: NotJsonCause,
}

#[derive(Debug, thiserror::Error)]
enum NotJsonCause {
    #[error(transparent)]
    Utf8(std::str::Utf8Error),
    #[error(transparent)]
    Syntax(serde_json::Error),
}

/// Reads one value and nothing after it.
///
/// # Errors
/// Anything the module refuses, and nesting deeper than 127.
pub fn parse(bytes: &[u8]) -> Result<Value<'_>, NotJson> {
    let text = std::str::from_utf8(bytes).map_err(|cause| NotJson { source: NotJsonCause::Utf8(cause) })?;
    let syntax = |cause| NotJson { source: NotJsonCause::Syntax(cause) };
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Value::deserialize(&mut reader).map_err(syntax)?;
    reader.end().map_err(syntax)?;
    Ok(value)
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl StrictVisitor {
    fn text<E: serde::de::Error>(text: Cow<'_, str>) -> Result<Cow<'_, str>, E> {
        if text.as_bytes().contains(&0) { Err(E::custom("a string holds NUL")) } else { Ok(text) }
    }
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a boolean, a whole number, a string, an array or an object")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value<'de>, E> {
        i64::try_from(value).map(Value::Int).map_err(|_| E::custom("an integer past 64 bits signed"))
    }

    // serde_json hands over fractions, exponents, `-0` and integers past 64 bits as floats: none of them is ours.
    fn visit_f64<E: serde::de::Error>(self, _value: f64) -> Result<Value<'de>, E> {
        Err(E::custom("a number that is no plain integer of 64 bits"))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, value: &'de str) -> Result<Value<'de>, E> {
        Self::text(Cow::Borrowed(value)).map(Value::Text)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value<'de>, E> {
        Self::text(Cow::Owned(value.to_owned())).map(Value::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        let mut members: Vec<(Cow<'de, str>, Value<'de>)> = Vec::new();
        while let Some(Key(name)) = items.next_key()? {
            members.push((name, items.next_value()?));
        }
        if has_double(&members) {
            Err(A::Error::custom("a member given twice"))
        } else {
            Ok(Value::Object(members))
        }
    }
}

/// A member's name: borrowed where the text has no escape in it.
struct Key<'t>(Cow<'t, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, value: &'de str) -> Result<Key<'de>, E> {
        StrictVisitor::text(Cow::Borrowed(value)).map(Key)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Key<'de>, E> {
        StrictVisitor::text(Cow::Owned(value.to_owned())).map(Key)
    }
}

fn has_double(members: &[(Cow<'_, str>, Value<'_>)]) -> bool {
    if members.len() > PAIRWISE_MEMBERS_MAX {
        let mut names = BTreeSet::new();
        return !members.iter().all(|(name, _)| names.insert(name.as_ref()));
    }
    let mut rest = members;
    while let Some(((name, _), after)) = rest.split_first() {
        if after.iter().any(|(other, _)| other == name) {
            return true;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_two_meanings_is_refused() {
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            "1.0",
            "1e3",
            "-0",
            "9223372036854775808",
            "-9223372036854775809",
            r#""\u0000""#,
            r#"{"\u0000":1}"#,
            r#""\ud800""#,
            "1 1",
            "\u{feff}1",
            "01",
            "[1,]",
            "\"\n\"",
            "NaN",
            "",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"\"\xff\"").is_err());
        assert!(parse("[".repeat(4096).as_bytes()).is_err());
    }

    #[test]
    fn a_double_among_many_members_is_found() {
        let mut text: String = (0..100).map(|n| format!("\"k{n}\":1,")).collect();
        assert!(parse(format!("{{{text}\"last\":1}}").as_bytes()).is_ok());
        text.push_str("\"k7\":1");
        assert!(parse(format!("{{{text}}}").as_bytes()).is_err());
    }

    #[test]
    fn integers_reach_from_end_to_end() {
        assert_eq!(parse(b" 9223372036854775807\n").unwrap(), Value::Int(i64::MAX));
        assert_eq!(parse(b"-9223372036854775808").unwrap(), Value::Int(i64::MIN));
        assert_eq!(parse(b"0").unwrap(), Value::Int(0));
    }
}
