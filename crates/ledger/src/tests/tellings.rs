//! What people are told, and how outcomes are counted.

use super::*;

#[test]
fn a_thing_is_told_once_and_too_many_are_dropped() {
    let mut desk = desk();
    let make =
        |desk: &mut Desk, name: &str| desk.write(|tx| tx.make_telling("waiting", name, "{}", 2)).unwrap();
    assert_eq!(make(&mut desk, "a"), Made::Due);
    assert_eq!(make(&mut desk, "a"), Made::Known);
    assert_eq!(make(&mut desk, "b"), Made::Due);
    assert_eq!(make(&mut desk, "c"), Made::Dropped);
    assert_eq!(make(&mut desk, "c"), Made::Known);
    let open = desk.ledger.open_tellings().unwrap();
    assert_eq!(open.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    desk.write(|tx| tx.take_telling(open[0].n)).unwrap();
    assert!(desk.ledger.open_tellings().unwrap()[0].taken_at.is_some());
    desk.write(|tx| tx.end_telling(open[0].n)).unwrap();
    assert_eq!(desk.ledger.open_tellings().unwrap().len(), 1);
    assert_eq!(make(&mut desk, "a"), Made::Known);
    assert_eq!(desk.write(|tx| tx.purge_tellings(now().plus_ms(DAY_MS))).unwrap(), 2);
    assert_eq!(make(&mut desk, "a"), Made::Due);
}

#[test]
fn a_peer_that_was_told_to_be_gone_is_known_until_it_was_told_to_be_back() {
    let mut desk = desk();
    desk.write(|tx| tx.make_telling("peer_dead", "b/1.2", "{}", 9)).map(drop).unwrap();
    let gone = desk.ledger.told_gone("peer_dead", "peer_alive").unwrap();
    assert_eq!(
        gone.iter().map(|(peer, name)| (peer.as_str(), name.as_str())).collect::<Vec<_>>(),
        [("b", "b/1.2")]
    );
    desk.write(|tx| tx.make_telling("peer_alive", "b/1.2", "{}", 9)).map(drop).unwrap();
    assert_eq!(desk.ledger.told_gone("peer_dead", "peer_alive").unwrap(), []);
}
