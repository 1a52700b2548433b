//! The one line that says where a task is while somebody waits for it.

use std::io::{self, IsTerminal as _, Write as _};

use dispatch_core::protocol::progress::Phase;

use super::{Beside, Interest, LogText, Printed, Sight, Whereabouts};
use crate::args::Common;
use crate::report::{Form, tell};
use crate::term::{Breaks, cut, visible, width_of_stderr};

/// Longest line where nobody knows how wide the terminal is.
const LINE_CHARS_MAX: usize = 200;

/// How the line is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A person looks at standard error: the line is rewritten.
    InPlace,
    /// Asked for by `-v`: one line per change.
    PerChange,
    /// Not at all.
    Never,
}

impl Shown {
    /// As the options and standard error have it.
    #[must_use]
    pub fn of(common: &Common) -> Shown {
        if common.quiet || common.form() == Form::Json {
            Shown::Never
        } else if io::stderr().is_terminal() {
            Shown::InPlace
        } else if common.verbose > 0 {
            Shown::PerChange
        } else {
            Shown::Never
        }
    }
}

/// The line on standard error.
#[derive(Debug)]
pub struct Line {
    shown: Shown,
    /// What it is about, where several tasks are waited for.
    about: String,
    /// What it says now; empty where it says nothing.
    text: String,
    /// What was said last, without its time: a change is told once.
    said: Option<Whereabouts>,
    /// Whether the line is on the terminal now.
    drawn: Drawn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drawn {
    Yes,
    No,
}

impl Line {
    /// A line that says nothing yet. `about` stands before everything it says.
    #[must_use]
    pub fn new(shown: Shown, about: &str) -> Line {
        Line { shown, about: about.to_owned(), text: String::new(), said: None, drawn: Drawn::No }
    }

    /// What there is to look at for it.
    #[must_use]
    pub const fn interest(&self) -> Interest {
        match self.shown {
            Shown::InPlace | Shown::PerChange => Interest::Whereabouts,
            Shown::Never => Interest::AnswerOnly,
        }
    }

    /// The same, beside a log that is followed.
    #[must_use]
    pub const fn interest_beside_log(&self) -> Interest {
        match self.shown {
            Shown::InPlace | Shown::PerChange => Interest::LogAndWhereabouts,
            Shown::Never => Interest::Log,
        }
    }

    /// Says what was seen; a log has its own way.
    pub fn show(&mut self, sight: &Sight) {
        let words = match sight {
            Sight::At(whereabouts) => return self.say_where(whereabouts),
            Sight::NoShare(why) => format!("the share cannot be looked at: {why}"),
            Sight::Disbelief(code) => {
                format!("something that does not verify lies at the result's place: {code}")
            }
            Sight::Log(_) => return,
        };
        self.said = None;
        if words != self.text {
            self.say(words);
        }
    }

    /// As [`Line::show`], beside a log: never into the middle of a line of it, nor that the task waits for its first turn
    /// when the log already says something. A message is a little later than the log.
    pub fn show_beside(&mut self, log: &LogText, sight: &Sight) {
        match (log.beside(), log.printed()) {
            (Beside::Busy, _) => {}
            (Beside::Free, Printed::Something) if is_before_the_first_start(sight) => self.clear(),
            (Beside::Free, Printed::Something | Printed::Nothing) => self.show(sight),
        }
    }

    fn say_where(&mut self, whereabouts: &Whereabouts) {
        let words = whereabouts.words();
        let is_news = match self.shown {
            Shown::InPlace => words != self.text || self.drawn == Drawn::No,
            Shown::PerChange => self.said.as_ref() != Some(&whereabouts.timeless()),
            Shown::Never => false,
        };
        if is_news {
            self.say(words);
            self.said = Some(whereabouts.timeless());
        }
    }

    fn say(&mut self, words: String) {
        self.text = words;
        let line = format!("{}{}", self.about, visible(&self.text, Breaks::Show));
        match self.shown {
            Shown::InPlace => {
                let width = width_of_stderr().map_or(LINE_CHARS_MAX, |width| width.saturating_sub(1));
                // Where the terminal is gone there is nobody left to show it to.
                drop(write!(io::stderr(), "\r\x1b[K{}", cut(&line, width)));
                self.drawn = Drawn::Yes;
            }
            Shown::PerChange => tell(&cut(&line, LINE_CHARS_MAX)),
            Shown::Never => {}
        }
    }

    /// Takes the line off the terminal, before something else is printed or for good. It comes back with the next sight.
    pub fn clear(&mut self) {
        if self.drawn == Drawn::Yes {
            drop(write!(io::stderr(), "\r\x1b[K"));
            self.drawn = Drawn::No;
        }
    }
}

fn is_before_the_first_start(sight: &Sight) -> bool {
    match sight {
        Sight::At(Whereabouts::Told { far, .. }) => far.epoch == 0 && far.phase != Phase::Running,
        Sight::At(
            Whereabouts::Inbox | Whereabouts::SeemsWaiting | Whereabouts::SeemsTaken | Whereabouts::Unseen,
        ) => true,
        Sight::Log(_) | Sight::NoShare(_) | Sight::Disbelief(_) => false,
    }
}
