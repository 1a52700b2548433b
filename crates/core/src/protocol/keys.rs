//! Pair keys, the lane keys made from them, and rings of keys that rotate (protocol section 2).

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::protocol::limits::PAIR_KEY_CHARS_MIN;
use crate::protocol::names::{Digest, Lane};

type HmacSha256 = Hmac<Sha256>;

/// The block size of SHA-256.
const HMAC_BLOCK_BYTES: usize = 64;

/// A pair key's text that is too short to be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key of {chars} characters is too weak, it needs at least {PAIR_KEY_CHARS_MIN}")]
pub struct WeakKey {
    /// Characters it has, without the white space around it.
    pub chars: usize,
}

/// A text that is not the key of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a lane key of 64 lower-case hexadecimal digits")]
pub struct NotALaneKey;

/// A key ready to seal and verify. Its state is prepared once, because verifying is on the path of every message.
#[derive(Clone)]
struct Sealer {
    mac: HmacSha256,
    keyid: String,
}

impl Sealer {
    /// Prepares HMAC from the block that RFC 2104 makes of a key, which no key is too long or too short for.
    fn new(key: &[u8]) -> Sealer {
        let mut block = [0_u8; HMAC_BLOCK_BYTES];
        let digest = Digest::of(key);
        let short = if key.len() > HMAC_BLOCK_BYTES { digest.as_bytes().as_slice() } else { key };
        for (place, byte) in block.iter_mut().zip(short) {
            *place = *byte;
        }
        Sealer { mac: HmacSha256::new(&block.into()), keyid: digest.hex16() }
    }

    fn over(&self, parts: &[&[u8]]) -> HmacSha256 {
        let mut mac = self.mac.clone();
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

/// What two nodes share: the text of a key file. It seals heartbeats and boot records, and lane keys are made of it.
#[derive(Clone)]
pub struct PairKey {
    sealer: Sealer,
}

impl PairKey {
    /// Takes a key file's text; white space around it is no part of the key.
    ///
    /// # Errors
    /// Fewer than [`PAIR_KEY_CHARS_MIN`] characters: an empty key would open for everybody.
    pub fn from_text(text: &str) -> Result<PairKey, WeakKey> {
        let key = text.trim();
        let chars = key.chars().count();
        if chars < PAIR_KEY_CHARS_MIN {
            return Err(WeakKey { chars });
        }
        Ok(PairKey { sealer: Sealer::new(key.as_bytes()) })
    }

    /// The key of one direction: HMAC-SHA256(pair key, `dispatch-lane-v3 <from>-to-<to>`).
    #[must_use]
    pub fn lane(&self, lane: &Lane) -> LaneKey {
        let label = format!("dispatch-lane-v3 {lane}");
        LaneKey::from_bytes(self.sealer.over(&[label.as_bytes()]).finalize().into_bytes().into())
    }

    /// First 16 digits of SHA-256(key): a hint for finding the key, never a reason to trust.
    #[must_use]
    pub fn keyid(&self) -> &str {
        &self.sealer.keyid
    }
}

impl fmt::Debug for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairKey({})", self.sealer.keyid)
    }
}

/// The key of one lane: what may seal one direction cannot seal the other.
#[derive(Clone)]
pub struct LaneKey {
    bytes: [u8; 32],
    sealer: Sealer,
}

impl LaneKey {
    fn from_bytes(bytes: [u8; 32]) -> LaneKey {
        LaneKey { bytes, sealer: Sealer::new(&bytes) }
    }

    /// Reads the file of a lane's key alone, which a system install gives to those who may send: 64 lower-case
    /// hexadecimal digits, white space around them removed.
    ///
    /// # Errors
    /// Any other text.
    pub fn from_text(text: &str) -> Result<LaneKey, NotALaneKey> {
        Digest::parse(text.trim()).map(|key| LaneKey::from_bytes(*key.as_bytes())).map_err(|_| NotALaneKey)
    }

    /// The text of that file. It is a secret: it goes into a file of mode 0640 or tighter and nowhere else.
    #[must_use]
    pub fn to_secret_text(&self) -> String {
        format!("{}\n", Digest::from_bytes(self.bytes))
    }

    /// First 16 digits of SHA-256(key).
    #[must_use]
    pub fn keyid(&self) -> &str {
        &self.sealer.keyid
    }
}

impl fmt::Debug for LaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaneKey({})", self.sealer.keyid)
    }
}

/// A symmetric key that seals and verifies.
pub trait SealingKey {
    /// The key's id, as written beside its signature.
    fn keyid(&self) -> &str;

    /// The signature over the concatenation of `parts`.
    fn sign(&self, parts: &[&[u8]]) -> Vec<u8>;

    /// True if any of the signatures is this key's over the concatenation of `parts`; in constant time for each.
    fn verifies_any(&self, parts: &[&[u8]], signatures: &[&[u8]]) -> bool;
}

macro_rules! sealing_key {
    ($($key:ty),+) => {$(
        impl SealingKey for $key {
            fn keyid(&self) -> &str {
                &self.sealer.keyid
            }

            fn sign(&self, parts: &[&[u8]]) -> Vec<u8> {
                self.sealer.over(parts).finalize().into_bytes().to_vec()
            }

            fn verifies_any(&self, parts: &[&[u8]], signatures: &[&[u8]]) -> bool {
                let mac = self.sealer.over(parts);
                signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok())
            }
        }
    )+};
}

sealing_key!(PairKey, LaneKey);

/// The keys of one peer: of the accepted ones the first signs and all verify; the retired ones are named as such.
///
/// A peer without an accepted key has an empty ring, and nothing of it verifies. A version-2 peer's key is in no ring.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    /// Keys that verify; the first one signs.
    pub accepted: Vec<PairKey>,
    /// Keys that verify no more.
    pub retired: Vec<PairKey>,
}

impl KeyRing {
    /// The keys of one lane, made from every key of the ring. Callers keep it: making it costs some microseconds.
    #[must_use]
    pub fn lane(&self, lane: &Lane) -> LaneRing {
        LaneRing {
            accepted: self.accepted.iter().map(|key| key.lane(lane)).collect(),
            retired: self.retired.iter().map(|key| key.lane(lane)).collect(),
        }
    }

    /// The key that signs today; `None` for a peer without a key.
    #[must_use]
    pub fn signing(&self) -> Option<&PairKey> {
        self.accepted.first()
    }
}

/// The keys of one lane.
#[derive(Clone, Debug, Default)]
pub struct LaneRing {
    /// Keys that verify; the first one signs.
    pub accepted: Vec<LaneKey>,
    /// Keys that verify no more.
    pub retired: Vec<LaneKey>,
}

impl LaneRing {
    /// The key that signs today; `None` for a peer without a key.
    #[must_use]
    pub fn signing(&self) -> Option<&LaneKey> {
        self.accepted.first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "68e9ad9952bb5bbbb63af3d44fd71e977803d1f6a5b3cffd3b4f1239b40e8101";

    #[test]
    fn a_short_key_is_no_key() {
        assert_eq!(PairKey::from_text(" \n").unwrap_err(), WeakKey { chars: 0 });
        assert_eq!(PairKey::from_text(&"k".repeat(31)).unwrap_err(), WeakKey { chars: 31 });
        assert!(PairKey::from_text(&"k".repeat(32)).is_ok());
    }

    #[test]
    fn the_two_directions_have_different_keys() {
        let key = PairKey::from_text(&format!("\t{TEXT}\n")).unwrap();
        let lane = Lane::parse("devbox-to-gpubox").unwrap();
        assert_eq!(key.lane(&lane).keyid(), "3eda0d86c0205d5a");
        assert_ne!(key.lane(&lane).keyid(), key.lane(&lane.reversed()).keyid());
    }

    #[test]
    fn no_key_shows_in_debug_text() {
        let key = PairKey::from_text(TEXT).unwrap();
        let lane_key = key.lane(&Lane::parse("a-to-b").unwrap());
        let shown = format!("{key:?} {lane_key:?}");
        assert!(!shown.contains(TEXT) && !shown.contains(lane_key.to_secret_text().trim()));
    }

    #[test]
    fn a_lane_key_survives_its_file() {
        let key = PairKey::from_text(TEXT).unwrap().lane(&Lane::parse("a-to-b").unwrap());
        assert_eq!(LaneKey::from_text(&key.to_secret_text()).unwrap().keyid(), key.keyid());
        assert!(LaneKey::from_text("").is_err());
    }
}
