//! Has this ledger forgotten something that the node already showed? Protocol section 7.

use uuid::Uuid;

use crate::protocol::names::Digest;

/// The head of an audit chain: where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The chain; one per ledger and per accepted rollback.
    pub chain: Uuid,
    /// Number of its last entry.
    pub seq: u64,
    /// Hash of its last entry.
    pub head: Digest,
}

/// What the ledger holds of its own chain at a shown position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The ledger ends before it.
    Beyond,
    /// The ledger's own hash there.
    Hash(Digest),
}

/// True when a head that was shown (in this node's own heartbeat or a peer's echo) proves the ledger older than it:
/// the same chain at a higher position, or with another hash at the same one. Heads of other chains prove nothing.
#[must_use]
pub fn is_rolled_back(current_chain: Uuid, shown: &Head, held: Held) -> bool {
    shown.chain == current_chain
        && match held {
            Held::Beyond => true,
            Held::Hash(hash) => hash != shown.head,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_is_older_when_a_shown_head_is_beyond_it_or_differs_from_it() {
        let chain = Uuid::from_u128(1);
        let shown = Head { chain, seq: 5, head: Digest::of(b"five") };
        assert!(is_rolled_back(chain, &shown, Held::Beyond));
        assert!(is_rolled_back(chain, &shown, Held::Hash(Digest::of(b"other"))));
        assert!(!is_rolled_back(chain, &shown, Held::Hash(Digest::of(b"five"))));
        assert!(!is_rolled_back(Uuid::from_u128(2), &shown, Held::Beyond));
    }
}
