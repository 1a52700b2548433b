//! Keys of version 2, and what this node makes of one for itself.

use std::fmt;

use crate::protocol::keys::{KeyRing, LaneKey, LaneRing, PairKey, SealingKey as _, WeakKey};
use crate::protocol::names::{Digest, Lane, NodeName};

/// The key shared with a version-2 peer: the stripped text of its file, as bytes.
#[derive(Clone)]
pub struct FlatKey {
    /// A pair key is the same text; inside this type it signs nothing but flat tasks and what it is derived into.
    text: PairKey,
}

impl FlatKey {
    /// Takes a key file's text; white space around it is no part of the key.
    ///
    /// # Errors
    /// As [`PairKey::from_text`].
    pub fn from_text(text: &str) -> Result<FlatKey, WeakKey> {
        PairKey::from_text(text).map(|text| FlatKey { text })
    }

    /// First 16 digits of SHA-256(key): a name for people.
    #[must_use]
    pub fn keyid(&self) -> &str {
        self.text.keyid()
    }

    /// The member `hmac` over these bytes: lower-case hexadecimal.
    #[must_use]
    pub fn sign(&self, signed: &[u8]) -> String {
        hex(&self.text.sign(&[signed]))
    }

    /// Whether `hmac` is this key's over these bytes; in constant time for every text of the right form.
    #[must_use]
    pub fn verifies(&self, signed: &[u8], hmac: &str) -> bool {
        Digest::parse(hmac).is_ok_and(|mac| self.text.verifies_any(&[signed], &[mac.as_bytes()]))
    }

    fn derived(&self, label: &str) -> String {
        self.sign(label.as_bytes())
    }

    /// What seals the terms that this node shows its own approvers on the lane of that peer. The peer never reads them, and
    /// a decision is bound to their digest in the ledger, so this only tells them from junk.
    #[must_use]
    pub fn terms(&self, lane: &Lane) -> Option<LaneKey> {
        LaneKey::from_text(&self.derived(&format!("dispatch-terms-v2 {lane}"))).ok()
    }

    /// What seals this node's own heartbeats and boot records where it has nobody else to seal them for: two watchers of
    /// the same node know each other by it. A version-2 peer writes neither.
    #[must_use]
    pub fn own(&self, node: &NodeName) -> Option<PairKey> {
        PairKey::from_text(&self.derived(&format!("dispatch-own-v2 {node}"))).ok()
    }
}

impl fmt::Debug for FlatKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlatKey({})", self.keyid())
    }
}

/// The keys of one version-2 peer: the first accepted one signs, all accepted ones verify.
#[derive(Clone, Debug, Default)]
pub struct FlatRing {
    /// Keys that verify; the first one signs.
    pub accepted: Vec<FlatKey>,
    /// Keys that verify no more.
    pub retired: Vec<FlatKey>,
}

impl FlatRing {
    /// The key that signs today; `None` for a peer without a key.
    #[must_use]
    pub fn signing(&self) -> Option<&FlatKey> {
        self.accepted.first()
    }

    /// The keys of this node's own terms on the lane of that peer.
    #[must_use]
    pub fn terms(&self, lane: &Lane) -> LaneRing {
        let of = |keys: &[FlatKey]| keys.iter().filter_map(|key| key.terms(lane)).collect();
        LaneRing { accepted: of(&self.accepted), retired: of(&self.retired) }
    }

    /// The keys of this node's own heartbeats and boot records.
    #[must_use]
    pub fn own(&self, node: &NodeName) -> KeyRing {
        let of = |keys: &[FlatKey]| keys.iter().filter_map(|key| key.own(node)).collect();
        KeyRing { accepted: of(&self.accepted), retired: of(&self.retired) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_signs_and_verifies_and_shows_nothing_of_itself() {
        let text = "k".repeat(64);
        let key = FlatKey::from_text(&format!(" {text}\n")).unwrap();
        let hmac = key.sign(b"a|b");
        assert!(key.verifies(b"a|b", &hmac) && !key.verifies(b"a|c", &hmac));
        assert!(!key.verifies(b"a|b", &hmac.to_uppercase()) && !key.verifies(b"a|b", "é"));
        assert!(!format!("{key:?}").contains(&text));
        assert!(FlatKey::from_text("short").is_err());
    }

    #[test]
    fn what_is_made_of_a_key_is_neither_the_key_nor_its_lane_key() {
        let text = "k".repeat(64);
        let (flat, pair) = (FlatKey::from_text(&text).unwrap(), PairKey::from_text(&text).unwrap());
        let lane = Lane::parse("old-to-new").unwrap();
        let made = [
            flat.terms(&lane).unwrap().keyid().to_owned(),
            flat.terms(&lane.reversed()).unwrap().keyid().to_owned(),
            flat.own(&lane.to).unwrap().keyid().to_owned(),
            pair.lane(&lane).keyid().to_owned(),
            pair.keyid().to_owned(),
        ];
        let different: std::collections::BTreeSet<&String> = made.iter().collect();
        assert_eq!(different.len(), made.len());
    }
}
