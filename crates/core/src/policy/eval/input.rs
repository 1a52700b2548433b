//! Typed reading of a rule's input: the shapes and codes of the contract, steps 2 and 4.

use crate::policy::dec::{BadDec, Dec};
use crate::policy::eval::json::{Json, Member};
use crate::policy::money::Usd;

/// Integers beyond this, either way, are out of range.
const INT_MAX: i64 = (1 << 53) - 1;

/// Why a line gets no `ok`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Only a code.
    Code(&'static str),
    /// `no_eligible_backend`, with every backend's name and reason.
    NoBackend(Vec<(String, &'static str)>),
}

impl From<&'static str> for Failure {
    fn from(code: &'static str) -> Failure {
        Failure::Code(code)
    }
}

/// The members of an object whose names are all known.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a, 't> {
    members: &'a [Member<'t>],
}

impl<'a, 't> Fields<'a, 't> {
    /// An object with no other members than these.
    pub(super) fn of(value: &'a Json<'t>, known: &[&str]) -> Result<Fields<'a, 't>, &'static str> {
        let Json::Object(members) = value else { return Err("not_an_object") };
        if members.iter().all(|(name, _)| known.contains(&name.as_ref())) {
            Ok(Fields { members })
        } else {
            Err("unknown_member")
        }
    }

    /// A member that is an object; left out, it is one without members.
    pub(super) fn object(&self, name: &str, known: &[&str]) -> Result<Fields<'a, 't>, &'static str> {
        self.given(name).map_or(Ok(Fields { members: &[] }), |value| Fields::of(value, known))
    }

    /// A member, where it is given.
    pub(super) fn given(&self, name: &str) -> Option<&'a Json<'t>> {
        self.members.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    /// A member that must be given.
    pub(super) fn required(&self, name: &str) -> Result<&'a Json<'t>, &'static str> {
        self.given(name).ok_or("missing_member")
    }

    /// A member for which null means the same as leaving it out.
    pub(super) fn nullable(&self, name: &str) -> Option<&'a Json<'t>> {
        self.given(name).filter(|value| **value != Json::Null)
    }

    pub(super) fn dec(&self, name: &str) -> Result<Dec, &'static str> {
        dec(self.required(name)?)
    }

    pub(super) fn dec_or(&self, name: &str, default: Dec) -> Result<Dec, &'static str> {
        self.given(name).map_or(Ok(default), dec)
    }

    pub(super) fn dec_or_none(&self, name: &str) -> Result<Option<Dec>, &'static str> {
        self.nullable(name).map(dec).transpose()
    }

    pub(super) fn usd(&self, name: &str) -> Result<Usd, &'static str> {
        self.dec(name).and_then(usd)
    }

    pub(super) fn usd_or_zero(&self, name: &str) -> Result<Usd, &'static str> {
        self.dec_or(name, Dec::ZERO).and_then(usd)
    }

    pub(super) fn usd_or_none(&self, name: &str) -> Result<Option<Usd>, &'static str> {
        self.dec_or_none(name)?.map(usd).transpose()
    }

    pub(super) fn int(&self, name: &str) -> Result<i64, &'static str> {
        int(self.required(name)?)
    }

    pub(super) fn int_or(&self, name: &str, default: i64) -> Result<i64, &'static str> {
        self.given(name).map_or(Ok(default), int)
    }

    pub(super) fn int_or_none(&self, name: &str) -> Result<Option<i64>, &'static str> {
        self.nullable(name).map(int).transpose()
    }

    pub(super) fn bool(&self, name: &str) -> Result<bool, &'static str> {
        boolean(self.required(name)?)
    }

    pub(super) fn bool_or_false(&self, name: &str) -> Result<bool, &'static str> {
        self.given(name).map_or(Ok(false), boolean)
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, &'static str> {
        text(self.required(name)?)
    }

    pub(super) fn text_or_none(&self, name: &str) -> Result<Option<&'a str>, &'static str> {
        self.nullable(name).map(text).transpose()
    }

    pub(super) fn list(&self, name: &str) -> Result<&'a [Json<'t>], &'static str> {
        list(self.required(name)?)
    }

    pub(super) fn texts_or_none(&self, name: &str) -> Result<Option<Vec<String>>, &'static str> {
        let Some(value) = self.nullable(name) else { return Ok(None) };
        let texts: Result<_, _> = list(value)?.iter().map(|item| text(item).map(str::to_owned)).collect();
        texts.map(Some)
    }
}

/// Text in `-?(0|[1-9][0-9]*)(\.[0-9]+)?`.
pub(super) fn dec(value: &Json<'_>) -> Result<Dec, &'static str> {
    match value {
        Json::Text(text) => Dec::parse(text).map_err(BadDec::code),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::List(_) | Json::Object(_) => {
            Err("not_a_decimal")
        }
    }
}

/// Money of a decimal: one of 24 digits always fits.
fn usd(value: Dec) -> Result<Usd, &'static str> {
    value.to_usd().ok_or("out_of_range")
}

fn int(value: &Json<'_>) -> Result<i64, &'static str> {
    let Json::Number(written) = value else { return Err("not_an_integer") };
    if written.contains(['.', 'e', 'E']) {
        return Err("not_an_integer");
    }
    // The reader let only an integer through, so that what does not parse is too long.
    let number: i64 = written.parse().map_err(|_| "out_of_range")?;
    if (-INT_MAX..=INT_MAX).contains(&number) { Ok(number) } else { Err("out_of_range") }
}

fn boolean(value: &Json<'_>) -> Result<bool, &'static str> {
    match value {
        Json::Bool(value) => Ok(*value),
        Json::Null | Json::Number(_) | Json::Text(_) | Json::List(_) | Json::Object(_) => {
            Err("not_a_boolean")
        }
    }
}

pub(super) fn text<'a>(value: &'a Json<'_>) -> Result<&'a str, &'static str> {
    match value {
        Json::Text(text) => Ok(text),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::List(_) | Json::Object(_) => Err("not_a_string"),
    }
}

fn list<'a, 't>(value: &'a Json<'t>) -> Result<&'a [Json<'t>], &'static str> {
    match value {
        Json::List(items) => Ok(items),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::Object(_) => Err("not_a_list"),
    }
}
