//! Reading the members of a strict JSON object, with form and quantity told apart (protocol section 3).
//!
//! A break of *form* stops the reading: the message is malformed. A break of *quantity* (too long, too many, out of
//! range) is noted and the reading goes on, because an honest sender must still be answered, and for that the rest of
//! the message must be known. The value read in place of the one over its limit never leaves [`crate::protocol::payload::Form`].

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use uuid::Uuid;

use crate::policy::money::Usd;
use crate::protocol::fraction::Fraction;
use crate::protocol::json::Value;
use crate::protocol::limits;
use crate::protocol::names::{
    Digest, NAME_BYTES_MAX, Name, NodeName, TaskId, canonical_uuid, is_name_alphabet,
};
use crate::protocol::time::Timestamp;

/// A break of form, with the place in the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("member `{object}{}{member}` {rule}", if object.is_empty() { "" } else { "." })]
pub struct FormError {
    /// The object that holds the member; empty for the message itself.
    pub object: &'static str,
    /// The member.
    pub member: &'static str,
    /// The rule it breaks.
    pub rule: &'static str,
}

/// A break of quantity, with the place in the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("member `{object}{}{member}` {rule}", if object.is_empty() { "" } else { "." })]
pub struct Breach {
    /// The object that holds the member; empty for the message itself.
    pub object: &'static str,
    /// The member.
    pub member: &'static str,
    /// The limit it breaks.
    pub rule: &'static str,
}

/// The breaks of quantity met so far; only the first is kept.
#[derive(Debug, Default)]
pub struct Breaches(RefCell<Option<Breach>>);

impl Breaches {
    /// The first break of quantity, if there was one.
    #[must_use]
    pub fn into_first(self) -> Option<Breach> {
        self.0.into_inner()
    }
}

/// The place of a value, and where its breaks of quantity are noted.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    object: &'static str,
    member: &'static str,
    breaches: &'a Breaches,
}

impl At<'_> {
    /// The error for a value of the wrong form here.
    #[must_use]
    pub const fn form(&self, rule: &'static str) -> FormError {
        FormError { object: self.object, member: self.member, rule }
    }

    /// Notes a value over its limit here.
    pub fn breach(&self, rule: &'static str) {
        let mut first = self.breaches.0.borrow_mut();
        if first.is_none() {
            *first = Some(Breach { object: self.object, member: self.member, rule });
        }
    }
}

/// A member's value as read: a function of its place and its JSON.
type Read<T> = Result<T, FormError>;

/// The members of one object, each of which must be asked for.
#[derive(Debug)]
pub struct Members<'a, 't> {
    object: &'static str,
    items: &'a [(Cow<'t, str>, Value<'t>)],
    found: usize,
    breaches: &'a Breaches,
}

impl<'a, 't> Members<'a, 't> {
    /// The members of a whole message.
    ///
    /// # Errors
    /// A value that is no object.
    pub fn of_message(value: &'a Value<'t>, breaches: &'a Breaches) -> Read<Members<'a, 't>> {
        let at = At { object: "", member: "", breaches };
        Members::of(&at, value, "")
    }

    fn of(at: &At<'a>, value: &'a Value<'t>, object: &'static str) -> Read<Members<'a, 't>> {
        match value {
            Value::Object(items) => Ok(Members { object, items, found: 0, breaches: at.breaches }),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::List(_) => {
                Err(at.form("must be an object"))
            }
        }
    }

    fn at(&self, member: &'static str) -> At<'a> {
        At { object: self.object, member, breaches: self.breaches }
    }

    fn find(&mut self, member: &'static str) -> Option<&'a Value<'t>> {
        let value = self.items.iter().find_map(|(name, value)| (name == member).then_some(value));
        self.found = self.found.saturating_add(usize::from(value.is_some()));
        value
    }

    /// A member that must be there and is not null.
    ///
    /// # Errors
    /// Absent, null, or refused by `read`.
    pub fn required<T>(
        &mut self,
        member: &'static str,
        read: impl FnOnce(&At<'a>, &'a Value<'t>) -> Read<T>,
    ) -> Read<T> {
        let at = self.at(member);
        let value = self.find(member).ok_or_else(|| at.form("is missing"))?;
        read(&at, value)
    }

    /// A member that must be there and may be null.
    ///
    /// # Errors
    /// Absent, or refused by `read`.
    pub fn nullable<T>(
        &mut self,
        member: &'static str,
        read: impl FnOnce(&At<'a>, &'a Value<'t>) -> Read<T>,
    ) -> Read<Option<T>> {
        self.required(member, |at, value| match value {
            Value::Null => Ok(None),
            Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => {
                read(at, value).map(Some)
            }
        })
    }

    /// A member that may be absent and is never null.
    ///
    /// # Errors
    /// Null, or refused by `read`.
    pub fn optional<T>(
        &mut self,
        member: &'static str,
        read: impl FnOnce(&At<'a>, &'a Value<'t>) -> Read<T>,
    ) -> Read<Option<T>> {
        let at = self.at(member);
        self.find(member).map(|value| read(&at, value)).transpose()
    }

    /// A member that may be absent or null, which mean the same.
    ///
    /// # Errors
    /// Refused by `read`.
    pub fn optional_nullable<T>(
        &mut self,
        member: &'static str,
        read: impl FnOnce(&At<'a>, &'a Value<'t>) -> Read<T>,
    ) -> Read<Option<T>> {
        let at = self.at(member);
        match self.find(member) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(&at, value).map(Some),
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// A member that nobody asked for. Names are unique, so counting them is enough.
    pub fn finish(self) -> Read<()> {
        if self.found == self.items.len() {
            Ok(())
        } else {
            Err(FormError { object: self.object, member: "*", rule: "an unknown member" })
        }
    }
}

/// A closed list of words.
pub trait Word: Sized {
    /// The value of a word, if it is in the list.
    fn of(word: &str) -> Option<Self>;
}

fn str_of<'v>(at: &At<'_>, value: &'v Value<'_>) -> Read<&'v str> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::List(_) | Value::Object(_) => {
            Err(at.form("must be a string"))
        }
    }
}

fn int_of(at: &At<'_>, value: &Value<'_>) -> Read<i64> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => {
            Err(at.form("must be a whole number"))
        }
    }
}

/// A string of so many bytes.
pub fn text_of_bytes<'a, 't>(
    bytes: RangeInclusive<usize>,
) -> impl Fn(&At<'a>, &'a Value<'t>) -> Read<String> {
    move |at, value| {
        let text = str_of(at, value)?;
        if text.len() < *bytes.start() {
            at.breach("is too short");
        }
        if text.len() > *bytes.end() {
            at.breach("is too long");
        }
        Ok(text.to_owned())
    }
}

/// A string of up to so many Unicode scalars.
pub fn text_of_chars<'a, 't>(chars_max: usize) -> impl Fn(&At<'a>, &'a Value<'t>) -> Read<String> {
    move |at, value| {
        let text = str_of(at, value)?;
        if text.len() > chars_max && text.chars().count() > chars_max {
            at.breach("is too long");
        }
        Ok(text.to_owned())
    }
}

/// A string of the length that holds where nothing else is said.
///
/// # Errors
/// No string.
pub fn text(at: &At<'_>, value: &Value<'_>) -> Read<String> {
    let text = str_of(at, value)?;
    if text.len() > limits::TEXT_BYTES_MAX {
        at.breach("is too long");
    }
    Ok(text.to_owned())
}

/// A whole number in a range; out of range it is noted, and the nearest end stands in for it.
pub fn int<'a, 't, T>(range: RangeInclusive<i64>) -> impl Fn(&At<'a>, &'a Value<'t>) -> Read<T>
where
    T: TryFrom<i64> + Default,
{
    move |at, value| {
        let number = int_of(at, value)?;
        if !range.contains(&number) {
            at.breach("is out of range");
        }
        Ok(T::try_from(number.clamp(*range.start(), *range.end())).unwrap_or_default())
    }
}

/// A count: a whole number from 0.
///
/// # Errors
/// No whole number.
pub fn count(at: &At<'_>, value: &Value<'_>) -> Read<u64> {
    let number = int_of(at, value)?;
    if number < 0 {
        at.breach("is below 0");
    }
    Ok(u64::try_from(number).unwrap_or(0))
}

/// A count of 32 bits.
///
/// # Errors
/// No whole number.
pub fn small_count(at: &At<'_>, value: &Value<'_>) -> Read<u32> {
    let number = int_of(at, value)?;
    let small = u32::try_from(number);
    if small.is_err() {
        at.breach("is out of range");
    }
    Ok(small.unwrap_or(0))
}

/// A signed number of 32 bits: an exit code, a signal.
///
/// # Errors
/// No whole number.
pub fn small_int(at: &At<'_>, value: &Value<'_>) -> Read<i32> {
    let number = int_of(at, value)?;
    let small = i32::try_from(number);
    if small.is_err() {
        at.breach("is out of range");
    }
    Ok(small.unwrap_or(0))
}

/// True or false.
///
/// # Errors
/// Anything else.
pub fn flag(at: &At<'_>, value: &Value<'_>) -> Read<bool> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::Null | Value::Int(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => {
            Err(at.form("must be true or false"))
        }
    }
}

/// One of a closed list of words.
///
/// # Errors
/// No string, or a word outside the list.
pub fn word<T: Word>(at: &At<'_>, value: &Value<'_>) -> Read<T> {
    T::of(str_of(at, value)?).ok_or_else(|| at.form("is a word outside its list"))
}

/// A name; its alphabet is form, its length quantity.
///
/// # Errors
/// No string, or another alphabet.
pub fn name(at: &At<'_>, value: &Value<'_>) -> Read<Name> {
    let text = str_of(at, value)?;
    if !is_name_alphabet(text) {
        return Err(at.form("is no name"));
    }
    if text.len() > NAME_BYTES_MAX {
        at.breach("is too long");
    }
    Ok(Name::of_any_length(text))
}

/// A budget batch: a name of up to 64 bytes.
///
/// # Errors
/// No string, or another alphabet.
pub fn run_name(at: &At<'_>, value: &Value<'_>) -> Read<String> {
    let text = str_of(at, value)?;
    if !is_name_alphabet(text) {
        return Err(at.form("is no name"));
    }
    if text.len() > limits::RUN_BYTES_MAX {
        at.breach("is too long");
    }
    Ok(text.to_owned())
}

/// A node's name; its alphabet is form, its length quantity.
///
/// # Errors
/// No string, another alphabet, or a part `to`.
pub fn node(at: &At<'_>, value: &Value<'_>) -> Read<NodeName> {
    node_name(at, str_of(at, value)?)
}

fn node_name(at: &At<'_>, text: &str) -> Read<NodeName> {
    if !is_name_alphabet(text) || text.split('-').any(|part| part == "to") {
        return Err(at.form("is no node name"));
    }
    if text.len() > NAME_BYTES_MAX {
        at.breach("is too long");
    }
    Ok(NodeName::of_any_length(text))
}

/// The id of a task in a version-3 message.
///
/// # Errors
/// No string, or no canonical uuid of version 7.
pub fn task_id(at: &At<'_>, value: &Value<'_>) -> Read<TaskId> {
    TaskId::parse(str_of(at, value)?).map_err(|_| at.form("is no canonical uuid of version 7"))
}

/// The id of a task that may have come from a version-2 peer: in what its receiver and its approvers say about it.
///
/// # Errors
/// No string, or no canonical uuid.
pub fn any_task_id(at: &At<'_>, value: &Value<'_>) -> Read<TaskId> {
    TaskId::parse_any_version(str_of(at, value)?).map_err(|_| at.form("is no canonical uuid"))
}

/// A canonical uuid of any version.
///
/// # Errors
/// No string, or another spelling.
pub fn uuid(at: &At<'_>, value: &Value<'_>) -> Read<Uuid> {
    canonical_uuid(str_of(at, value)?).map_err(|_| at.form("is no canonical uuid"))
}

/// A SHA-256 digest.
///
/// # Errors
/// No string, or another spelling.
pub fn digest(at: &At<'_>, value: &Value<'_>) -> Read<Digest> {
    Digest::parse(str_of(at, value)?).map_err(|_| at.form("is no digest of 64 lower-case digits"))
}

/// A time.
///
/// # Errors
/// No string, or another spelling.
pub fn time(at: &At<'_>, value: &Value<'_>) -> Read<Timestamp> {
    Timestamp::parse(str_of(at, value)?).map_err(|_| at.form("is no time like 2026-01-31T12:00:00.000Z"))
}

/// An amount of money.
///
/// # Errors
/// No string, or another spelling.
pub fn money(at: &At<'_>, value: &Value<'_>) -> Read<Usd> {
    Usd::from_wire(str_of(at, value)?).map_err(|_| at.form("is no amount of money like \"12.50\""))
}

/// A fraction.
///
/// # Errors
/// No string, or another spelling.
pub fn fraction(at: &At<'_>, value: &Value<'_>) -> Read<Fraction> {
    Fraction::from_wire(str_of(at, value)?).map_err(|_| at.form("is no fraction like \"0.375\""))
}

/// A list of up to so many items.
pub fn list<'a, 't: 'a, T>(
    len_max: usize,
    item: impl Fn(&At<'a>, &'a Value<'t>) -> Read<T>,
) -> impl FnOnce(&At<'a>, &'a Value<'t>) -> Read<Vec<T>> {
    move |at, value| match value {
        Value::List(items) => {
            if items.len() > len_max {
                at.breach("has too many items");
            }
            items.iter().map(|value| item(at, value)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::Object(_) => {
            Err(at.form("must be a list"))
        }
    }
}

/// An object whose members `read` asks for; what it did not ask for is unknown.
pub fn object<'a, 't: 'a, T>(
    read: impl Fn(&mut Members<'a, 't>) -> Read<T>,
) -> impl Fn(&At<'a>, &'a Value<'t>) -> Read<T> {
    move |at, value| {
        let mut members = Members::of(at, value, at.member)?;
        let read = read(&mut members)?;
        members.finish()?;
        Ok(read)
    }
}

/// An object of free keys: texts of up to `key_bytes_max` bytes, up to `len_max` of them.
pub fn text_map<'a, 't: 'a>(
    len_max: usize,
    key_bytes_max: usize,
    value_bytes_max: usize,
) -> impl FnOnce(&At<'a>, &'a Value<'t>) -> Read<BTreeMap<String, String>> {
    move |at, value| {
        let members = Members::of(at, value, at.member)?;
        if members.items.len() > len_max {
            at.breach("has too many members");
        }
        let mut map = BTreeMap::new();
        for (key, value) in members.items {
            if key.len() > key_bytes_max {
                at.breach("has a key that is too long");
            }
            map.insert(key.clone().into_owned(), text_of_bytes(0..=value_bytes_max)(at, value)?);
        }
        Ok(map)
    }
}

/// An object keyed by nodes, up to 256 of them.
pub fn node_map<'a, 't: 'a, T>(
    read: impl Fn(&mut Members<'a, 't>) -> Read<T>,
) -> impl FnOnce(&At<'a>, &'a Value<'t>) -> Read<BTreeMap<NodeName, T>> {
    move |at, value| {
        let members = Members::of(at, value, at.member)?;
        if members.items.len() > limits::LIST_LEN_MAX {
            at.breach("has too many members");
        }
        let read = object(read);
        let mut map = BTreeMap::new();
        for (key, value) in members.items {
            map.insert(node_name(at, key)?, read(at, value)?);
        }
        Ok(map)
    }
}
