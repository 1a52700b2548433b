//! The text exposition format, as node exporters' text-file collectors read it.

use std::fmt::{Display, Write as _};

/// What a family's numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only grows, but for a restart.
    Counter,
}

/// A page of families, each sample with this node's name: the files of several nodes lie in one directory.
pub(super) struct Page {
    node: String,
    text: String,
}

impl Page {
    pub(super) fn of(node: &str) -> Page {
        Page { node: node.to_owned(), text: String::new() }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// Begins a family; all its samples follow before the next one begins.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { page: self, name }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a text cannot fail.
        let _written = self.text.write_fmt(line);
    }
}

/// A family that samples are added to.
pub(super) struct Family<'p> {
    page: &'p mut Page,
    name: &'static str,
}

impl Family<'_> {
    /// Adds the sample with these labels.
    pub(super) fn with(self, labels: &[(&str, &str)], value: impl Display) -> Self {
        let Family { page, name } = self;
        let mut all = format!("node=\"{}\"", escaped(&page.node));
        for (label, text) in labels {
            let _written = write!(all, ",{label}=\"{}\"", escaped(text));
        }
        page.line(format_args!("{name}{{{all}}} {value}\n"));
        Family { page, name }
    }

    /// Adds the family's only sample.
    pub(super) fn is(self, value: impl Display) {
        self.with(&[], value);
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Milliseconds as seconds.
pub(super) fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms.div_euclid(1_000), ms.rem_euclid(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_help_are_escaped() {
        let mut page = Page::of("b");
        page.family("dispatch_x", Kind::Gauge, "a \\ b\nc").with(&[("l", "\"q\" \\ \n")], seconds(1_007));
        assert_eq!(
            page.into_text(),
            "# HELP dispatch_x a \\\\ b\\nc\n# TYPE dispatch_x gauge\ndispatch_x{node=\"b\",l=\"\\\"q\\\" \\\\ \\n\"} 1.007\n"
        );
    }
}
