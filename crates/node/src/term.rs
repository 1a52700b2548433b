//! What reaches a terminal: strangers' text made visible, and colour only where a person looks.

use std::io::IsTerminal;

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
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(cut("grüße", 5), "grüße");
        assert_eq!(cut("grüße", 4), "grü…");
    }
}
