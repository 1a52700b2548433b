//! Parts that several payloads share.

use uuid::Uuid;

use crate::policy::money::Usd;
use crate::protocol::json::Value;
use crate::protocol::limits;
use crate::protocol::members::{self, At, FormError, Members};
use crate::protocol::names::{Digest, NodeName};
use crate::protocol::writer::{Emit, object};

/// Where an audit chain stands: carried in results and heartbeats, and kept by the peer as a witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// The chain: one for each ledger.
    pub chain: Uuid,
    /// Its last position.
    pub seq: u64,
    /// The hash of its last entry.
    pub head: Digest,
}

impl AuditHead {
    pub(super) fn read(members: &mut Members<'_, '_>) -> Result<AuditHead, FormError> {
        Ok(AuditHead {
            chain: members.required("chain", members::uuid)?,
            seq: members.required("seq", members::count)?,
            head: members.required("head", members::digest)?,
        })
    }
}

impl Emit for AuditHead {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("chain", &self.chain).put("seq", &self.seq).put("head", &self.head);
        });
    }
}

/// A file that travels beside a message: an attachment of a task, an artifact of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    /// Its name, up to 255 bytes, without `/`, neither `.` nor `..`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The digest of its content, which is also its name on the share.
    pub sha256: Digest,
}

impl FileRef {
    pub(super) fn read(members: &mut Members<'_, '_>) -> Result<FileRef, FormError> {
        Ok(FileRef {
            name: members.required("name", file_name)?,
            bytes: members.required("bytes", members::count)?,
            sha256: members.required("sha256", members::digest)?,
        })
    }
}

impl Emit for FileRef {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("name", &self.name).put("bytes", &self.bytes).put("sha256", &self.sha256);
        });
    }
}

fn file_name(at: &At<'_>, value: &Value<'_>) -> Result<String, FormError> {
    let name = members::text_of_bytes(1..=limits::FILE_NAME_BYTES_MAX)(at, value)?;
    if name.contains('/') || name == "." || name == ".." {
        return Err(at.form("is no file name"));
    }
    Ok(name)
}

crate::protocol::words::words! {
    /// Where the figure of an actual cost comes from (policy section 1).
    pub enum CostBasis {
        /// The agent's own final figure.
        Reported = "reported",
        /// Metered from streamed usage and the price table.
        Derived = "derived",
        /// Settled at the full reservation.
        Reserved = "reserved",
        /// A zero-cost backend, or nothing ran.
        None = "none",
    }
}

/// What an attempt, or a whole task, cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The actual cost; `None` where nothing was charged.
    pub usd: Option<Usd>,
    /// Where it comes from.
    pub basis: CostBasis,
    /// What was set aside for it.
    pub reserved_usd: Usd,
}

impl Cost {
    /// The cost of what never ran.
    pub const NOTHING: Cost = Cost { usd: None, basis: CostBasis::None, reserved_usd: Usd::ZERO };

    pub(super) fn read(members: &mut Members<'_, '_>) -> Result<Cost, FormError> {
        Ok(Cost {
            usd: members.nullable("usd", members::money)?,
            basis: members.required("basis", members::word)?,
            reserved_usd: members.required("reserved_usd", members::money)?,
        })
    }
}

impl Emit for Cost {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("usd", &self.usd).put("basis", &self.basis).put("reserved_usd", &self.reserved_usd);
        });
    }
}

/// Reads the list of nodes that a task came through.
pub(super) fn via(members: &mut Members<'_, '_>, len_max: usize) -> Result<Vec<NodeName>, FormError> {
    members.required("via", members::list(len_max, members::node))
}
