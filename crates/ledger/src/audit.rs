//! The audit chain: entries written in the transaction they describe, each holding the hash of the one before
//! (architecture, "Audit").

use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::parts::AuditHead;
use rusqlite::Row;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::column::get;
use crate::error::LedgerError;
use crate::meta::ShownHead;
use crate::reader::Reader;
use crate::tasks::TaskKey;
use crate::tx::Tx;

/// `prev` of a chain's first entry, and the head of a chain that has none yet: 64 zeros.
pub const NO_HEAD: Digest = Digest::from_bytes([0; 32]);

/// The kind of the first entry of a chain that follows another one.
pub(crate) const CHAIN_BEGUN: &str = "chain_begun";

/// One fact for the audit chain, before it is chained.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    kind: &'static str,
    from: Option<NodeName>,
    task: Option<TaskId>,
    epoch: Option<u64>,
    code: Option<String>,
    who: Option<String>,
    data: Value,
}

impl Entry {
    /// A fact of a kind of the fixed vocabulary.
    #[must_use]
    pub const fn of(kind: &'static str) -> Entry {
        Entry { kind, from: None, task: None, epoch: None, code: None, who: None, data: Value::Null }
    }

    /// … about a task.
    #[must_use]
    pub fn task(mut self, key: &TaskKey) -> Entry {
        self.from = Some(key.from.clone());
        self.task = Some(key.id);
        self
    }

    /// … about a node, or about what a node sent that is no task.
    #[must_use]
    pub fn from(mut self, node: &NodeName) -> Entry {
        self.from = Some(node.clone());
        self
    }

    /// … about one attempt.
    #[must_use]
    pub const fn epoch(mut self, epoch: u64) -> Entry {
        self.epoch = Some(epoch);
        self
    }

    /// … with a reason code.
    #[must_use]
    pub fn code(mut self, code: &str) -> Entry {
        self.code = Some(code.to_owned());
        self
    }

    /// … done by somebody: a principal, or the name a person gave.
    #[must_use]
    pub fn who(mut self, who: &str) -> Entry {
        self.who = Some(who.to_owned());
        self
    }

    /// … with details: an object; anything else is stored as `{}`.
    #[must_use]
    pub fn data(mut self, data: Value) -> Entry {
        self.data = data;
        self
    }
}

/// A chained entry, as `logs/<node>.jsonl` holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// Its place among all entries of this ledger, over all chains, ascending.
    pub n: u64,
    /// Its chain.
    pub chain: Uuid,
    /// Its position in the chain, from 1.
    pub seq: u64,
    /// SHA-256 of the line's bytes before `,"hash":`.
    pub hash: Digest,
    /// The exact line, without its line feed.
    pub line: String,
}

/// The members of a line before its hash, in the order they are written.
#[derive(Serialize)]
struct Body<'e> {
    chain: &'e str,
    seq: u64,
    ts: &'e str,
    node: &'e str,
    boot: u64,
    kind: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<&'e str>,
    data: &'e Value,
    prev: &'e str,
}

impl Reader {
    /// The current chain's head.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn head(&self) -> Result<AuditHead, LedgerError> {
        self.meta().map(|meta| meta.head)
    }

    /// Entries of all chains with `n` above `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn audit_lines(&self, after: u64, limit: usize) -> Result<Vec<AuditLine>, LedgerError> {
        let sql = "SELECT n, chain, seq, hash, line FROM audit WHERE n > ?1 ORDER BY n LIMIT ?2";
        self.all("read the audit chain", sql, (after, limit), read_line)
    }

    /// One entry by its place in its chain: what a head that was shown to somebody is compared with.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn audit_line(&self, chain: Uuid, seq: u64) -> Result<Option<AuditLine>, LedgerError> {
        let sql = "SELECT n, chain, seq, hash, line FROM audit WHERE chain = ?1 AND seq = ?2";
        self.one("read an audit entry", sql, (chain.to_string(), seq), read_line)
    }

    /// All entries about one task, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn audit_of_task(&self, key: &TaskKey) -> Result<Vec<AuditLine>, LedgerError> {
        let sql = "SELECT n, chain, seq, hash, line FROM audit WHERE task = ?1 AND sender = ?2 ORDER BY n";
        self.all("read a task's audit entries", sql, (key.id.to_string(), key.from.as_str()), read_line)
    }
}

impl Tx<'_> {
    /// Chains an entry; it is durable with the transaction, or never was.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn audit(&mut self, entry: &Entry) -> Result<AuditHead, LedgerError> {
        let meta = self.meta()?;
        let (chain, task) = (meta.head.chain.to_string(), entry.task.map(|id| id.to_string()));
        let seq = meta.head.seq.saturating_add(1);
        let no_details = json!({});
        let body = Body {
            chain: &chain,
            seq,
            ts: &self.now().to_string(),
            node: meta.node.as_str(),
            boot: self.boot(),
            kind: entry.kind,
            from: entry.from.as_ref().map(NodeName::as_str),
            task: task.as_deref(),
            epoch: entry.epoch,
            code: entry.code.as_deref(),
            who: entry.who.as_deref(),
            data: if entry.data.is_object() { &entry.data } else { &no_details },
            prev: &meta.head.head.to_string(),
        };
        let (line, head) = chained(&body)?;
        self.run(
            "write an audit entry",
            "INSERT INTO audit (chain, seq, hash, sender, task, line) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (&chain, seq, head.to_string(), body.from, body.task, &line),
        )?;
        self.set(
            "move the audit head",
            "UPDATE ledger SET chain_seq = ?1, chain_head = ?2",
            (seq, head.to_string()),
        )?;
        Ok(AuditHead { chain: meta.head.chain, seq, head })
    }

    /// Begins a new chain, whose first entry names the old one, its last position and head, and the head that was
    /// shown of this node, if that is why (protocol section 7).
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn begin_new_chain(
        &mut self,
        chain: Uuid,
        who: Option<&str>,
        reason: &str,
        shown: Option<&ShownHead>,
    ) -> Result<AuditHead, LedgerError> {
        let old = self.head()?;
        self.set(
            "begin a new chain",
            "UPDATE ledger SET chain = ?1, chain_seq = 0, chain_head = ?2",
            (chain.to_string(), NO_HEAD.to_string()),
        )?;
        let data = json!({
            "old": named(old.chain, old.seq, old.head),
            "shown": shown.map(|head| named(head.chain, head.seq, head.head)),
            "reason": reason,
        });
        let entry = Entry::of(CHAIN_BEGUN).data(data);
        self.audit(&match who {
            Some(who) => entry.who(who),
            None => entry,
        })
    }
}

/// The line of an entry and its hash.
fn chained(body: &Body<'_>) -> Result<(String, Digest), LedgerError> {
    let mut line = serde_json::to_string(body).map_err(|source| LedgerError::Entry { source })?;
    // The object stays open: the hash becomes its last member, over every byte before it.
    line.truncate(line.len().saturating_sub(1));
    let head = Digest::of(line.as_bytes());
    line.push_str(&format!(",\"hash\":\"{head}\"}}"));
    Ok((line, head))
}

pub(crate) fn named(chain: Uuid, seq: u64, head: Digest) -> Value {
    json!({"chain": chain.to_string(), "seq": seq, "head": head.to_string()})
}

pub(crate) fn read_line(row: &Row<'_>) -> rusqlite::Result<AuditLine> {
    Ok(AuditLine {
        n: row.get("n")?,
        chain: get(row, "chain")?,
        seq: row.get("seq")?,
        hash: get(row, "hash")?,
        line: row.get("line")?,
    })
}
