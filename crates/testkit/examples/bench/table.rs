//! The rows: printed as a table as they come, or as one JSON document at the end.

use serde_json::{Value, json};

use crate::measure::{Floor, Samples};

/// How the rows are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A Markdown table.
    Table,
    /// One JSON document.
    Json,
}

/// What a figure must not be above, or below.
#[derive(Clone, Copy)]
pub enum Goal {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// None.
    None,
}

/// One measured thing.
pub struct Row {
    /// Its name for programs; stays the same from release to release.
    pub key: &'static str,
    /// Its name for people.
    pub what: String,
    /// What the figures are counted in.
    pub unit: &'static str,
    /// The median, or the one figure there is.
    pub median: f64,
    /// The worse end: the 95th percentile of a time, the lowest of a rate.
    pub worse: Option<f64>,
    /// The median as a multiple of the floor that was measured with it.
    pub floors: Option<f64>,
    /// What it is to be.
    pub goal: Goal,
}

impl Row {
    /// A row of one figure.
    pub fn new(key: &'static str, what: impl Into<String>, unit: &'static str, median: f64) -> Self {
        Self { key, what: what.into(), unit, median, worse: None, floors: None, goal: Goal::None }
    }

    /// A row of times, beside the floor that was measured with them.
    pub fn times(key: &'static str, what: &str, samples: &Samples, floor: Option<&Floor>) -> Self {
        let mut row = Self::new(key, format!("{what} ({} runs)", samples.len()), "ms", samples.median());
        row.worse = Some(samples.quantile(0.95));
        row.floors = floor.map(|floor| samples.median() / floor.both());
        row
    }

    /// The same row with a goal.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = goal;
        self
    }

    fn to_json(&self) -> Value {
        let (goal, met) = match self.goal {
            Goal::AtMost(most) => (json!({"at_most": most}), json!(self.median <= most)),
            Goal::AtLeast(least) => (json!({"at_least": least}), json!(self.median >= least)),
            Goal::None => (Value::Null, Value::Null),
        };
        json!({"key": self.key, "what": self.what, "unit": self.unit, "median": self.median,
            "worse": self.worse, "floors": self.floors, "goal": goal, "met": met})
    }

    fn to_line(&self) -> String {
        let figure = |value: f64| match self.unit {
            "" => format!("{value:.1}"),
            unit => format!("{} {unit}", short(value)),
        };
        let goal = match self.goal {
            Goal::AtMost(most) => format!("≤ {most} {}", self.unit),
            Goal::AtLeast(least) => format!("≥ {least} {}", self.unit),
            Goal::None => String::new(),
        };
        let [worse, floors] = [self.worse.map(figure), self.floors.map(|floors| format!("{floors:.1}"))]
            .map(Option::unwrap_or_default);
        format!("| {} | {} | {worse} | {floors} | {goal} |", self.what, figure(self.median))
    }
}

fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// All rows of a run.
pub struct Table {
    form: Form,
    rows: Vec<Value>,
}

impl Table {
    /// An empty one. As a table its head is printed at once.
    pub fn new(form: Form, machine: &str) -> Self {
        if form == Form::Table {
            println!("{machine}\n");
            println!(
                "| what | median | p95 (rates: lowest) | × floor | goal |\n| --- | --- | --- | --- | --- |"
            );
        }
        Self { form, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn add(&mut self, row: &Row) {
        match self.form {
            Form::Table => println!("{}", row.to_line()),
            Form::Json => self.rows.push(row.to_json()),
        }
    }

    /// Adds the floor itself.
    pub fn add_floor(&mut self, floor: &Floor) {
        self.add(&Row::times(
            "floor_sync",
            "floor: write 1 KiB, fsync, rename, fsync of the directory",
            &floor.sync,
            None,
        ));
        self.add(&Row::times(
            "floor_spawn",
            "floor: spawn and wait of a program that does nothing",
            &floor.spawn,
            None,
        ));
    }

    /// Says what was not measured.
    pub fn skipped(&mut self, what: &str, why: &str) {
        match self.form {
            Form::Table => println!("| {what} | skipped: {why} | | | |"),
            Form::Json => self.rows.push(json!({"what": what, "skipped": why})),
        }
    }

    /// The end: the document, or the last words below the table.
    pub fn end(self, machine: &str, load: &str) {
        match self.form {
            Form::Table => println!("\nload average at the end: {load}"),
            Form::Json => {
                println!("{:#}", json!({"machine": machine, "load_at_the_end": load, "rows": self.rows}));
            }
        }
    }
}
