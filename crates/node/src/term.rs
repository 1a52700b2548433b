//! What reaches a terminal: strangers' text made visible, and colour only where a person looks.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;

/// How a piece of text is to stand out on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// A failure.
    Bad,
    /// Something to look at.
    Warn,
    /// Done, alive, verified.
    Good,
    /// Less important than its neighbours.
    Dim,
    /// A heading.
    Bold,
}

/// Whether line breaks and tabs of a text are part of its layout or must be made visible as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaks {
    /// A text of several lines: `\n` and `\t` stay.
    Keep,
    /// A text that must stay on one line.
    Show,
}

/// True for characters that could move a cursor, hide text or turn its direction: C0 and C1 controls, DEL, the bidi
/// controls, zero-width characters, line and paragraph separators, and the tag characters.
#[must_use]
pub fn is_hidden(ch: char) -> bool {
    ch.is_control()
        || matches!(
            ch,
            '\u{00AD}'
                | '\u{034F}'
                | '\u{061C}'
                | '\u{115F}'..='\u{1160}'
                | '\u{17B4}'..='\u{17B5}'
                | '\u{180B}'..='\u{180F}'
                | '\u{200B}'..='\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{3164}'
                | '\u{FE00}'..='\u{FE0F}'
                | '\u{FEFF}'
                | '\u{FFA0}'
                | '\u{FFF0}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E0FFF}'
        )
}

/// A stranger's text as a person may safely see it. This is the one function through which text of a task, an agent
/// or the share reaches a terminal: what [`is_hidden`] names becomes `\x1b`- or `\u{202e}`-like text, and nothing is lost.
#[must_use]
pub fn visible(text: &str, breaks: Breaks) -> String {
    let mut shown = String::with_capacity(text.len());
    for ch in text.chars() {
        match (ch, breaks) {
            ('\n' | '\t', Breaks::Keep) => shown.push(ch),
            ('\n', Breaks::Show) => shown.push_str("\\n"),
            ('\t', Breaks::Show) => shown.push_str("\\t"),
            _ if ch.is_ascii_control() => shown.push_str(&format!("\\x{:02x}", u32::from(ch))),
            _ if is_hidden(ch) => shown.push_str(&format!("\\u{{{:x}}}", u32::from(ch))),
            _ => shown.push(ch),
        }
    }
    shown
}

/// Whether output is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// A person looks and has not asked for none.
    On,
    /// A pipe, a file, or `NO_COLOR`.
    Off,
}

impl Colour {
    /// Looks at standard output and `NO_COLOR`.
    #[must_use]
    pub fn of_stdout() -> Colour {
        Colour::of(std::io::stdout().is_terminal())
    }

    /// Looks at standard error and `NO_COLOR`.
    #[must_use]
    pub fn of_stderr() -> Colour {
        Colour::of(std::io::stderr().is_terminal())
    }

    fn of(terminal: impl Into<Terminal>) -> Colour {
        let asked_for_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match terminal.into() {
            Terminal::Yes if !asked_for_none => Colour::On,
            Terminal::Yes | Terminal::No => Colour::Off,
        }
    }

    /// The text in that tone, or as it is.
    #[must_use]
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Bad => "31",
            Tone::Warn => "33",
            Tone::Good => "32",
            Tone::Dim => "2",
            Tone::Bold => "1",
        };
        match self {
            Colour::On => format!("\x1b[{code}m{text}\x1b[0m"),
            Colour::Off => text.to_owned(),
        }
    }
}

enum Terminal {
    Yes,
    No,
}

impl From<bool> for Terminal {
    fn from(is: bool) -> Terminal {
        if is { Terminal::Yes } else { Terminal::No }
    }
}

/// How many characters fit on a line of the terminal at standard error; `None` where there is none, or it does not say.
#[must_use]
pub fn width_of_stderr() -> Option<usize> {
    size(std::io::stderr()).map(|size| size.columns)
}

/// Size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// On a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// The size of the terminal at standard output; `None` where there is none, or it does not say.
#[must_use]
pub fn size_of_stdout() -> Option<Size> {
    size(std::io::stdout())
}

fn size(terminal: impl AsFd) -> Option<Size> {
    let size = tcgetwinsize(terminal).ok()?;
    (size.ws_col > 0 && size.ws_row > 0)
        .then(|| Size { columns: size.ws_col.into(), rows: size.ws_row.into() })
}

/// The text cut to so many characters, the last of them `…` when something is missing.
#[must_use]
pub fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// The beginning of a colour of ours, and the letter that ends it.
const PAINT: char = '\x1b';
const PAINT_END: char = 'm';

/// How many characters of a text are seen: what [`Colour::paint`] put in is not.
#[must_use]
pub fn seen_chars(painted: &str) -> usize {
    let mut in_paint = false;
    let seen = painted.chars().filter(|ch| {
        let counts = !in_paint && *ch != PAINT;
        in_paint = *ch == PAINT || in_paint && *ch != PAINT_END;
        counts
    });
    seen.count()
}

/// As [`cut`], for a text that was painted: no colour is cut in two or left on.
#[must_use]
pub fn cut_painted(painted: &str, chars_max: usize) -> String {
    if seen_chars(painted) <= chars_max {
        return painted.to_owned();
    }
    let (mut short, mut seen, mut in_paint) = (String::new(), 0_usize, false);
    for ch in painted.chars() {
        if !in_paint && ch != PAINT {
            seen = seen.saturating_add(1);
            if seen >= chars_max {
                break;
            }
        }
        in_paint = ch == PAINT || in_paint && ch != PAINT_END;
        short.push(ch);
    }
    short.push('…');
    if short.contains(PAINT) {
        short.push_str("\x1b[0m");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_stranger_wrote_can_move_the_cursor_or_hide() {
        assert_eq!(
            visible("\x1b[2Jrm\x7f \u{202e}fr\u{200b}", Breaks::Show),
            "\\x1b[2Jrm\\x7f \\u{202e}fr\\u{200b}"
        );
        assert_eq!(visible("a\r\nb\tc", Breaks::Keep), "a\\x0d\nb\tc");
        assert_eq!(visible("a\nb\tc", Breaks::Show), "a\\nb\\tc");
        assert_eq!(visible("\u{9b}31m", Breaks::Keep), "\\u{9b}31m");
        assert_eq!(visible("Grüße, 世界 ✓", Breaks::Show), "Grüße, 世界 ✓");
    }

    #[test]
    fn a_painted_text_is_cut_by_what_is_seen_of_it() {
        let painted = format!("{} node", Colour::On.paint(Tone::Good, "grün"));
        assert_eq!(seen_chars(&painted), 9);
        assert_eq!(cut_painted(&painted, 9), painted);
        assert_eq!(cut_painted(&painted, 7), "\x1b[32mgrün\x1b[0m n…\x1b[0m");
        assert_eq!(cut_painted(&painted, 3), "\x1b[32mgr…\x1b[0m");
        assert_eq!(cut_painted("plain text", 6), "plain…");
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(cut("grüße", 5), "grüße");
        assert_eq!(cut("grüße", 4), "grü…");
    }
}
