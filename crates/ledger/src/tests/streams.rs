//! The seen-set and the positions of streams.

use proptest::prelude::*;

use super::*;

fn stream() -> Uuid {
    Uuid::from_u128(500)
}

fn digest(seq: u64) -> Digest {
    Digest::of(&seq.to_be_bytes())
}

fn arrive(desk: &mut Desk, seq: u64) -> Position {
    desk.write(|tx| tx.note_position(&node("devbox"), stream(), seq, digest(seq))).unwrap()
}

fn gaps(desk: &Desk) -> Vec<(u64, u64)> {
    let mut gaps: Vec<_> =
        desk.ledger.open_gaps(now()).unwrap().iter().map(|gap| (gap.first, gap.last)).collect();
    gaps.sort_unstable();
    gaps
}

#[test]
fn positions_in_order_leave_no_gap() {
    let mut desk = desk();
    assert_eq!([1, 2, 3].map(|seq| arrive(&mut desk, seq)), [Position::InOrder; 3]);
    assert_eq!(gaps(&desk), []);
}

#[test]
fn what_comes_late_fills_its_gap_from_either_side_and_in_the_middle() {
    let mut desk = desk();
    assert_eq!(arrive(&mut desk, 1), Position::InOrder);
    assert_eq!(arrive(&mut desk, 7), Position::Gap { missing_from: 2 });
    assert_eq!(gaps(&desk), [(2, 6)]);
    assert_eq!(arrive(&mut desk, 4), Position::Late);
    assert_eq!(gaps(&desk), [(2, 3), (5, 6)]);
    assert_eq!([2, 6].map(|seq| arrive(&mut desk, seq)), [Position::Late; 2]);
    assert_eq!(gaps(&desk), [(3, 3), (5, 5)]);
    assert_eq!([3, 5].map(|seq| arrive(&mut desk, seq)), [Position::Late; 2]);
    assert_eq!(gaps(&desk), []);
}

#[test]
fn a_position_used_twice_is_a_fork_and_the_same_message_is_not() {
    let mut desk = desk();
    assert_eq!(arrive(&mut desk, 1), Position::InOrder);
    assert_eq!(arrive(&mut desk, 1), Position::Known);
    let other = desk.write(|tx| tx.note_position(&node("devbox"), stream(), 1, digest(99))).unwrap();
    assert_eq!(other, Position::Fork);
    let elsewhere = desk.write(|tx| tx.note_position(&node("other"), stream(), 1, digest(99))).unwrap();
    assert_eq!(elsewhere, Position::InOrder);
}

#[test]
fn an_accepted_gap_is_no_longer_open_and_still_lets_late_ones_in() {
    let mut desk = desk();
    assert_eq!(arrive(&mut desk, 3), Position::Gap { missing_from: 1 });
    assert_eq!(desk.write(|tx| tx.accept_gaps(&node("devbox"), None)).unwrap(), 1);
    assert_eq!(gaps(&desk), []);
    assert_eq!(arrive(&mut desk, 1), Position::Late);
    assert_eq!(gaps(&desk), []);
}

#[test]
fn a_gap_is_open_only_when_it_is_old_enough() {
    let mut desk = desk();
    assert_eq!(arrive(&mut desk, 2), Position::Gap { missing_from: 1 });
    assert_eq!(desk.ledger.open_gaps(now().plus_ms(-1)).unwrap(), []);
    let gap = desk.ledger.open_gaps(now()).unwrap().remove(0);
    assert_eq!(gap.reported_at, None);
    desk.write(|tx| tx.mark_gap_reported(&gap)).unwrap();
    assert_eq!(desk.ledger.open_gaps(now()).unwrap()[0].reported_at, Some(now()));
}

#[test]
fn a_seen_key_is_never_taken_again_and_forgetting_is_remembered() {
    let mut desk = desk();
    let kept = |at: Timestamp| Seen { digest: digest(1), until: Some(at) };
    let for_ever = Seen { digest: digest(2), until: None };
    desk.write(|tx| {
        tx.insert_seen(&key(1), kept(now()))?;
        tx.insert_seen(&key(2), kept(now().plus_ms(1)))?;
        tx.insert_seen(&key(3), for_ever)
    })
    .unwrap();
    let again = desk.write(|tx| tx.insert_seen(&key(1), for_ever));
    assert!(matches!(again, Err(LedgerError::KnownTask { key: known }) if known == key(1)));
    assert_eq!(desk.ledger.seen(&key(1)).unwrap(), Some(kept(now())));
    assert_eq!(desk.ledger.meta().unwrap().forgotten_until, None);
    assert_eq!(desk.write(|tx| tx.purge_seen(now())).unwrap(), 1);
    assert_eq!(desk.ledger.meta().unwrap().forgotten_until, Some(now()));
    assert_eq!(desk.ledger.seen(&key(1)).unwrap(), None);
    assert_eq!(desk.write(|tx| tx.purge_seen(now().plus_ms(-5))).unwrap(), 0);
    assert_eq!(desk.ledger.meta().unwrap().forgotten_until, Some(now()));
    assert_eq!(desk.ledger.seen(&key(3)).unwrap(), Some(for_ever));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the order of arrival, the open gaps are exactly the positions below the highest that did not come.
    #[test]
    fn open_gaps_are_what_is_missing(seqs in proptest::collection::vec(1..20_u64, 1..30)) {
        let mut desk = desk();
        let mut came = std::collections::BTreeSet::new();
        for seq in seqs {
            let position = arrive(&mut desk, seq);
            prop_assert_eq!(position == Position::Known, !came.insert(seq));
        }
        let highest = came.last().copied().unwrap_or(0);
        let missing: Vec<u64> = (1..highest).filter(|seq| !came.contains(seq)).collect();
        let open: Vec<u64> = gaps(&desk).into_iter().flat_map(|(first, last)| first..=last).collect();
        prop_assert_eq!(open, missing);
    }
}
