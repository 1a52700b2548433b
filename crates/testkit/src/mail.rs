//! Sealed messages, sealed and opened here a second time: what the commands write is checked by code that is not theirs.
//!
//! Protocol section 2: DSSE over exact bytes, HMAC-SHA256 with the key of the lane, which is made from the pair key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The text of a pair key file.
#[derive(Clone)]
pub struct Pair(pub String);

impl Pair {
    /// The key of the lane `<from>-to-<to>`.
    #[must_use]
    pub fn lane(&self, from: &str, to: &str) -> Vec<u8> {
        mac(self.0.trim().as_bytes(), format!("dispatch-lane-v3 {from}-to-{to}").as_bytes())
    }

    /// The pair key itself, which seals heartbeats and boot records.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.0.trim().as_bytes().to_vec()
    }
}

/// An envelope that has been taken apart.
#[derive(Debug)]
pub struct Opened {
    /// The last part of its payload type: `task.v3`, `result.v3`, …
    pub kind: String,
    /// The exact bytes that were sealed.
    pub payload: Vec<u8>,
    /// The same as JSON.
    pub value: Value,
    /// Whether one signature holds under the key.
    pub verified: bool,
}

impl Opened {
    /// SHA-256 of the payload bytes, in hex.
    #[must_use]
    pub fn sha256(&self) -> String {
        sha256(&self.payload)
    }
}

/// Takes an envelope apart; none if it is not one.
#[must_use]
pub fn open(envelope: &[u8], key: &[u8]) -> Option<Opened> {
    let outer: Value = serde_json::from_slice(envelope).ok()?;
    let payload_type = outer["payloadType"].as_str()?;
    let payload = STANDARD.decode(outer["payload"].as_str()?).ok()?;
    let value = serde_json::from_slice(&payload).ok()?;
    let pae = pae(payload_type, &payload);
    let verified = outer["signatures"].as_array()?.iter().any(|signature| {
        let sig = signature["sig"].as_str().and_then(|text| STANDARD.decode(text).ok());
        sig.is_some_and(|sig| sig == mac(key, &pae))
    });
    let kind = payload_type.strip_prefix("application/vnd.dispatch.")?.strip_suffix("+json")?.to_owned();
    Some(Opened { kind, payload, value, verified })
}

/// Seals `payload` as a `kind` (`task.v3`, …) with `key`.
#[must_use]
pub fn seal(kind: &str, payload: &[u8], key: &[u8]) -> Vec<u8> {
    let payload_type = format!("application/vnd.dispatch.{kind}+json");
    let sig = mac(key, &pae(&payload_type, payload));
    let envelope = json!({
        "payloadType": payload_type,
        "payload": STANDARD.encode(payload),
        "signatures": [{"keyid": &sha256(key)[..16], "sig": STANDARD.encode(sig)}],
    });
    envelope.to_string().into_bytes()
}

/// HMAC-SHA256 in hex.
#[must_use]
pub fn hmac_hex(key: &[u8], message: &[u8]) -> String {
    mac(key, message).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 in hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut pae = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    pae.extend_from_slice(payload);
    pae
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_only() {
        let pair = Pair("0123456789abcdef0123456789abcdef\n".to_owned());
        let sealed = seal("task.v3", b"{\"a\": 1}", &pair.lane("a", "b"));
        let opened = open(&sealed, &pair.lane("a", "b")).unwrap();
        assert!(opened.verified);
        assert_eq!((opened.kind.as_str(), opened.value["a"].as_i64()), ("task.v3", Some(1)));
        assert!(!open(&sealed, &pair.lane("b", "a")).unwrap().verified);
    }
}
