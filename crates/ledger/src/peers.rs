//! What other nodes showed: how far their heartbeats came, the heads of their chains, what they saw of this node.

use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::parts::AuditHead;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

use crate::column::get;
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tx::Tx;

/// The newest heartbeat of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRow {
    /// The node.
    pub node: NodeName,
    /// The boot of its watcher.
    pub boot: u64,
    /// Its position in that boot.
    pub seq: u64,
    /// When this node first saw it, by its own clock: what age is counted from.
    pub advanced_at: Timestamp,
    /// Its verified payload.
    pub payload: Vec<u8>,
}

/// Whether a heartbeat is newer than every one before.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// (boot, seq) exceeds the highest ever seen: the node is alive.
    Advanced,
    /// It is the highest one itself, seen again.
    Same,
    /// It is older: it revives nobody.
    Replayed,
}

/// A head of another node's chain, as it was shown to this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessedRow {
    /// The node.
    pub node: NodeName,
    /// The head it showed.
    pub head: AuditHead,
    /// When.
    pub at: Timestamp,
}

/// Whether a head agrees with what was shown before.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witnessing {
    /// It was not known.
    New,
    /// The same was shown before.
    Known,
    /// Another head was shown at this position before: that node's chain was rewritten. The first one stays.
    Contradicted {
        /// What was shown before.
        known: AuditHead,
    },
}

/// What a peer last said it had seen of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EchoRow {
    /// The peer.
    pub peer: NodeName,
    /// The boot of this node that it saw.
    pub boot: u64,
    /// The position in that boot.
    pub seq: u64,
    /// The head of this node's chain that it saw.
    pub head: AuditHead,
    /// When it said so.
    pub at: Timestamp,
}

impl Reader {
    /// The newest heartbeat of every node that ever sent one.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn peers(&self) -> Result<Vec<PeerRow>, LedgerError> {
        self.all("read the peers", "SELECT * FROM peers ORDER BY node", (), read_peer)
    }

    /// The newest heartbeat of a node.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn peer(&self, node: &NodeName) -> Result<Option<PeerRow>, LedgerError> {
        self.one("read a peer", "SELECT * FROM peers WHERE node = ?1", [node.as_str()], read_peer)
    }

    /// Every head of a node's chains that was shown to this one, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn witnessed(&self, node: &NodeName) -> Result<Vec<WitnessedRow>, LedgerError> {
        let sql = "SELECT * FROM witnessed WHERE node = ?1 ORDER BY at, seq";
        self.all("read the witnessed heads", sql, [node.as_str()], |row| {
            Ok(WitnessedRow { node: get(row, "node")?, head: read_head(row, "seq")?, at: get(row, "at")? })
        })
    }

    /// What each peer last said it had seen of this node.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn echoes(&self) -> Result<Vec<EchoRow>, LedgerError> {
        self.all("read the echoes", "SELECT * FROM echoes ORDER BY peer", (), |row| {
            Ok(EchoRow {
                peer: get(row, "peer")?,
                boot: row.get("boot")?,
                seq: row.get("seq")?,
                head: read_head(row, "chain_seq")?,
                at: get(row, "at")?,
            })
        })
    }
}

impl Tx<'_> {
    /// Notes a verified heartbeat. Only one that advances is kept.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn note_heartbeat(
        &mut self,
        node: &NodeName,
        boot: u64,
        seq: u64,
        payload: &[u8],
    ) -> Result<Advance, LedgerError> {
        let known = self.peer(node)?.map(|row| (row.boot, row.seq));
        match known {
            Some(highest) if highest == (boot, seq) => return Ok(Advance::Same),
            Some(highest) if highest > (boot, seq) => return Ok(Advance::Replayed),
            Some(_) | None => {}
        }
        let sql = "INSERT INTO peers (node, boot, seq, advanced_at, payload) VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (node) DO UPDATE SET boot = excluded.boot, seq = excluded.seq,
                     advanced_at = excluded.advanced_at, payload = excluded.payload";
        self.run("note a heartbeat", sql, (node.as_str(), boot, seq, self.now().unix_ms(), payload))?;
        Ok(Advance::Advanced)
    }

    /// Keeps a head of another node's chain: from now on it is witnessed.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn witness(&mut self, node: &NodeName, head: AuditHead) -> Result<Witnessing, LedgerError> {
        let place = (node.as_str(), head.chain.to_string(), head.seq);
        let sql = "SELECT * FROM witnessed WHERE node = ?1 AND chain = ?2 AND seq = ?3";
        let known = self
            .one("read a witnessed head", sql, (place.0, &place.1, place.2), |row| read_head(row, "seq"))?;
        match known {
            Some(known) if known == head => return Ok(Witnessing::Known),
            Some(known) => return Ok(Witnessing::Contradicted { known }),
            None => {}
        }
        let sql = "INSERT INTO witnessed (node, chain, seq, head, at) VALUES (?1, ?2, ?3, ?4, ?5)";
        let params = (place.0, &place.1, place.2, head.head.to_string(), self.now().unix_ms());
        self.run("keep a witnessed head", sql, params)?;
        Ok(Witnessing::New)
    }

    /// Keeps what a peer says it has seen of this node, in place of what it said before.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn note_echo(
        &mut self,
        peer: &NodeName,
        boot: u64,
        seq: u64,
        head: AuditHead,
    ) -> Result<(), LedgerError> {
        let sql = "INSERT INTO echoes (peer, boot, seq, chain, chain_seq, head, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                   ON CONFLICT (peer) DO UPDATE SET boot = excluded.boot, seq = excluded.seq, chain = excluded.chain,
                     chain_seq = excluded.chain_seq, head = excluded.head, at = excluded.at";
        let params = (
            peer.as_str(),
            boot,
            seq,
            head.chain.to_string(),
            head.seq,
            head.head.to_string(),
            self.now().unix_ms(),
        );
        self.run("keep an echo", sql, params).map(|_| ())
    }

    /// Forgets witnessed heads noted before `upto`, except the newest of each chain. Answers how many.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn purge_witnessed(&mut self, upto: Timestamp) -> Result<usize, LedgerError> {
        let sql =
            "DELETE FROM witnessed WHERE at < ?1 AND seq < (SELECT max(newer.seq) FROM witnessed AS newer
                     WHERE newer.node = witnessed.node AND newer.chain = witnessed.chain)";
        self.run("purge witnessed heads", sql, [upto.unix_ms()])
    }
}

fn read_head(row: &Row<'_>, seq: &str) -> rusqlite::Result<AuditHead> {
    let chain: Uuid = get(row, "chain")?;
    Ok(AuditHead { chain, seq: row.get(seq)?, head: get(row, "head")? })
}

fn read_peer(row: &Row<'_>) -> rusqlite::Result<PeerRow> {
    Ok(PeerRow {
        node: get(row, "node")?,
        boot: row.get("boot")?,
        seq: row.get("seq")?,
        advanced_at: get(row, "advanced_at")?,
        payload: row.get("payload")?,
    })
}
