//! The argument template of an engine's client: placeholders from a closed set, one argument each, no shell (policy
//! section 4, `cloud_worker`).

use std::fmt;

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placeholder {
    /// The task's id.
    Task,
    /// The node that sent it.
    From,
    /// The node that runs the client.
    Node,
    /// The profile it was sent for.
    Profile,
    /// The image it requires, else the backend's first.
    Image,
    /// The tool it requires, else the backend's first.
    Tool,
    /// The video memory it requires in GB, else `0`.
    VramGb,
    /// Its wall clock in seconds.
    TimeoutS,
}

impl Placeholder {
    /// All of them.
    pub const ALL: [Placeholder; 8] = [
        Placeholder::Task,
        Placeholder::From,
        Placeholder::Node,
        Placeholder::Profile,
        Placeholder::Image,
        Placeholder::Tool,
        Placeholder::VramGb,
        Placeholder::TimeoutS,
    ];

    /// Its name between braces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Placeholder::Task => "task",
            Placeholder::From => "from",
            Placeholder::Node => "node",
            Placeholder::Profile => "profile",
            Placeholder::Image => "image",
            Placeholder::Tool => "tool",
            Placeholder::VramGb => "vram_gb",
            Placeholder::TimeoutS => "timeout_s",
        }
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Placeholder),
}

/// One argument, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// A text that is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// A name between braces that stands for nothing.
    #[error("there is no placeholder `{{{name}}}` (there are {})", known())]
    Unknown {
        /// The name.
        name: String,
    },
    /// A brace without its partner.
    #[error("a brace without its partner (write `{{{{` or `}}}}` for a brace)")]
    Unpaired,
}

fn known() -> String {
    let names: Vec<String> = Placeholder::ALL.iter().map(ToString::to_string).collect();
    names.join(" ")
}

impl Template {
    /// Reads `text`: `{name}` is a placeholder, `{{` and `}}` are braces.
    ///
    /// # Errors
    /// An unknown name, or a brace that stands alone.
    pub fn parse(text: &str) -> Result<Template, BadTemplate> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else if let Some((name, after)) = from.strip_prefix('{').and_then(|inner| inner.split_once('}'))
            {
                let value = Placeholder::ALL.into_iter().find(|value| value.as_str() == name);
                let value = value.ok_or_else(|| BadTemplate::Unknown { name: name.to_owned() })?;
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Value(value));
                rest = after;
            } else {
                return Err(BadTemplate::Unpaired);
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template(parts))
    }

    /// True when this placeholder is in it.
    #[must_use]
    pub fn uses(&self, placeholder: Placeholder) -> bool {
        self.0.contains(&Part::Value(placeholder))
    }

    /// The argument, with every placeholder replaced by what `value` answers. Always one argument, whatever is in a value.
    #[must_use]
    pub fn render(&self, value: impl Fn(Placeholder) -> String) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Value(placeholder) => value(*placeholder),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str) -> Result<String, BadTemplate> {
        Template::parse(text).map(|template| template.render(|value| format!("<{}>", value.as_str())))
    }

    #[test]
    fn placeholders_are_replaced_and_doubled_braces_are_braces() {
        for (text, rendered) in [
            ("", ""),
            ("--wait", "--wait"),
            ("{task}", "<task>"),
            ("--image={image}:{tool}", "--image=<image>:<tool>"),
            ("{{task}}", "{task}"),
            ("{{{task}}}", "{<task>}"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(rendered), "{text}");
        }
    }

    #[test]
    fn an_unknown_name_and_a_lone_brace_are_no_template() {
        assert_eq!(render("{request}"), Err(BadTemplate::Unknown { name: "request".to_owned() }));
        for text in ["{", "a}", "{task", "}{"] {
            assert_eq!(render(text), Err(BadTemplate::Unpaired), "{text}");
        }
    }

    #[test]
    fn an_error_names_what_there_is() {
        let text = Template::parse("{x}").unwrap_err().to_string();
        assert!(text.contains("`{x}`") && text.contains("{timeout_s}"), "{text}");
    }

    #[test]
    fn a_template_knows_what_it_uses() {
        let template = Template::parse("a-{image}").unwrap();
        assert!(template.uses(Placeholder::Image) && !template.uses(Placeholder::Tool));
    }
}
