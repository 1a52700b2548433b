//! A terminal that a command takes for itself for a while, and gives back as it was.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use crate::report::{Exit, Report};

/// Another screen, no cursor, no wrapping of long lines.
const TAKE: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const GIVE_BACK: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Ctrl-C, where the terminal makes no signal of it.
const CTRL_C: u8 = 3;

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `q`.
    Quit,
    /// Ctrl-C.
    Interrupt,
    /// Any other.
    Other,
}

/// The terminal at standard output, taken until this goes: then screen, cursor and keyboard are as they were, however the
/// command ends.
#[derive(Debug)]
pub struct Screen {
    /// How the keyboard was; `None` where standard input is no terminal.
    before: Option<Termios>,
}

impl Screen {
    /// Takes the screen and, where standard input is a terminal, single keys.
    ///
    /// # Errors
    /// The terminal cannot be changed.
    pub fn take() -> Result<Screen, Report> {
        let failed = |error: &dyn std::error::Error| {
            Report::of(Exit::LocalIo, error).while_doing("cannot use this terminal")
        };
        let mut screen = Screen { before: None };
        if io::stdin().is_terminal() {
            let before = tcgetattr(io::stdin()).map_err(|error| failed(&error))?;
            let mut keys = before.clone();
            // Without signals: one that stops the process would leave this screen behind.
            keys.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
            keys.special_codes[SpecialCodeIndex::VMIN] = 0;
            keys.special_codes[SpecialCodeIndex::VTIME] = 0;
            tcsetattr(io::stdin(), OptionalActions::Now, &keys).map_err(|error| failed(&error))?;
            screen.before = Some(before);
        }
        let mut out = io::stdout();
        out.write_all(TAKE.as_bytes()).and_then(|()| out.flush()).map_err(|error| failed(&error))?;
        Ok(screen)
    }

    /// Whether keys can be pressed at all.
    #[must_use]
    pub const fn has_keys(&self) -> bool {
        self.before.is_some()
    }

    /// The next key, waited for so long. Where there is no keyboard, at once none.
    #[must_use]
    pub fn key(&self, wait: Duration) -> Option<Key> {
        self.before.as_ref()?;
        let stdin = io::stdin();
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        let wait = Timespec::try_from(wait).ok();
        if poll(&mut ready, wait.as_ref()).unwrap_or(0) == 0 {
            return None;
        }
        let mut byte = [0_u8; 1];
        match rustix::io::read(&stdin, &mut byte) {
            Ok(1..) => Some(match byte {
                [b'q' | b'Q'] => Key::Quit,
                [CTRL_C] => Key::Interrupt,
                [_] => Key::Other,
            }),
            // The terminal is gone.
            Ok(0) | Err(_) => Some(Key::Quit),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout();
        // Where the terminal is gone nothing has to be put right.
        drop(out.write_all(GIVE_BACK.as_bytes()).and_then(|()| out.flush()));
        if let Some(before) = &self.before {
            tcsetattr(io::stdin(), OptionalActions::Flush, before).ok();
        }
    }
}
