//! Sealing: DSSE envelopes over exact bytes (protocol section 2).
//!
//! `RawEnvelope` → `VerifiedBytes` → `Opened<T>` → `Verified<T>`: each arrow consumes the left and may refuse, and only
//! this module can make the right. What was verified is, byte for byte, what is then parsed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::protocol::approvers::{Approvers, VerifiedApprover};
use crate::protocol::json::{self, NotJson, Value};
use crate::protocol::keys::{KeyRing, LaneRing, SealingKey};
use crate::protocol::members::{self, At, Breach, Breaches, FormError, Members};
use crate::protocol::names::Digest;
use crate::protocol::payload::{Form, Kind, Payload, PayloadError};
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Timestamp;
use crate::protocol::writer::{Emit, object, object_bytes};

/// One signature of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeSignature {
    /// A hint for finding the key.
    pub keyid: String,
    /// The raw signature.
    pub sig: Vec<u8>,
}

impl EnvelopeSignature {
    fn read(members: &mut Members<'_, '_>) -> Result<EnvelopeSignature, FormError> {
        Ok(EnvelopeSignature {
            keyid: members.required("keyid", members::text_of_bytes(0..=usize::MAX))?,
            sig: members.required("sig", base64_bytes)?,
        })
    }
}

impl Emit for EnvelopeSignature {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("keyid", &self.keyid).put("sig", &STANDARD.encode(&self.sig));
        });
    }
}

/// Standard base64, padded, without unused bits set: one spelling for the same bytes.
fn base64_bytes(at: &At<'_>, value: &Value<'_>) -> Result<Vec<u8>, FormError> {
    match value {
        Value::Text(text) => STANDARD.decode(text.as_bytes()).map_err(|_| at.form("is no standard base64")),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::List(_) | Value::Object(_) => {
            Err(at.form("must be a string"))
        }
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

/// A file that is no envelope of its kind (steps 1 and 2 of protocol section 4).
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Larger than its kind may be.
    #[error("the file has {bytes} bytes, at most {bytes_max} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest size of its kind.
        bytes_max: usize,
    },
    /// Not strict JSON.
    #[error("the file is not strict JSON")]
    NotJson(#[source] NotJson),
    /// Not exactly the members of an envelope.
    #[error("the file is no envelope")]
    Form(#[source] FormError),
    /// Too many signatures.
    #[error("the envelope has {found} signatures, at most {most} are allowed")]
    TooManySignatures {
        /// How many it has.
        found: usize,
        /// How many its kind may have.
        most: usize,
    },
    /// The flat JSON of version 2.
    #[error("the file is a task of version 2")]
    Version2,
}

impl EnvelopeError {
    /// The code it gets.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        match self {
            EnvelopeError::TooLarge { .. } => ReasonCode::TooLarge,
            EnvelopeError::NotJson(_) | EnvelopeError::Form(_) | EnvelopeError::TooManySignatures { .. } => {
                ReasonCode::Malformed
            }
            EnvelopeError::Version2 => ReasonCode::UnsupportedSchema,
        }
    }
}

/// Why no key opens an envelope (step 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No signature of an accepted or retired key; also where no key is configured.
    #[error("no signature of a known key")]
    Bad,
    /// A signature of a key that is listed as retired.
    #[error("the signature is of a retired key")]
    Retired,
}

impl SignatureError {
    /// The code it gets.
    #[must_use]
    pub const fn code(self) -> ReasonCode {
        match self {
            SignatureError::Bad => ReasonCode::BadSignature,
            SignatureError::Retired => ReasonCode::RetiredKey,
        }
    }
}

/// Why verified bytes are no payload of their kind (step 4).
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The `payloadType` of another kind.
    #[error("the message is of another type than its file's name says")]
    WrongType,
    /// Bytes that are no such payload.
    #[error("the message holds no payload of its kind")]
    Payload(#[source] PayloadError),
}

impl OpenError {
    /// The code it gets.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        match self {
            OpenError::WrongType | OpenError::Payload(PayloadError::NotJson(_) | PayloadError::Form(_)) => {
                ReasonCode::Malformed
            }
            OpenError::Payload(PayloadError::UnsupportedSchema { .. }) => ReasonCode::UnsupportedSchema,
            OpenError::Payload(PayloadError::Limit(_)) => ReasonCode::LimitExceeded,
        }
    }
}

/// An envelope whose form is right and of which nothing is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEnvelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<EnvelopeSignature>,
}

impl RawEnvelope {
    /// Reads a file of a kind: its size, strict JSON, exactly the members, canonical base64, not too many signatures.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub fn read(kind: Kind, file: &[u8]) -> Result<RawEnvelope, EnvelopeError> {
        let bytes_max = kind.envelope_bytes_max();
        if file.len() > bytes_max {
            return Err(EnvelopeError::TooLarge { bytes: file.len(), bytes_max });
        }
        let value = json::parse(file).map_err(EnvelopeError::NotJson)?;
        if kind == Kind::Task && is_version_2(&value) {
            return Err(EnvelopeError::Version2);
        }
        let envelope = RawEnvelope::from_value(&value).map_err(EnvelopeError::Form)?;
        let (found, most) = (envelope.signatures.len(), kind.signatures_max());
        if found > most { Err(EnvelopeError::TooManySignatures { found, most }) } else { Ok(envelope) }
    }

    fn from_value(value: &Value<'_>) -> Result<RawEnvelope, FormError> {
        // Nothing here has a quantity of its own: the file's size bounds it all.
        let breaches = Breaches::default();
        let mut members = Members::of_message(value, &breaches)?;
        let envelope = RawEnvelope {
            payload_type: members.required("payloadType", members::text_of_bytes(0..=usize::MAX))?,
            payload: members.required("payload", base64_bytes)?,
            signatures: members.required(
                "signatures",
                members::list(usize::MAX, members::object(EnvelopeSignature::read)),
            )?,
        };
        members.finish()?;
        Ok(envelope)
    }

    /// The payload's bytes, of which nothing is believed: for showing a hint, marked as such.
    #[must_use]
    pub fn unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signatures, of which nothing is believed.
    #[must_use]
    pub fn unverified_signatures(&self) -> &[EnvelopeSignature] {
        &self.signatures
    }

    /// Verifies with the keys of one lane.
    ///
    /// # Errors
    /// No signature of an accepted key; all accepted keys are tried before any retired one.
    pub fn verify_lane(self, ring: &LaneRing) -> Result<VerifiedBytes, SignatureError> {
        self.verify_keys(&mut ring.accepted.iter(), &mut ring.retired.iter())
    }

    /// Verifies with the pair keys of one peer, or of all peers for a file in this node's own name.
    ///
    /// # Errors
    /// No signature of an accepted key of any ring.
    pub fn verify_pairs(self, rings: &[&KeyRing]) -> Result<VerifiedBytes, SignatureError> {
        let mut accepted = rings.iter().flat_map(|ring| &ring.accepted);
        let mut retired = rings.iter().flat_map(|ring| &ring.retired);
        self.verify_keys(&mut accepted, &mut retired)
    }

    /// Verifies with the approvers' public keys, as valid now.
    ///
    /// # Errors
    /// No signature of an approver.
    pub fn verify_approvers(
        self,
        approvers: &Approvers,
        now: Timestamp,
    ) -> Result<VerifiedBytes, SignatureError> {
        let message = [pae_head(&self.payload_type, &self.payload).as_bytes(), &self.payload].concat();
        let signers: Vec<VerifiedApprover> = self
            .signatures
            .iter()
            .filter_map(|signature| approvers.verify(&message, &signature.sig, now))
            .collect();
        if signers.is_empty() { Err(SignatureError::Bad) } else { Ok(self.verified(signers)) }
    }

    fn verify_keys<'k, K: SealingKey + 'k>(
        self,
        accepted: &mut dyn Iterator<Item = &'k K>,
        retired: &mut dyn Iterator<Item = &'k K>,
    ) -> Result<VerifiedBytes, SignatureError> {
        if self.is_signed_by_any(accepted) {
            Ok(self.verified(Vec::new()))
        } else if self.is_signed_by_any(retired) {
            Err(SignatureError::Retired)
        } else {
            Err(SignatureError::Bad)
        }
    }

    fn is_signed_by_any<'k, K: SealingKey + 'k>(&self, keys: &mut dyn Iterator<Item = &'k K>) -> bool {
        let head = pae_head(&self.payload_type, &self.payload);
        let signatures: Vec<&[u8]> = self.signatures.iter().map(|one| one.sig.as_slice()).collect();
        for key in keys {
            if key.verifies_any(&[head.as_bytes(), &self.payload], &signatures) {
                return true;
            }
        }
        false
    }

    fn verified(self, approvers: Vec<VerifiedApprover>) -> VerifiedBytes {
        let digest = Digest::of(&self.payload);
        VerifiedBytes { payload_type: self.payload_type, payload: self.payload, digest, approvers }
    }
}

/// An object with `hmac` and no member of an envelope.
fn is_version_2(value: &Value<'_>) -> bool {
    match value {
        Value::Object(members) => {
            let has = |name: &str| members.iter().any(|(member, _)| member == name);
            has("hmac") && !["payloadType", "payload", "signatures"].into_iter().any(has)
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::List(_) => false,
    }
}

/// Payload bytes whose signature was verified, not parsed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedBytes {
    payload_type: String,
    payload: Vec<u8>,
    digest: Digest,
    approvers: Vec<VerifiedApprover>,
}

impl VerifiedBytes {
    /// Parses the bytes as their kind.
    ///
    /// # Errors
    /// Another `payloadType`, or bytes that are no such payload.
    pub fn parse<T: Payload>(self) -> Result<Opened<T>, OpenError> {
        if self.payload_type != T::KIND.payload_type() {
            return Err(OpenError::WrongType);
        }
        let form = T::from_payload(&self.payload).map_err(OpenError::Payload)?;
        Ok(Opened { form, bytes: self.payload, digest: self.digest, approvers: self.approvers })
    }
}

/// A verified payload whose quantities were not judged yet.
#[derive(Clone, Debug)]
pub struct Opened<T> {
    form: Form<T>,
    bytes: Vec<u8>,
    digest: Digest,
    approvers: Vec<VerifiedApprover>,
}

impl<T> Opened<T> {
    /// What a flat message of version 2 is, once its own signature was verified over these bytes.
    pub(super) fn of_version_2(form: Form<T>, signed: Vec<u8>) -> Opened<T> {
        Opened { form, digest: Digest::of(&signed), bytes: signed, approvers: Vec::new() }
    }

    /// SHA-256 of the payload's bytes.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The payload's exact bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The approvers whose signatures verified; none where symmetric keys seal.
    #[must_use]
    pub fn approvers(&self) -> &[VerifiedApprover] {
        &self.approvers
    }

    /// What identifies the message, for the checks that come before those of quantity.
    pub(super) const fn peek(&self) -> &T {
        self.form.peek()
    }

    /// The first limit it breaks.
    pub(super) const fn breach(&self) -> Option<&Breach> {
        self.form.breach()
    }

    /// The payload, if no limit is broken.
    ///
    /// # Errors
    /// The first limit it breaks.
    pub fn within_limits(self) -> Result<Verified<T>, Breach> {
        let Opened { form, bytes, digest, approvers } = self;
        form.within_limits().map(|payload| Verified { payload, bytes, digest, approvers })
    }
}

/// A payload that was sealed by a key of the one who may seal it, and is within its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T> {
    payload: T,
    bytes: Vec<u8>,
    digest: Digest,
    approvers: Vec<VerifiedApprover>,
}

impl<T> Verified<T> {
    /// The payload.
    #[must_use]
    pub const fn payload(&self) -> &T {
        &self.payload
    }

    /// The payload's exact bytes: what is kept and published again.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the payload's bytes.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The approvers whose signatures verified; none where symmetric keys seal.
    #[must_use]
    pub fn approvers(&self) -> &[VerifiedApprover] {
        &self.approvers
    }

    /// The payload and its exact bytes.
    #[must_use]
    pub fn into_parts(self) -> (T, Vec<u8>, Digest) {
        (self.payload, self.bytes, self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::keys::PairKey;

    #[test]
    fn the_pae_is_that_of_the_dsse_document() {
        let head = pae_head("http://example.com/HelloWorld", b"hello world");
        assert_eq!(head, "DSSEv1 29 http://example.com/HelloWorld 11 ");
    }

    #[test]
    fn missing_key_fails_closed() {
        let key = PairKey::from_text(&"k".repeat(32)).unwrap();
        let sealed = seal(Kind::Heartbeat, b"{}", &[&key]);
        let open =
            |ring: &KeyRing| RawEnvelope::read(Kind::Heartbeat, &sealed).unwrap().verify_pairs(&[ring]);
        assert_eq!(open(&KeyRing::default()), Err(SignatureError::Bad));
        assert!(open(&KeyRing { accepted: vec![key], retired: vec![] }).is_ok());
    }

    #[test]
    fn every_signature_of_a_heartbeat_opens_for_its_peer() {
        let keys: Vec<PairKey> =
            (10..74).map(|n| PairKey::from_text(&format!("{n}").repeat(16)).unwrap()).collect();
        let mut sealers: Vec<&dyn SealingKey> = Vec::new();
        for key in &keys {
            sealers.push(key);
        }
        let sealed = seal(Kind::Heartbeat, b"{}", &sealers);
        for key in &keys {
            let ring = KeyRing { accepted: vec![key.clone()], retired: vec![] };
            assert!(RawEnvelope::read(Kind::Heartbeat, &sealed).unwrap().verify_pairs(&[&ring]).is_ok());
        }
    }
}
