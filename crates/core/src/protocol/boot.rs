//! Which watcher owns a node: the payload `boot.v1` (protocol section 7).

use uuid::Uuid;

use crate::protocol::members::{self, FormError, Members};
use crate::protocol::names::NodeName;
use crate::protocol::payload::{Kind, Payload};
use crate::protocol::time::Timestamp;
use crate::protocol::writer::Object;

/// Which watcher owns a node: the record `heartbeats/<node>.boot-<n>.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootRecord {
    /// The cluster.
    pub cluster: Uuid,
    /// The node that is owned.
    pub node: NodeName,
    /// The ledger of the watcher.
    pub ledger: Uuid,
    /// The number of this start; rises from one to the next.
    pub boot: u64,
    /// Drawn at random at every start of a watcher.
    pub instance: Uuid,
    /// The machine's boot id.
    pub host_boot_id: Uuid,
    /// When the record was made.
    pub at: Timestamp,
}

impl Payload for BootRecord {
    const KIND: Kind = Kind::Boot;

    fn read_members(members: &mut Members<'_, '_>) -> Result<BootRecord, FormError> {
        Ok(BootRecord {
            cluster: members.required("cluster", members::uuid)?,
            node: members.required("node", members::node)?,
            ledger: members.required("ledger", members::uuid)?,
            boot: members.required("boot", members::count)?,
            instance: members.required("instance", members::uuid)?,
            host_boot_id: members.required("host_boot_id", members::uuid)?,
            at: members.required("at", members::time)?,
        })
    }

    fn write_members(&self, object: &mut Object<'_>) {
        object
            .put("cluster", &self.cluster)
            .put("node", &self.node)
            .put("ledger", &self.ledger)
            .put("boot", &self.boot)
            .put("instance", &self.instance)
            .put("host_boot_id", &self.host_boot_id)
            .put("at", &self.at);
    }
}
