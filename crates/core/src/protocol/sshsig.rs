//! SSHSIG blobs: what `ssh-keygen -Y sign` makes, raw or armoured.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh_key::{HashAlg, PublicKey, Signature, SshSig};

use crate::protocol::names::Digest;
use crate::protocol::seal::EnvelopeSignature;

/// The namespace of our signatures: a signature made for anything else approves nothing.
pub const NAMESPACE: &str = "dispatch-decision";

const ARMOR_BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const ARMOR_END: &str = "-----END SSH SIGNATURE-----";
const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;

/// A text that `ssh-keygen -Y sign` did not make for our namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an OpenSSH signature over sha512 in the namespace `{NAMESPACE}`")]
pub struct NotAnSshSignature;

/// A signature in our namespace over sha512, not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshSignature {
    blob: Vec<u8>,
    public_key: Vec<u8>,
    signature: Vec<u8>,
}

impl SshSignature {
    /// Reads the armoured text that `ssh-keygen -Y sign -n dispatch-decision` prints.
    ///
    /// # Errors
    /// Any other text, another namespace, another hash.
    pub fn from_armor(text: &str) -> Result<SshSignature, NotAnSshSignature> {
        let inner = text
            .trim()
            .strip_prefix(ARMOR_BEGIN)
            .and_then(|rest| rest.strip_suffix(ARMOR_END))
            .ok_or(NotAnSshSignature)?;
        let base64: String = inner.split_ascii_whitespace().collect();
        SshSignature::from_blob(&STANDARD.decode(base64).map_err(|_| NotAnSshSignature)?)
    }

    /// Reads a raw blob: the `sig` of a decision's envelope.
    ///
    /// # Errors
    /// Any other bytes, another namespace, another hash.
    pub fn from_blob(blob: &[u8]) -> Result<SshSignature, NotAnSshSignature> {
        SshSignature::read(blob).ok_or(NotAnSshSignature)
    }

    fn read(blob: &[u8]) -> Option<SshSignature> {
        let rest = blob.strip_prefix(MAGIC)?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (public_key, rest) = ssh_string(rest)?;
        let (namespace, rest) = ssh_string(rest)?;
        let (reserved, rest) = ssh_string(rest)?;
        let (hash, rest) = ssh_string(rest)?;
        let (signature, rest) = ssh_string(rest)?;
        let ours = u32::from_be_bytes(*version) == VERSION
            && namespace == NAMESPACE.as_bytes()
            && reserved.is_empty()
            && hash == b"sha512"
            && rest.is_empty();
        ours.then(|| SshSignature {
            blob: blob.to_vec(),
            public_key: public_key.to_vec(),
            signature: signature.to_vec(),
        })
    }

    /// The blob of the public key that it claims to be of.
    #[must_use]
    pub fn public_key_blob(&self) -> &[u8] {
        &self.public_key
    }

    /// First 16 digits of SHA-256(public key blob): the `key16` of a decision's file name.
    #[must_use]
    pub fn key16(&self) -> String {
        key16(&self.public_key)
    }

    /// As it stands in an envelope: the raw blob, and OpenSSH's fingerprint as `keyid`.
    ///
    /// # Errors
    /// A public key that is none.
    pub fn to_envelope(&self) -> Result<EnvelopeSignature, NotAnSshSignature> {
        let key = PublicKey::from_bytes(&self.public_key).map_err(|_| NotAnSshSignature)?;
        Ok(EnvelopeSignature { keyid: key.fingerprint(HashAlg::Sha256).to_string(), sig: self.blob.clone() })
    }

    /// True if it is `key`'s signature over `message`.
    pub(super) fn is_of(&self, key: &PublicKey, message: &[u8]) -> bool {
        let verified = Signature::try_from(self.signature.as_slice())
            .and_then(|signature| SshSig::new(key.key_data().clone(), NAMESPACE, HashAlg::Sha512, signature))
            .and_then(|signature| key.verify(NAMESPACE, message, &signature));
        verified.is_ok()
    }
}

/// First 16 digits of SHA-256 of a public key's blob.
pub(super) fn key16(public_key_blob: &[u8]) -> String {
    Digest::of(public_key_blob).hex16()
}

/// Splits one length-prefixed string off (RFC 4251 section 5).
fn ssh_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)
}
