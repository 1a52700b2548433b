//! `status --watch`: the screen in place on a terminal, or a document per change.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use dispatch_node::config::Config;
use dispatch_node::durations;
use dispatch_node::report::{Exit, Report, say, say_raw};
use dispatch_node::term::{Colour, Size, Tone, cut_painted, size_of_stdout};
use dispatch_node::terminal::{Key, Screen};
use dispatch_node::waiting::{Stopped, Stops};
use serde_json::Value;

use super::{facts, screen};

/// From one look at the node to the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// From one look at the keyboard to the next.
const KEYS_EVERY: Duration = Duration::from_millis(100);
/// What is older is said to be old.
const OLD_AFTER: Duration = Duration::from_secs(5);
/// The size of a terminal that does not tell it.
const SIZE: Size = Size { columns: 80, rows: 24 };

type Gathered = Result<Value, Report>;

/// Prints a document whenever something but the time changed, until somebody stops it.
pub(super) fn documents(config: &Config) -> Result<Exit, Report> {
    let (stops, mut last) = (Stops::listen(), None);
    loop {
        let facts = facts::gather(config)?;
        let timeless = timeless(&facts);
        if last.as_ref() != Some(&timeless) {
            say(&facts.to_string())?;
            last = Some(timeless);
        }
        match stops.within(LOOK_EVERY) {
            Stopped::Yes => return Ok(Exit::Interrupted),
            Stopped::No => {}
        }
    }
}

/// The document without what changes by itself.
fn timeless(facts: &Value) -> Value {
    match facts {
        Value::Object(members) => {
            let stays = members.iter().filter(|(name, _)| !CHANGES_BY_ITSELF.contains(&name.as_str()));
            Value::Object(stays.map(|(name, value)| (name.clone(), timeless(value))).collect())
        }
        Value::Array(items) => items.iter().map(timeless).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => facts.clone(),
    }
}

/// Members that are times since something, or count heartbeats and what is written because of them.
const CHANGES_BY_ITSELF: [&str; 7] =
    ["at", "age_ms", "elapsed_ms", "ended_ms_ago", "standing", "seq", "head"];

/// Shows the screen until `q` or Ctrl-C.
pub(super) fn screens(config: &Config) -> Result<Exit, Report> {
    let stops = Stops::listen();
    let facts = gatherer(config.clone());
    let mut view = View { facts: facts::gather(config)?, at: Instant::now(), problem: None, drawn: None };
    let terminal = Screen::take()?;
    loop {
        view.draw()?;
        match terminal.key(KEYS_EVERY) {
            Some(Key::Quit) => return Ok(Exit::Done),
            Some(Key::Interrupt) => return Ok(Exit::Interrupted),
            Some(Key::Other) | None => {}
        }
        match stops.within(if terminal.has_keys() { Duration::ZERO } else { KEYS_EVERY }) {
            Stopped::Yes => return Ok(Exit::Interrupted),
            Stopped::No => {}
        }
        view.take(&facts)?;
    }
}

/// Looks at the node on a thread of its own: a share that hangs must not keep anybody from leaving.
fn gatherer(config: Config) -> Receiver<Gathered> {
    let (sender, facts): (SyncSender<Gathered>, _) = sync_channel(1);
    thread::spawn(move || {
        loop {
            thread::sleep(LOOK_EVERY);
            if sender.send(facts::gather(&config)).is_err() {
                return;
            }
        }
    });
    facts
}

/// What is shown.
struct View {
    facts: Value,
    at: Instant,
    /// Why the last look came to nothing.
    problem: Option<String>,
    /// What is on the terminal.
    drawn: Option<String>,
}

impl View {
    fn take(&mut self, facts: &Receiver<Gathered>) -> Result<(), Report> {
        match facts.recv_timeout(Duration::ZERO) {
            Ok(Ok(facts)) => (self.facts, self.at, self.problem) = (facts, Instant::now(), None),
            Ok(Err(report)) => self.problem = Some(report.one_line()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Report::new(Exit::Bug, "nobody looks at the node any more"));
            }
        }
        Ok(())
    }

    fn draw(&mut self) -> Result<(), Report> {
        let size = size_of_stdout().unwrap_or(SIZE);
        let text = page(&self.lines(), &self.footer(), size);
        if self.drawn.as_ref() != Some(&text) {
            say_raw(text.as_bytes())?;
            self.drawn = Some(text);
        }
        Ok(())
    }

    fn lines(&self) -> Vec<String> {
        screen::lines(&self.facts, Colour::of_stdout())
    }

    fn footer(&self) -> String {
        let colour = Colour::of_stdout();
        let age = self.at.elapsed();
        let seen = match &self.problem {
            Some(problem) => colour.paint(Tone::Bad, problem),
            None if age >= OLD_AFTER => {
                let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                colour.paint(
                    Tone::Warn,
                    &format!("as it was {} ago: the share does not answer", durations::whole(ms)),
                )
            }
            None => String::new(),
        };
        // The seconds of the clock: whoever looks sees that the screen lives.
        let at = self.facts.pointer("/at").and_then(Value::as_str).and_then(|at| at.get(11..19));
        let quiet = format!("q quits  {} UTC ", at.unwrap_or_default());
        format!("{} {seen}", colour.paint(Tone::Dim, &quiet))
    }
}

/// The lines as they fit, the last of them the footer; what does not fit is counted.
fn page(lines: &[String], footer: &str, size: Size) -> String {
    let room = size.rows.saturating_sub(1);
    let all_fit = lines.len() <= room;
    let shown = if all_fit { lines.len() } else { room.saturating_sub(1) };
    let mut text = String::from("\x1b[H");
    let mut put = |line: &str| {
        text.push_str(&cut_painted(line, size.columns));
        text.push_str("\x1b[K\r\n");
    };
    lines.iter().take(shown).for_each(|line| put(line));
    if !all_fit {
        put(&format!("… {} more lines", lines.len().saturating_sub(shown)));
    }
    text.push_str("\x1b[J");
    text.push_str(&format!("\x1b[{};1H{}", size.rows, cut_painted(footer, size.columns)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_is_never_larger_than_its_terminal() {
        let lines: Vec<String> = (0..10).map(|n| format!("line {n} {}", "x".repeat(100))).collect();
        let text = page(&lines, "q quits", Size { columns: 20, rows: 6 });
        let plain = text.replace("\x1b[H", "").replace("\x1b[K", "").replace("\x1b[J", "");
        let shown: Vec<&str> = plain.split("\r\n").collect();
        assert_eq!(shown.len(), 6, "{shown:?}");
        assert!(shown.iter().take(5).all(|line| line.chars().count() <= 20), "{shown:?}");
        assert_eq!(shown[4], "… 6 more lines");
        assert!(shown[5].ends_with("q quits"));
    }

    #[test]
    fn time_alone_is_no_change() {
        let facts = |at: &str, age: u64, state: &str| json!({"at": at, "state": state, "peers": [{"age_ms": age, "node": "b"}]});
        assert_eq!(timeless(&facts("1", 5, "active")), timeless(&facts("2", 6, "active")));
        assert_ne!(timeless(&facts("1", 5, "active")), timeless(&facts("1", 5, "maintenance")));
    }
}
