//! Lines of a stream in a fixed amount of memory.
//!
//! A tool's output or an answer makes a line of many megabytes now and then, and which kind of line it is may stand at
//! its very end. So the middle of a long line is not thrown away blindly: what is dropped is the rest of each long JSON
//! string in it, and the line stays readable.

/// Bytes of one JSON string that are kept.
const STRING_BYTES_MAX: usize = 128 * 1024;
/// Bytes of one line that are kept. A line that is longer without long strings is dropped whole.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Cuts a stream into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    kept: Vec<u8>,
    place: Place,
    string_bytes: usize,
    too_long: bool,
}

/// Where in a line's JSON the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Outside,
    InString,
    /// In an escape of a string, with so many bytes of it to come at most.
    InEscape(u8),
    /// In the part of a string that is dropped.
    Dropped,
    /// In an escape there.
    DroppedEscape,
}

impl Lines {
    /// Takes the next bytes, and hands each line that is complete to `line`, without its end.
    pub(super) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line(&mut line);
            } else {
                self.take(*byte);
            }
        }
    }

    /// Hands over a last line that has no end.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        self.end_line(&mut line);
    }

    fn end_line(&mut self, line: &mut impl FnMut(&[u8])) {
        if !self.too_long && !self.kept.is_empty() {
            line(&self.kept);
        }
        self.kept.clear();
        self.kept.shrink_to(STRING_BYTES_MAX);
        self.place = Place::Outside;
        self.too_long = false;
    }

    fn take(&mut self, byte: u8) {
        let (place, keeps) = self.next(byte);
        self.place = place;
        if !keeps || self.too_long {
            return;
        }
        if self.kept.len() >= LINE_BYTES_MAX {
            self.too_long = true;
            return;
        }
        self.string_bytes = if place == Place::Outside { 0 } else { self.string_bytes.saturating_add(1) };
        self.kept.push(byte);
    }

    /// The place behind this byte, and whether the byte is kept.
    fn next(&self, byte: u8) -> (Place, bool) {
        match (self.place, byte) {
            (Place::InEscape(1), b'u') => (Place::InEscape(4), true),
            (Place::Outside, b'"') | (Place::InEscape(0..=1), _) => (Place::InString, true),
            (Place::Outside, _) | (Place::InString | Place::Dropped, b'"') => (Place::Outside, true),
            (Place::InString, b'\\') => (Place::InEscape(1), true),
            // Only in front of a whole character: none is cut in two, and no escape.
            (Place::InString, b' '..=b'~' | 0xC0..) if self.string_bytes >= STRING_BYTES_MAX => {
                (Place::Dropped, false)
            }
            (Place::InString, _) => (Place::InString, true),
            (Place::InEscape(left), _) => (Place::InEscape(left.saturating_sub(1)), true),
            (Place::Dropped, b'\\') => (Place::DroppedEscape, false),
            (Place::Dropped | Place::DroppedEscape, _) => (Place::Dropped, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        let mut keep = |line: &[u8]| seen.push(String::from_utf8(line.to_vec()).unwrap());
        for piece in pieces {
            lines.push(piece, &mut keep);
        }
        lines.finish(&mut keep);
        seen
    }

    #[test]
    fn a_line_is_the_same_however_the_pieces_fall() {
        let text = b"{\"a\":\"\\\"x\\\\\"}\n\n[1]\nlast";
        let expected = ["{\"a\":\"\\\"x\\\\\"}", "[1]", "last"];
        assert_eq!(lines(&[text]), expected);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(lines(&bytes), expected);
    }

    #[test]
    fn a_long_string_is_shortened_and_its_line_stays_readable() {
        let long = "é\\u00e9\\\"".repeat(1_000_000) + &"x".repeat(2_000_000);
        let line = format!("{{\"result\":\"{long}\",\"n\":[1,\"{long}\"],\"type\":\"result\"}}\n{{}}\n");
        let seen = lines(&[line.as_bytes()]);
        assert_eq!(seen.len(), 2);
        assert!(seen[0].len() < 3 * STRING_BYTES_MAX);
        let value: serde_json::Value = serde_json::from_str(&seen[0]).unwrap();
        assert_eq!(value["type"], "result");
        assert!(value["result"].as_str().unwrap().starts_with("éé\"é"));
    }

    #[test]
    fn a_long_line_without_long_strings_is_dropped_and_the_next_is_read() {
        let line = "1,".repeat(LINE_BYTES_MAX) + "\n[2]\n";
        assert_eq!(lines(&[line.as_bytes()]), ["[2]"]);
    }
}
