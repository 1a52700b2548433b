//! What holds paid work back, as the ledger keeps it.

use super::*;

#[test]
fn paid_requests_are_counted_by_sender_and_content_until_they_are_forgotten() {
    let mut desk = desk();
    let (sender, content) = (node("devbox"), Digest::of(b"same"));
    for _ in 0..2 {
        desk.write(|tx| tx.note_paid_request(&sender, content)).unwrap();
    }
    desk.write(|tx| tx.note_paid_request(&sender, Digest::of(b"other"))).unwrap();
    let count = |desk: &Desk, sender: &NodeName| desk.ledger.same_requests(sender, content, now()).unwrap();
    assert_eq!((count(&desk, &sender), count(&desk, &node("other"))), (2, 0));
    assert_eq!(desk.write(|tx| tx.purge_paid_requests(now())).unwrap(), 0);
    assert_eq!(desk.write(|tx| tx.purge_paid_requests(now().plus_ms(1))).unwrap(), 3);
    assert_eq!(count(&desk, &sender), 0);
}
