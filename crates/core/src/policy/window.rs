//! Budget windows: which there are, how each is keyed, what is in one, and how much may be.

use std::fmt;

use crate::policy::money::Usd;
use crate::protocol::names::{BadName, NodeName, TaskId, is_name_alphabet};
use crate::protocol::task::Task;
use crate::protocol::time::Timestamp;

/// Longest name of a run, in bytes (protocol section 3).
pub const RUN_NAME_BYTES_MAX: usize = 64;

/// A kind of budget window, in the order in which they are asked (policy section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// One batch of one sender.
    Run,
    /// One UTC day of this node.
    Day,
    /// One UTC month of this node.
    Month,
    /// One sender's UTC month.
    Sender,
    /// One task and everything sent by it, for as long as that lives.
    Tree,
}

impl Window {
    /// All windows, in the order in which they are asked.
    pub const ALL: [Window; 5] = [Window::Run, Window::Day, Window::Month, Window::Sender, Window::Tree];

    /// The name in results, audit entries and `policy eval`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Window::Run => "run",
            Window::Day => "day",
            Window::Month => "month",
            Window::Sender => "sender",
            Window::Tree => "tree",
        }
    }

    /// The window of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Window> {
        Window::ALL.into_iter().find(|window| window.as_str() == text)
    }

    /// What happens to a task for which this window has no room.
    #[must_use]
    pub const fn when_full(self) -> WhenFull {
        match self {
            Window::Day | Window::Month => WhenFull::Wait,
            Window::Run | Window::Sender | Window::Tree => WhenFull::Refuse,
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a window without room does to a task (policy section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The task is refused.
    Refuse,
    /// The task waits, queued without a reservation, until the window resets or the task expires.
    Wait,
}

/// The name of a run: `[a-z0-9][a-z0-9_-]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunName(String);

impl RunName {
    /// Checks a text.
    ///
    /// # Errors
    /// A text outside the alphabet or longer than [`RUN_NAME_BYTES_MAX`].
    pub fn new(text: &str) -> Result<RunName, BadName> {
        if is_name_alphabet(text) && text.len() <= RUN_NAME_BYTES_MAX {
            Ok(RunName(text.to_owned()))
        } else {
            Err(BadName { kind: "run name", rule: "a letter or digit, then up to 63 of a-z 0-9 _ -" })
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A UTC day, written `YYYY-MM-DD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Timestamp);

impl Day {
    /// The day that holds an instant.
    #[must_use]
    pub fn of(at: Timestamp) -> Day {
        Day::parse(&at.day_key()).unwrap_or(Day(at))
    }

    /// Reads `YYYY-MM-DD`; `None` for any other text and for dates that do not exist.
    #[must_use]
    pub fn parse(text: &str) -> Option<Day> {
        Timestamp::parse(&format!("{text}T00:00:00.000Z")).ok().map(Day)
    }

    /// The first instant after it.
    #[must_use]
    pub fn ends_at(self) -> Timestamp {
        self.0.next_day()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.day_key())
    }
}

/// A UTC month, written `YYYY-MM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(Timestamp);

impl Month {
    /// The month that holds an instant.
    #[must_use]
    pub fn of(at: Timestamp) -> Month {
        Month::parse(&at.month_key()).unwrap_or(Month(at))
    }

    /// Reads `YYYY-MM`; `None` for any other text and for months that do not exist.
    #[must_use]
    pub fn parse(text: &str) -> Option<Month> {
        Timestamp::parse(&format!("{text}-01T00:00:00.000Z")).ok().map(Month)
    }

    /// The first instant after it.
    #[must_use]
    pub fn ends_at(self) -> Timestamp {
        self.0.next_month()
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.month_key())
    }
}

/// One window of one kind: what the ledger keeps a balance under.
///
/// Its text (`Display`, [`WindowKey::parse`]) is stable: `run:devbox/nightly`, `run:devbox/2026-11-21@day`,
/// `day:2026-11-21`, `month:2026-11`, `sender:devbox/2026-11`, `tree:<uuid of the root>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowKey {
    /// A run that its sender named; open until somebody closes it.
    Run {
        /// Who sent the tasks of the run.
        sender: NodeName,
        /// The task's `run`.
        run: RunName,
    },
    /// The run of a sender's tasks that name none: one for each UTC day, so that a crash loop resets nothing.
    RunOfDay {
        /// Who sent the tasks.
        sender: NodeName,
        /// The day on which they were accepted.
        day: Day,
    },
    /// A day of this node.
    Day(Day),
    /// A month of this node.
    Month(Month),
    /// A month of one sender.
    Sender {
        /// The sender.
        sender: NodeName,
        /// The month.
        month: Month,
    },
    /// A tree of tasks, by the id of its root.
    Tree(TaskId),
}

impl WindowKey {
    /// The kind of window it is.
    #[must_use]
    pub const fn window(&self) -> Window {
        match self {
            WindowKey::Run { .. } | WindowKey::RunOfDay { .. } => Window::Run,
            WindowKey::Day(_) => Window::Day,
            WindowKey::Month(_) => Window::Month,
            WindowKey::Sender { .. } => Window::Sender,
            WindowKey::Tree(_) => Window::Tree,
        }
    }

    /// When a fresh window takes its place, for those that end by themselves.
    #[must_use]
    pub fn resets_at(&self) -> Option<Timestamp> {
        match self {
            WindowKey::Run { .. } | WindowKey::Tree(_) => None,
            WindowKey::RunOfDay { day, .. } | WindowKey::Day(day) => Some(day.ends_at()),
            WindowKey::Month(month) | WindowKey::Sender { month, .. } => Some(month.ends_at()),
        }
    }

    /// Reads the text that `Display` writes; `None` for any other.
    #[must_use]
    pub fn parse(text: &str) -> Option<WindowKey> {
        let (kind, rest) = text.split_once(':')?;
        match Window::parse(kind)? {
            Window::Run => {
                let (sender, run) = rest.split_once('/')?;
                let sender = NodeName::new(sender).ok()?;
                match run.strip_suffix("@day") {
                    Some(day) => Some(WindowKey::RunOfDay { sender, day: Day::parse(day)? }),
                    None => Some(WindowKey::Run { sender, run: RunName::new(run).ok()? }),
                }
            }
            Window::Day => Day::parse(rest).map(WindowKey::Day),
            Window::Month => Month::parse(rest).map(WindowKey::Month),
            Window::Sender => {
                let (sender, month) = rest.split_once('/')?;
                Some(WindowKey::Sender { sender: NodeName::new(sender).ok()?, month: Month::parse(month)? })
            }
            Window::Tree => TaskId::parse_any_version(rest).ok().map(WindowKey::Tree),
        }
    }
}

impl fmt::Display for WindowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.window();
        match self {
            WindowKey::Run { sender, run } => write!(f, "{kind}:{sender}/{run}"),
            WindowKey::RunOfDay { sender, day } => write!(f, "{kind}:{sender}/{day}@day"),
            WindowKey::Day(day) => write!(f, "{kind}:{day}"),
            WindowKey::Month(month) => write!(f, "{kind}:{month}"),
            WindowKey::Sender { sender, month } => write!(f, "{kind}:{sender}/{month}"),
            WindowKey::Tree(root) => write!(f, "{kind}:{root}"),
        }
    }
}

/// Whose money an attempt spends: which of this node's windows it is set aside and charged in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payer {
    /// This node's: all windows.
    #[default]
    Here,
    /// That of the node it is forwarded to, where it is charged; here it counts against its tree alone (policy section 4).
    Elsewhere,
}

impl Payer {
    /// Whether a window of this node is asked.
    #[must_use]
    pub const fn asks(self, window: Window) -> bool {
        match (self, window) {
            (Payer::Here, _) | (Payer::Elsewhere, Window::Tree) => true,
            (Payer::Elsewhere, Window::Run | Window::Day | Window::Month | Window::Sender) => false,
        }
    }
}

/// One value for each kind of window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerWindow<T> {
    /// For the run.
    pub run: T,
    /// For the day.
    pub day: T,
    /// For the month.
    pub month: T,
    /// For the sender.
    pub sender: T,
    /// For the tree.
    pub tree: T,
}

impl<T> PerWindow<T> {
    /// The value for one kind of window.
    #[must_use]
    pub const fn get(&self, window: Window) -> &T {
        match window {
            Window::Run => &self.run,
            Window::Day => &self.day,
            Window::Month => &self.month,
            Window::Sender => &self.sender,
            Window::Tree => &self.tree,
        }
    }

    /// The values with their windows, in the order of asking.
    pub fn iter(&self) -> impl Iterator<Item = (Window, &T)> {
        Window::ALL.into_iter().map(|window| (window, self.get(window)))
    }

    /// The same windows with other values.
    pub fn map<U>(&self, mut change: impl FnMut(&T) -> U) -> PerWindow<U> {
        PerWindow {
            run: change(&self.run),
            day: change(&self.day),
            month: change(&self.month),
            sender: change(&self.sender),
            tree: change(&self.tree),
        }
    }

    /// The same windows with other values, or the first failure.
    ///
    /// # Errors
    /// The first error that `change` answers.
    pub fn try_map<U, E>(&self, mut change: impl FnMut(&T) -> Result<U, E>) -> Result<PerWindow<U>, E> {
        Ok(PerWindow {
            run: change(&self.run)?,
            day: change(&self.day)?,
            month: change(&self.month)?,
            sender: change(&self.sender)?,
            tree: change(&self.tree)?,
        })
    }
}

/// The five windows that one task's money goes through.
pub type WindowKeys = PerWindow<WindowKey>;

impl WindowKeys {
    /// The windows of a task whose reservation is made at `now`, by this node's clock.
    ///
    /// # Errors
    /// A `run` that is no name: a task that passed the checks of protocol section 4 has none such.
    pub fn of_task(task: &Task, now: Timestamp) -> Result<WindowKeys, BadName> {
        let run = task.run.as_deref().map(RunName::new).transpose()?;
        let root = task.lineage.as_ref().map_or(task.id, |lineage| lineage.root);
        Ok(WindowKeys::of(&task.from, run.as_ref(), root, now))
    }

    /// The windows of a task of `sender` whose reservation is made at `now`, by this node's clock.
    ///
    /// A task without a `run` belongs to its sender's run of that UTC day. `root` is its lineage's root: its own id
    /// for a task that no task sent.
    #[must_use]
    pub fn of(sender: &NodeName, run: Option<&RunName>, root: TaskId, now: Timestamp) -> WindowKeys {
        let (day, month) = (Day::of(now), Month::of(now));
        PerWindow {
            run: match run {
                Some(run) => WindowKey::Run { sender: sender.clone(), run: run.clone() },
                None => WindowKey::RunOfDay { sender: sender.clone(), day },
            },
            day: WindowKey::Day(day),
            month: WindowKey::Month(month),
            sender: WindowKey::Sender { sender: sender.clone(), month },
            tree: WindowKey::Tree(root),
        }
    }
}

/// What is in one window: set aside for attempts that have not ended, and paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Balance {
    /// Reserved and not yet settled or released.
    pub reserved: Usd,
    /// Settled.
    pub spent: Usd,
}

impl Balance {
    /// Reserved and spent together: what counts against a cap. `None` where the sum cannot be held.
    #[must_use]
    pub fn committed(&self) -> Option<Usd> {
        self.reserved.checked_add(self.spent)
    }
}

/// The balances of one task's five windows; a window the ledger does not know yet is empty.
pub type Balances = PerWindow<Balance>;

/// How much each window may hold. The default is paid work off: nothing for run and month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// For each run; nothing means paid work is off.
    pub run: Usd,
    /// For each day; `None` is no limit.
    pub day: Option<Usd>,
    /// For each month; nothing means paid work is off.
    pub month: Usd,
    /// For each sender's month; `None` is no limit.
    pub sender: Option<Usd>,
    /// For each tree; `None` is no limit.
    pub tree: Option<Usd>,
}

impl Caps {
    /// The cap of one window; `None` is no limit.
    #[must_use]
    pub const fn get(&self, window: Window) -> Option<Usd> {
        match window {
            Window::Run => Some(self.run),
            Window::Day => self.day,
            Window::Month => Some(self.month),
            Window::Sender => self.sender,
            Window::Tree => self.tree,
        }
    }

    /// The cap of one window for an attempt that this or another node pays for; `None` is no limit.
    #[must_use]
    pub const fn for_payer(&self, payer: Payer, window: Window) -> Option<Usd> {
        if payer.asks(window) { self.get(window) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(run: Option<&str>) -> WindowKeys {
        let sender = NodeName::new("devbox").unwrap();
        let run = run.map(|text| RunName::new(text).unwrap());
        let root = TaskId::parse("01a1f89c-fb83-734b-96bb-78a1dacaf1ff").unwrap();
        let now = Timestamp::parse("2026-11-21T23:59:59.999Z").unwrap();
        WindowKeys::of(&sender, run.as_ref(), root, now)
    }

    #[test]
    fn a_window_key_has_one_stable_text() {
        let texts: Vec<String> = keys(Some("nightly")).iter().map(|(_, key)| key.to_string()).collect();
        assert_eq!(
            texts,
            [
                "run:devbox/nightly",
                "day:2026-11-21",
                "month:2026-11",
                "sender:devbox/2026-11",
                "tree:01a1f89c-fb83-734b-96bb-78a1dacaf1ff"
            ]
        );
        assert_eq!(keys(None).run.to_string(), "run:devbox/2026-11-21@day");
        for keys in [keys(None), keys(Some("nightly")), keys(Some("2026-11-21"))] {
            for (window, key) in keys.iter() {
                assert_eq!(WindowKey::parse(&key.to_string()).as_ref(), Some(key));
                assert_eq!(key.window(), window);
            }
        }
    }

    #[test]
    fn a_window_key_is_read_in_no_other_spelling() {
        for bad in [
            "",
            "run:",
            "run:devbox",
            "run:devbox/",
            "run:devbox/Nightly",
            "run:devbox/2026-11-31@day",
            "run:devbox/@day",
            "run:a-to-b/x",
            "day:2026-1-1",
            "day:2026-11-21 ",
            "month:2026-13",
            "month:2026-11-21",
            "sender:devbox",
            "tree:01A1F89C-fb83-734b-96bb-78a1dacaf1ff",
            "week:2026-11",
        ] {
            assert_eq!(WindowKey::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_named_run_and_a_tree_never_reset_by_themselves() {
        let named = keys(Some("nightly"));
        assert_eq!((named.run.resets_at(), named.tree.resets_at()), (None, None));
        let midnight = Timestamp::parse("2026-11-22T00:00:00.000Z").unwrap();
        let december = Timestamp::parse("2026-12-01T00:00:00.000Z").unwrap();
        assert_eq!(keys(None).run.resets_at(), Some(midnight));
        assert_eq!(named.day.resets_at(), Some(midnight));
        assert_eq!(named.month.resets_at(), Some(december));
        assert_eq!(named.sender.resets_at(), Some(december));
    }

    #[test]
    fn nothing_configured_means_paid_work_is_off() {
        let caps = Caps::default();
        assert_eq!((caps.run, caps.month), (Usd::ZERO, Usd::ZERO));
        assert_eq!((caps.day, caps.sender, caps.tree), (None, None, None));
    }
}
