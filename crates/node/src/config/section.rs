//! One table of the file while it is checked: every key is asked for by name, and what nobody asked for is unknown.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Problem};
use super::{Effective, Origin};

/// The text that is being checked.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// The line, counted from 1, of a byte of the text.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count().saturating_add(1)
    }

    pub(super) fn error(&self, line: Option<usize>, problem: Problem) -> ConfigError {
        ConfigError { file: self.file.to_owned(), line, problem }
    }
}

/// One table, or the absence of one.
pub(super) struct Section<'a> {
    source: Source<'a>,
    /// The table's own name with its parents', empty at the top.
    prefix: String,
    table: Option<&'a DeTable<'a>>,
    known: Vec<&'static str>,
    effective: Vec<Effective>,
}

impl<'a> Section<'a> {
    pub(super) fn top(source: Source<'a>, table: &'a DeTable<'a>) -> Section<'a> {
        Section::new(source, String::new(), Some(table))
    }

    fn new(source: Source<'a>, prefix: String, table: Option<&'a DeTable<'a>>) -> Section<'a> {
        Section { source, prefix, table, known: Vec::new(), effective: Vec::new() }
    }

    /// A key with the names of its tables.
    pub(super) fn full(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) }
    }

    /// True when the file has this table.
    pub(super) const fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// True when the table has this key.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The table of that name inside this one, or its absence.
    pub(super) fn child(&mut self, key: &'static str) -> Result<Section<'a>, ConfigError> {
        let table = match self.raw(key) {
            None => None,
            Some(value) => Some(self.as_table(key, value)?),
        };
        Ok(Section::new(self.source, self.full(key), table))
    }

    /// The tables inside the table of that name, `[peer.NAME]`, in the order of the file.
    pub(super) fn children(&mut self, key: &'static str) -> Result<Vec<(String, Section<'a>)>, ConfigError> {
        let Some(value) = self.raw(key) else { return Ok(Vec::new()) };
        let table = self.as_table(key, value)?;
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut children = Vec::new();
        for (name, value) in entries {
            let name = name.get_ref().to_string();
            let inner = self.as_table(&format!("{key}.{name}"), value)?;
            let prefix = self.full(&format!("{key}.{name}"));
            children.push((name, Section::new(self.source, prefix, Some(inner))));
        }
        Ok(children)
    }

    /// A text, read by `parse`; `None` when the key is absent.
    pub(super) fn text<T, E: Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let text = value.get_ref().as_str().ok_or_else(|| self.wrong_type(key, value, "a text in quotes"))?;
        let parsed = parse(text).map_err(|why| self.bad_value(key, value, &why))?;
        self.note_line(key, value, quoted(text));
        Ok(Some(parsed))
    }

    /// A text that has a default, given as it would stand in the file.
    pub(super) fn text_or<T, E: Display>(
        &mut self,
        key: &'static str,
        default: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        if let Some(value) = self.text(key, &parse)? {
            return Ok(value);
        }
        self.by_default(key, quoted(default));
        parse(default).map_err(|why| self.problem(None, Problem::value(self.full(key), &why)))
    }

    /// A text that must be there.
    pub(super) fn required_text<T, E: Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        self.text(key, parse)?.ok_or_else(|| self.missing(key))
    }

    /// A whole number in a range; `None` when the key is absent.
    pub(super) fn number<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let integer = value.get_ref().as_integer();
        let integer = integer.ok_or_else(|| self.wrong_type(key, value, "a whole number"))?;
        let rule = format!("a whole number from {} to {}", range.start(), range.end());
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let fitting = number.filter(|number| range.contains(number));
        let Some(converted) = fitting.and_then(|number| T::try_from(number).ok()) else {
            return Err(self.bad_value(key, value, &rule));
        };
        self.note_line(key, value, fitting.map(|number| number.to_string()).unwrap_or_default());
        Ok(Some(converted))
    }

    /// A whole number that has a default.
    pub(super) fn number_or<T: TryFrom<u64> + Display>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: T,
    ) -> Result<T, ConfigError> {
        match self.number(key, range)? {
            Some(number) => Ok(number),
            None => {
                self.by_default(key, default.to_string());
                Ok(default)
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag_or(&mut self, key: &'static str, default: Flag) -> Result<bool, ConfigError> {
        let Some(value) = self.raw(key) else {
            let flag = default == Flag::True;
            self.by_default(key, flag.to_string());
            return Ok(flag);
        };
        let flag = value.get_ref().as_bool();
        let flag = flag.ok_or_else(|| self.wrong_type(key, value, "true or false"))?;
        self.note_line(key, value, flag.to_string());
        Ok(flag)
    }

    /// A list of texts, each read by `parse`; empty when the key is absent.
    pub(super) fn texts<T, E: Display>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(value) = self.raw(key) else { return Ok(Vec::new()) };
        let wanted = "a list of texts in quotes";
        let list = value.get_ref().as_array().ok_or_else(|| self.wrong_type(key, value, wanted))?;
        let mut parsed = Vec::new();
        let mut shown = Vec::new();
        for item in list {
            let text = item.get_ref().as_str().ok_or_else(|| self.wrong_type(key, item, wanted))?;
            parsed.push(parse(text).map_err(|why| self.bad_value(key, item, &why))?);
            shown.push(quoted(text));
        }
        self.note_line(key, value, format!("[{}]", shown.join(", ")));
        Ok(parsed)
    }

    /// A table of texts under names of the user's choice.
    pub(super) fn pairs(&mut self, key: &'static str) -> Result<Vec<(String, String)>, ConfigError> {
        let Some(value) = self.raw(key) else { return Ok(Vec::new()) };
        let table = self.as_table(key, value)?;
        let mut pairs = Vec::new();
        for (name, item) in table {
            let text = item.get_ref().as_str();
            let text = text.ok_or_else(|| self.wrong_type(key, item, "a table of texts in quotes"))?;
            pairs.push((name.get_ref().to_string(), text.to_owned()));
        }
        let shown: Vec<String> =
            pairs.iter().map(|(name, text)| format!("{name} = {}", quoted(text))).collect();
        self.note_line(key, value, format!("{{ {} }}", shown.join(", ")));
        Ok(pairs)
    }

    /// Notes a value that stands neither in the file nor in the defaults.
    pub(super) fn note(&mut self, key: &str, value: String, origin: Origin) {
        let key = self.full(key);
        self.effective.retain(|known| known.key != key);
        self.effective.push(Effective { key, value, origin });
    }

    /// What was asked for, after checking that nothing else is there.
    pub(super) fn finish(self) -> Result<Vec<Effective>, ConfigError> {
        let entries = self.table.into_iter().flat_map(|table| table.iter());
        for (name, _) in entries {
            let text: &str = name.get_ref().as_ref();
            if !self.known.contains(&text) {
                let nearest = nearest(text, &self.known);
                let line = Some(self.source.line_of(name.span().start));
                return Err(self.problem(line, Problem::UnknownKey { key: self.full(text), nearest }));
            }
        }
        Ok(self.effective)
    }

    /// An error about a key of this section, at its line when it is there.
    pub(super) fn error_at(&self, key: &str, problem: Problem) -> ConfigError {
        let value = self.table.and_then(|table| table.get(key));
        let line = value.map(|value| self.source.line_of(value.span().start)).or_else(|| self.first_line());
        self.problem(line, problem)
    }

    pub(super) fn missing(&self, key: &'static str) -> ConfigError {
        self.problem(self.first_line(), Problem::Missing { key: self.full(key) })
    }

    /// The line of the first key, as a hint where the table is; none at the top.
    fn first_line(&self) -> Option<usize> {
        let table = self.table.filter(|_| !self.prefix.is_empty())?;
        table.iter().map(|(name, _)| name.span().start).min().map(|at| self.source.line_of(at))
    }

    fn raw(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.and_then(|table| table.get(key))
    }

    fn as_table(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Result<&'a DeTable<'a>, ConfigError> {
        value.get_ref().as_table().ok_or_else(|| self.wrong_type(key, value, "a table"))
    }

    fn note_line(&mut self, key: &str, value: &Spanned<DeValue<'_>>, text: String) {
        let origin = Origin::Line(self.source.line_of(value.span().start));
        self.note(key, text, origin);
    }

    fn by_default(&mut self, key: &str, text: String) {
        self.note(key, text, Origin::Default);
    }

    fn problem(&self, line: Option<usize>, problem: Problem) -> ConfigError {
        self.source.error(line, problem)
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &'static str) -> ConfigError {
        let line = Some(self.source.line_of(value.span().start));
        let found = value.get_ref().type_str();
        self.problem(line, Problem::WrongType { key: self.full(key), wanted, found })
    }

    fn bad_value(&self, key: &str, value: &Spanned<DeValue<'_>>, why: &dyn Display) -> ConfigError {
        let line = Some(self.source.line_of(value.span().start));
        self.problem(line, Problem::value(self.full(key), why))
    }
}

/// Which word a flag has when the file is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    False,
    True,
}

/// A text as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The known key that a mistyped one most likely meant.
fn nearest(text: &str, known: &[&'static str]) -> Option<&'static str> {
    let by_distance = known.iter().map(|key| (distance(text, key), *key)).min();
    by_distance.filter(|(far, key)| *far <= key.len().div_ceil(2).max(2)).map(|(_, key)| key)
}

/// How many characters must be put in, taken out or changed to come from one text to the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (taken, from) in left.chars().enumerate() {
        let mut before = taken;
        let mut last = taken.saturating_add(1);
        let mut next = vec![last];
        for (to, above) in right.iter().zip(row.iter().skip(1)) {
            let change = before.saturating_add(usize::from(from != *to));
            last = change.min(above.saturating_add(1)).min(last.saturating_add(1));
            next.push(last);
            before = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_the_one_meant() {
        let known = ["max_parallel", "max_cost_usd", "agent"];
        assert_eq!(nearest("max_paralel", &known), Some("max_parallel"));
        assert_eq!(nearest("max_cost", &known), Some("max_cost_usd"));
        assert_eq!(nearest("zzzzzzzzzzzz", &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
