//! Names of nodes, lanes, profiles and tasks. Each has one spelling, checked once, because names become file names.

use std::fmt;

use sha2::{Digest as _, Sha256};
use uuid::{Uuid, Variant};

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 32;

/// A text that is not of the alphabet or form its kind of name has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}: {rule}")]
pub struct BadName {
    /// What it should have named.
    pub kind: &'static str,
    /// The rule it breaks.
    pub rule: &'static str,
}

/// True for `[a-z0-9][a-z0-9_-]*`, whatever its length: the form of a name, without its quantity.
#[must_use]
pub fn is_name_alphabet(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    text.bytes().next().is_some_and(|first| inner(first) && first != b'_' && first != b'-')
        && text.bytes().all(inner)
}

/// A profile, workspace, backend or check: `[a-z0-9][a-z0-9_-]{0,31}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Checks a text.
    ///
    /// # Errors
    /// A text outside the alphabet or longer than [`NAME_BYTES_MAX`].
    pub fn new(text: &str) -> Result<Name, BadName> {
        if is_name_alphabet(text) && text.len() <= NAME_BYTES_MAX {
            Ok(Name(text.to_owned()))
        } else {
            Err(BadName { kind: "name", rule: "a letter or digit, then up to 31 of a-z 0-9 _ -" })
        }
    }

    /// A name whose alphabet was checked and whose length is judged apart: it never leaves a payload over its limits.
    pub(super) fn of_any_length(text: &str) -> Name {
        Name(text.to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A node: a name none of whose hyphen-separated parts is `to`, so that a lane's name has one reading.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// Checks a text.
    ///
    /// # Errors
    /// A text outside the alphabet, too long, or with a part `to`.
    pub fn new(text: &str) -> Result<NodeName, BadName> {
        let kind = "node name";
        if !is_name_alphabet(text) || text.len() > NAME_BYTES_MAX {
            return Err(BadName { kind, rule: "a letter or digit, then up to 31 of a-z 0-9 _ -" });
        }
        if text.split('-').any(|part| part == "to") {
            return Err(BadName { kind, rule: "no part between hyphens may be `to`" });
        }
        Ok(NodeName(text.to_owned()))
    }

    /// A node name whose alphabet was checked and whose length is judged apart, as [`Name::of_any_length`].
    pub(super) fn of_any_length(text: &str) -> NodeName {
        NodeName(text.to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for NodeName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One direction between two nodes, `<from>-to-<to>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The node that sends tasks on it.
    pub from: NodeName,
    /// The node that runs them.
    pub to: NodeName,
}

impl Lane {
    /// The lane between two nodes.
    #[must_use]
    pub const fn new(from: NodeName, to: NodeName) -> Lane {
        Lane { from, to }
    }

    /// Reads `<from>-to-<to>`.
    ///
    /// # Errors
    /// A text that is not two node names around `-to-`.
    pub fn parse(text: &str) -> Result<Lane, BadName> {
        let (from, to) =
            text.split_once("-to-").ok_or(BadName { kind: "lane", rule: "two node names around `-to-`" })?;
        Ok(Lane { from: NodeName::new(from)?, to: NodeName::new(to)? })
    }

    /// The lane in the other direction.
    #[must_use]
    pub fn reversed(&self) -> Lane {
        Lane { from: self.to.clone(), to: self.from.clone() }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-to-{}", self.from, self.to)
    }
}

/// Reads a uuid in its canonical spelling (hyphenated, lower case) and no other.
///
/// # Errors
/// Any of the other spellings the uuid library takes: ids are file names, so one id must have one text.
pub fn canonical_uuid(text: &str) -> Result<Uuid, BadName> {
    let bad = BadName { kind: "uuid", rule: "the hyphenated, lower-case spelling" };
    let uuid = Uuid::try_parse(text).map_err(|_| bad.clone())?;
    if uuid.hyphenated().to_string() == text { Ok(uuid) } else { Err(bad) }
}

/// The id of a task. A task's key is (from, id): another peer that copies an id gets a different task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Uuid);

impl TaskId {
    /// Reads the id of a version-3 message: canonical, version 7, RFC 9562 variant.
    ///
    /// # Errors
    /// Any other uuid or text.
    pub fn parse(text: &str) -> Result<TaskId, BadName> {
        let uuid = canonical_uuid(text)?;
        if uuid.get_version_num() == 7 && uuid.get_variant() == Variant::RFC4122 {
            Ok(TaskId(uuid))
        } else {
            Err(BadName { kind: "task id", rule: "a uuid of version 7" })
        }
    }

    /// Reads the id of a version-2 message, or a file name's: any canonical uuid.
    ///
    /// # Errors
    /// A text that is no canonical uuid.
    pub fn parse_any_version(text: &str) -> Result<TaskId, BadName> {
        canonical_uuid(text).map(TaskId)
    }

    /// An id from a uuid that the caller drew.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> TaskId {
        TaskId(uuid)
    }

    /// The uuid.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// The last eight digits: the short form shown to people, because ids of one minute share their beginning.
    #[must_use]
    pub fn short(self) -> String {
        self.0.simple().to_string().split_off(24)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// A digest computed elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// Reads 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// Any other text, upper-case digits included.
    pub fn parse(text: &str) -> Result<Digest, BadName> {
        let bad = BadName { kind: "sha256 digest", rule: "64 lower-case hexadecimal digits" };
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte.wrapping_sub(b'0')),
            b'a'..=b'f' => Some(byte.wrapping_sub(b'a').wrapping_add(10)),
            _ => None,
        };
        let mut bytes = [0_u8; 32];
        if text.len() != 64 {
            return Err(bad);
        }
        for (place, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let &[high, low] = pair else { return Err(bad) };
            let (Some(high), Some(low)) = (nibble(high), nibble(low)) else { return Err(bad) };
            *place = (high << 4) | low;
        }
        Ok(Digest(bytes))
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 16 hexadecimal digits: `keyid`, `key16`, `digest16`.
    #[must_use]
    pub fn hex16(&self) -> String {
        let mut text = self.to_string();
        text.truncate(16);
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_has_one_reading() {
        let lane = Lane::parse("dev-box-to-gpu_box").unwrap();
        assert_eq!((lane.from.as_str(), lane.to.as_str()), ("dev-box", "gpu_box"));
        assert_eq!(lane.to_string(), "dev-box-to-gpu_box");
        for bad in ["a", "a-to-", "-to-b", "a-to-to", "a-to-b-to-c", "A-to-b", "a-to-../b"] {
            assert!(Lane::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_has_one_spelling() {
        let canonical = "01a1f89c-fb83-734b-96bb-78a1dacaf1ff";
        assert_eq!(TaskId::parse(canonical).unwrap().short(), "dacaf1ff");
        for bad in [
            "01A1F89C-fb83-734b-96bb-78a1dacaf1ff",
            "01a1f89cfb83734b96bb78a1dacaf1ff",
            "{01a1f89c-fb83-734b-96bb-78a1dacaf1ff}",
            "urn:uuid:01a1f89c-fb83-734b-96bb-78a1dacaf1ff",
            "01a1f89c-fb83-434b-96bb-78a1dacaf1ff",
            "01a1f89c-fb83-734b-06bb-78a1dacaf1ff",
        ] {
            assert!(TaskId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_survives_its_text() {
        let digest = Digest::of(b"abc");
        assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
        assert!(Digest::parse(&digest.to_string().to_uppercase()).is_err());
    }
}
