//! A reader for one line of JSON, with numbers kept as they are written.
//!
//! Messages of the protocol are read elsewhere and more strictly: there a number that is no 64-bit integer makes the
//! whole text malformed, while here it is well-formed and merely of the wrong type for where it stands.

use std::borrow::Cow;

/// Lists and objects may stand inside each other this deep.
const DEPTH_MAX: u32 = 127;
/// Objects up to this size are searched for double members pair by pair.
const PAIRWISE_MEMBERS_MAX: usize = 32;

/// One value; text without escapes borrows from the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Json<'t> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as written.
    Number(&'t str),
    /// A string.
    Text(Cow<'t, str>),
    /// An array.
    List(Vec<Json<'t>>),
    /// An object, its members as written.
    Object(Vec<Member<'t>>),
}

/// A member of an object.
pub(super) type Member<'t> = (Cow<'t, str>, Json<'t>);

/// Not JSON, a member twice, half a surrogate pair, or nested too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads one value and nothing after it.
pub(super) fn parse(text: &str) -> Result<Json<'_>, Malformed> {
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0 };
    reader.skip_space();
    let value = reader.value(0)?;
    reader.skip_space();
    if reader.peek().is_none() { Ok(value) } else { Err(Malformed) }
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn next(&mut self) -> Result<u8, Malformed> {
        let byte = self.peek().ok_or(Malformed)?;
        self.step();
        Ok(byte)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.step();
        }
    }

    fn since(&self, start: usize) -> Result<&'t str, Malformed> {
        self.text.get(start..self.at).ok_or(Malformed)
    }

    fn word(&mut self, word: &str, value: Json<'t>) -> Result<Json<'t>, Malformed> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.starts_with(word.as_bytes()) {
            self.at = self.at.saturating_add(word.len());
            Ok(value)
        } else {
            Err(Malformed)
        }
    }

    fn value(&mut self, depth: u32) -> Result<Json<'t>, Malformed> {
        match self.peek() {
            Some(b'"') => self.text().map(Json::Text),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'n') => self.word("null", Json::Null),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) | None => Err(Malformed),
        }
    }

    fn list(&mut self, depth: u32) -> Result<Json<'t>, Malformed> {
        let mut items = Vec::new();
        self.open(depth)?;
        if self.closes(b']') {
            return Ok(Json::List(items));
        }
        loop {
            self.skip_space();
            items.push(self.value(depth.saturating_add(1))?);
            if self.ends(b']')? {
                return Ok(Json::List(items));
            }
        }
    }

    fn object(&mut self, depth: u32) -> Result<Json<'t>, Malformed> {
        let mut members: Vec<Member<'t>> = Vec::new();
        self.open(depth)?;
        if self.closes(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.skip_space();
            let name = if self.peek() == Some(b'"') { self.text()? } else { return Err(Malformed) };
            self.skip_space();
            if self.next()? != b':' {
                return Err(Malformed);
            }
            self.skip_space();
            members.push((name, self.value(depth.saturating_add(1))?));
            if self.ends(b'}')? {
                break;
            }
        }
        if has_double(&members) { Err(Malformed) } else { Ok(Json::Object(members)) }
    }

    /// Steps over an opening bracket.
    fn open(&mut self, depth: u32) -> Result<(), Malformed> {
        if depth >= DEPTH_MAX {
            return Err(Malformed);
        }
        self.step();
        self.skip_space();
        Ok(())
    }

    /// Steps over a closing bracket where nothing is inside.
    fn closes(&mut self, bracket: u8) -> bool {
        let closed = self.peek() == Some(bracket);
        if closed {
            self.step();
        }
        closed
    }

    /// Steps over what follows an item: true for the closing bracket, false for a comma.
    fn ends(&mut self, bracket: u8) -> Result<bool, Malformed> {
        self.skip_space();
        match self.next()? {
            b',' => Ok(false),
            byte if byte == bracket => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`
    fn number(&mut self) -> Result<Json<'t>, Malformed> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.step();
        }
        if self.peek() == Some(b'0') {
            self.step();
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.step();
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.step();
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.step();
            }
            self.digits()?;
        }
        self.since(start).map(Json::Number)
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.step();
        }
        if self.at > start { Ok(()) } else { Err(Malformed) }
    }

    fn text(&mut self) -> Result<Cow<'t, str>, Malformed> {
        self.step();
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let plain = self.since(start)?;
                    self.step();
                    return Ok(Cow::Borrowed(plain));
                }
                Some(b'\\') => return self.escaped_text(start).map(Cow::Owned),
                Some(byte) if byte >= b' ' => self.step(),
                Some(_) | None => return Err(Malformed),
            }
        }
    }

    /// The rest of a text whose first escape was met.
    fn escaped_text(&mut self, start: usize) -> Result<String, Malformed> {
        let mut text = self.since(start)?.to_owned();
        loop {
            let plain = self.at;
            while self.peek().is_some_and(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
                self.step();
            }
            text.push_str(self.since(plain)?);
            match self.next()? {
                b'"' => return Ok(text),
                b'\\' => text.push(self.escape()?),
                _ => return Err(Malformed),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        Ok(match self.next()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.code_point(),
            _ => return Err(Malformed),
        })
    }

    fn code_point(&mut self) -> Result<char, Malformed> {
        let unit = self.code_unit()?;
        let high = match unit {
            0xd800..=0xdbff => unit.wrapping_sub(0xd800),
            _ => return char::from_u32(unit).ok_or(Malformed),
        };
        let (backslash, letter) = (self.next()?, self.next()?);
        let low = self.code_unit()?;
        match (backslash, letter, low) {
            (b'\\', b'u', 0xdc00..=0xdfff) => {
                let offset = (high << 10) | low.wrapping_sub(0xdc00);
                char::from_u32(offset.wrapping_add(0x1_0000)).ok_or(Malformed)
            }
            _ => Err(Malformed),
        }
    }

    fn code_unit(&mut self) -> Result<u32, Malformed> {
        let mut unit = 0_u32;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16).ok_or(Malformed)?;
            unit = (unit << 4) | digit;
        }
        Ok(unit)
    }
}

fn has_double(members: &[Member<'_>]) -> bool {
    if members.len() > PAIRWISE_MEMBERS_MAX {
        let mut names = std::collections::BTreeSet::new();
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

/// Writes a string as JSON.
pub(super) fn write_text(out: &mut String, text: &str) {
    use std::fmt::Write as _;
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                // Writing to a String cannot fail.
                write!(out, "\\u{:04x}", u32::from(control)).unwrap_or_default();
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_json_is_malformed() {
        for bad in [
            "",
            " ",
            "nul",
            "truex",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "1e+",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":1}",
            "\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud800\\u0041\"",
            "\"\n\"",
            "NaN",
            "Infinity",
            "1 1",
            "\u{feff}1",
            "'a'",
            "\u{a0}1",
        ] {
            assert_eq!(parse(bad), Err(Malformed), "{bad}");
        }
        assert_eq!(parse(&"[".repeat(100_000)), Err(Malformed));
        let deepest = format!("{}{}", "[".repeat(127), "]".repeat(127));
        assert!(parse(&deepest).is_ok());
        assert_eq!(parse(&format!("[{deepest}]")), Err(Malformed));
    }

    #[test]
    fn numbers_are_kept_as_written_and_escapes_are_read() {
        assert_eq!(parse(" -0.50e+7\r\n"), Ok(Json::Number("-0.50e+7")));
        assert_eq!(parse(r#""a\u0000\ud83d\ude00\/\t""#), Ok(Json::Text("a\0😀/\t".into())));
        assert_eq!(parse(r#""plain""#), Ok(Json::Text(Cow::Borrowed("plain"))));
    }

    #[test]
    fn many_members_are_searched_for_doubles_too() {
        let members: Vec<String> = (0..100).map(|at| format!("\"m{}\":0", at % 99)).collect();
        assert_eq!(parse(&format!("{{{}}}", members.join(","))), Err(Malformed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn a_written_text_is_read_back(text: String) {
            let mut written = String::new();
            write_text(&mut written, &text);
            prop_assert_eq!(parse(&written), Ok(Json::Text(Cow::Borrowed(text.as_str()))));
        }

        #[test]
        fn no_line_brings_the_reader_down(line in "[\\[\\]{}\":,\\\\ud8090.eE+-tfn a]{0,40}") {
            let ours = parse(&line).is_ok();
            // serde_json agrees except on double members and on numbers past a float's range.
            if ours && !line.contains(['e', 'E']) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{}", line);
            }
        }
    }
}
