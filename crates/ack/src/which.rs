//! Which task a person means: its id, or some digits of its beginning or end.

use std::str::FromStr;

use dispatch_core::protocol::names::TaskId;

/// Fewest digits that name a task.
const DIGITS_MIN: usize = 4;
/// Digits of a whole id.
const DIGITS_MAX: usize = 32;

/// A text that cannot be part of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task is named by its id, or by at least {DIGITS_MIN} digits (0-9 a-f) of its beginning or end")]
pub(crate) struct NotAnId;

/// The beginning or end of an id, or all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdPart {
    text: String,
    digits: String,
}

impl FromStr for IdPart {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<IdPart, NotAnId> {
        let digits = text.replace('-', "").to_ascii_lowercase();
        let shaped = (DIGITS_MIN..=DIGITS_MAX).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if shaped { Ok(IdPart { text: text.to_owned(), digits }) } else { Err(NotAnId) }
    }
}

impl IdPart {
    /// As the person wrote it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// True if the id begins or ends so.
    pub(crate) fn names(&self, id: TaskId) -> bool {
        let whole = id.uuid().simple().to_string();
        whole.starts_with(&self.digits) || whole.ends_with(&self.digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_named_by_its_beginning_or_end() {
        let id = TaskId::parse("01a1f89c-fb83-734b-96bb-78a1dacaf1ff").unwrap();
        let named = |text: &str| IdPart::from_str(text).unwrap().names(id);
        for good in
            ["f1ff", "dacaf1ff", "DACAF1FF", "96bb-78a1dacaf1ff", "01a1", "01a1f89c-fb", &id.to_string()]
        {
            assert!(named(good), "{good}");
        }
        assert!(!named("f89c") && !named("0000"));
        for bad in ["", "f1f", "xyzw", "../x", &"0".repeat(33)] {
            assert_eq!(IdPart::from_str(bad), Err(NotAnId), "{bad}");
        }
    }
}
