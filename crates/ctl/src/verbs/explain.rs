//! `dispatchctl explain`: why a task is where it is, what holds it, and who can do something about it.

mod guards;
mod received;
mod sent;

use dispatch_core::explain::{Told, WindowFacts, window_line};
use dispatch_core::policy::admission::RoomWait;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::{Balance, WindowKey};
use dispatch_core::protocol::reason::Who;
use dispatch_node::report::{Exit, Form, Report, after_help, say};
use dispatch_node::term::{Colour, Tone};
use serde_json::{Value, json};

use crate::context::Context;
use crate::named::{Found, find};
use crate::views::line;

const EXAMPLES: &str = "  dispatchctl explain dacaf1ff
  dispatchctl explain dacaf1ff --json | jq -r .next";

/// Longest sentence that is shown.
const LINE_CHARS_MAX: usize = 1_200;

/// Say why a task is where it is: which check or limit holds it, what is left of it, who can do something, what it costs
#[derive(Debug, clap::Args)]
#[command(after_help = after_help(EXAMPLES))]
pub(crate) struct Args {
    /// The task: its id, or at least 4 characters from its beginning or end
    id: String,
}

/// Everything there is to say.
#[derive(Debug)]
struct Page {
    /// `task … from devbox`
    head: String,
    /// Members of the document that name the task.
    about: Value,
    /// What is said: first of all where it is, or what holds it first.
    told: Vec<Told>,
    /// The limit that holds it, where it is one of money.
    limit: Option<RoomWait>,
    /// What it may cost, or did, in words.
    cost: String,
    /// The same for programs.
    cost_facts: Value,
    /// Its budget windows; none for what costs nothing.
    windows: Vec<WindowNow>,
}

/// One budget window as it stands.
#[derive(Debug)]
struct WindowNow {
    key: WindowKey,
    balance: Balance,
    cap: Option<Usd>,
}

impl WindowNow {
    const fn facts(&self) -> WindowFacts<'_> {
        WindowFacts { key: &self.key, balance: self.balance, cap: self.cap }
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let page = match find(&config, &args.id)? {
        Found::Received(row) => received::page(&config, &row).map_err(|report| report.about(row.key.id))?,
        Found::Sent(task) => {
            let id = task.record.id;
            sent::page(&config, *task).map_err(|report| report.about(id))?
        }
    };
    match context.form() {
        Form::Json => say(&document(&page).to_string())?,
        Form::Text => lines(&page).iter().try_for_each(|line| say(line))?,
    }
    Ok(Exit::Done)
}

const fn who(who: Who) -> &'static str {
    match who {
        Who::Sender => "sender",
        Who::Operator => "operator",
        Who::Approver => "approver",
        Who::Nobody => "nobody",
    }
}

fn told(told: &Told) -> Value {
    json!({
        "code": told.code, "who": who(told.who),
        "what": told.text.what, "why": told.text.why, "next": told.text.next,
    })
}

fn document(page: &Page) -> Value {
    let mut document = page.about.clone();
    let first = page.told.first().map_or(Value::Null, told);
    if let (Some(members), Value::Object(first)) = (document.as_object_mut(), first) {
        members.extend(first);
        members.insert("also".into(), page.told.iter().skip(1).map(told).collect());
        members.insert("limit".into(), page.limit.as_ref().map_or(Value::Null, limit));
        members.insert("cost".into(), page.cost_facts.clone());
        members.insert("windows".into(), page.windows.iter().map(window).collect());
    }
    document
}

fn limit(wait: &RoomWait) -> Value {
    let usd = |usd: Option<Usd>| usd.map(|usd| usd.to_string());
    json!({
        "window": wait.window.as_ref().map(ToString::to_string),
        "cap_usd": usd(wait.limit),
        "left_usd": usd(wait.left),
        "asked_usd": usd(wait.asked),
        "resets_at": wait.resets_at.map(|at| at.to_string()),
    })
}

fn window(window: &WindowNow) -> Value {
    json!({
        "window": window.key.to_string(),
        "cap_usd": window.cap.map(|usd| usd.to_string()),
        "reserved_usd": window.balance.reserved.to_string(),
        "spent_usd": window.balance.spent.to_string(),
        "resets_at": window.key.resets_at().map(|at| at.to_string()),
    })
}

fn lines(page: &Page) -> Vec<String> {
    let colour = Colour::of_stdout();
    let head = |text: &str| colour.paint(Tone::Bold, text);
    let mut lines = vec![head(&page.head)];
    for (at, told) in page.told.iter().enumerate() {
        if at > 0 {
            lines.push(head("also"));
        }
        for (name, text) in [("what", &told.text.what), ("why", &told.text.why), ("now", &told.text.next)] {
            lines.push(format!("  {name:<6}{}", line(text, LINE_CHARS_MAX)));
        }
    }
    lines.push(head("cost"));
    lines.push(format!("  {}", line(&page.cost, LINE_CHARS_MAX)));
    lines.extend(page.windows.iter().map(|window| format!("  {}", window_line(&window.facts()))));
    lines
}
