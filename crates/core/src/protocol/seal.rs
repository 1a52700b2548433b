//! Sealing: DSSE envelopes over exact bytes (protocol section 2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::protocol::keys::SealingKey;
use crate::protocol::payload::Kind;
use crate::protocol::writer::{Emit, object, object_bytes};

/// One signature of an envelope being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeSignature {
    /// A hint for finding the key.
    pub keyid: String,
    /// The raw signature.
    pub sig: Vec<u8>,
}

impl Emit for EnvelopeSignature {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("keyid", &self.keyid).put("sig", &STANDARD.encode(&self.sig));
        });
    }
}

/// The head of what is signed: `"DSSEv1" SP len(T) SP T SP len(bytes) SP`; the payload's bytes follow it.
fn pae_head(payload_type: &str, payload: &[u8]) -> String {
    format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len())
}

/// The bytes that a signature covers, for signers outside this process (`ssh-keygen -Y sign`).
#[must_use]
pub fn pae(kind: Kind, payload: &[u8]) -> Vec<u8> {
    [pae_head(kind.payload_type(), payload).as_bytes(), payload].concat()
}

/// Seals a payload with symmetric keys: a lane key, or for heartbeats and boot records one pair key for each peer.
#[must_use]
pub fn seal(kind: Kind, payload: &[u8], keys: &[&dyn SealingKey]) -> Vec<u8> {
    let head = pae_head(kind.payload_type(), payload);
    let signatures: Vec<EnvelopeSignature> = keys
        .iter()
        .map(|key| EnvelopeSignature {
            keyid: key.keyid().to_owned(),
            sig: key.sign(&[head.as_bytes(), payload]),
        })
        .collect();
    seal_signed(kind, payload, &signatures)
}

/// The envelope of a payload that was signed elsewhere.
#[must_use]
pub fn seal_signed(kind: Kind, payload: &[u8], signatures: &[EnvelopeSignature]) -> Vec<u8> {
    object_bytes(|o| {
        o.put("payloadType", kind.payload_type())
            .put("payload", &STANDARD.encode(payload))
            .put("signatures", signatures);
    })
}
