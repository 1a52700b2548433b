//! The pieces that file names are made of.

use std::fmt;

use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::time::Timestamp;

/// Sixteen lower-case hexadecimal digits of a digest: `key16` of a decision, `digest16` of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex16(u64);

impl Hex16 {
    /// The first sixteen digits of a digest.
    #[must_use]
    pub fn of(digest: &Digest) -> Hex16 {
        let first = digest.as_bytes().first_chunk().copied().unwrap_or_default();
        Hex16(u64::from_be_bytes(first))
    }

    /// A number written as sixteen digits; for names that need to be new, not to say something.
    #[must_use]
    pub const fn from_number(number: u64) -> Hex16 {
        Hex16(number)
    }

    /// Reads exactly sixteen lower-case digits; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Hex16> {
        let digits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if digits { u64::from_str_radix(text, 16).ok().map(Hex16) } else { None }
    }
}

impl fmt::Display for Hex16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A folder of the archive, `yyyy-mm` in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: u16,
    month: u8,
}

impl Month {
    /// The UTC month of an instant.
    #[must_use]
    pub fn of(at: Timestamp) -> Month {
        Month::parse(&at.month_key()).unwrap_or(Month { year: 0, month: 1 })
    }

    /// Reads `yyyy-mm`, month 01 to 12; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Month> {
        let (year, month) = text.split_once('-')?;
        let digits =
            |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return None;
        }
        let month = month.parse().ok().filter(|month| (1..=12).contains(month))?;
        Some(Month { year: year.parse().ok()?, month })
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

/// A half-written file, `<final>.<node>.<pid>.<random>`. Its node removes it when it is older than a day.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TmpName {
    /// The name it was going to have.
    pub of: String,
    /// The node that writes it.
    pub node: NodeName,
    /// The process that writes it.
    pub pid: u32,
    /// Drawn for this one file.
    pub random: Hex16,
}

impl TmpName {
    /// Reads the four parts from the end, because the first may hold dots; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<TmpName> {
        let mut parts = text.rsplitn(4, '.');
        let random = Hex16::parse(parts.next()?)?;
        let pid = decimal(parts.next()?)?;
        let node = NodeName::new(parts.next()?).ok()?;
        let of = parts.next().filter(|of| !of.is_empty())?.to_owned();
        Some(TmpName { of, node, pid: u32::try_from(pid).ok()?, random })
    }
}

impl fmt::Display for TmpName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.of, self.node, self.pid, self.random)
    }
}

/// What a piece of evidence in a lane was: the stem of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvidenceOf {
    /// Something that bore a task's id.
    Task(TaskId),
    /// Something that bore the name of an attachment or artifact.
    Content(Digest),
    /// Something that lay at `pending.json`.
    Summary,
}

impl EvidenceOf {
    pub(super) fn parse(text: &str) -> Option<EvidenceOf> {
        if text == "pending" {
            return Some(EvidenceOf::Summary);
        }
        let task = TaskId::parse_any_version(text).ok().map(EvidenceOf::Task);
        task.or_else(|| Digest::parse(text).ok().map(EvidenceOf::Content))
    }
}

impl fmt::Display for EvidenceOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EvidenceOf::Task(id) => id.fmt(f),
            EvidenceOf::Content(digest) => digest.fmt(f),
            EvidenceOf::Summary => f.write_str("pending"),
        }
    }
}

/// Evidence comes in twos: the thing, and why it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvidencePart {
    /// What was set aside, whatever its type.
    Itself,
    /// The `.reason.json` beside it.
    Reason,
}

/// A decimal number in its one spelling: digits, no leading zero.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}
