use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use super::{Tree, id};
use crate::{Area, Dir, File, Hints, Published, Share};

const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn the_bell_rings_for_what_is_published_moved_and_removed() {
    let tree = Tree::new();
    let (ring, rung) = mpsc::channel();
    let mut hints = Hints::new(move || ring.send(()).unwrap_or_default()).unwrap();
    hints.watch_dir(tree.share.root(), &Dir::lane(&tree.lane, Area::Inbox)).unwrap();
    let file = File::inbox(&tree.lane, id(1));
    assert_eq!(tree.share.publish_once(&file, b"x").unwrap(), Published::Created);
    rung.recv_timeout(DEADLINE).unwrap();
    while rung.try_recv().is_ok() {}
    fs::rename(tree.path(&file), tree.path(&File::processing(&tree.lane, id(1)))).unwrap();
    rung.recv_timeout(DEADLINE).unwrap();
}

#[test]
fn looking_rings_no_bell() {
    let tree = Tree::new();
    let inbox = Dir::lane(&tree.lane, Area::Inbox);
    let file = File::inbox(&tree.lane, id(1));
    tree.put(&file, b"x");
    let (ring, rung) = mpsc::channel();
    let mut hints = Hints::new(move || ring.send(()).unwrap_or_default()).unwrap();
    hints.watch_dir(tree.share.root(), &inbox).unwrap();
    for _ in 0..10 {
        assert_eq!(tree.share.list(&inbox, 10).unwrap().entries.len(), 1);
        assert_eq!(tree.share.read(&file, 10).unwrap(), b"x");
    }
    // The first ring is that of a change after all the looking; had a look rung, there would be more.
    fs::remove_file(tree.path(&file)).unwrap();
    rung.recv_timeout(DEADLINE).unwrap();
    assert_eq!(rung.try_iter().count(), 0);
}

#[test]
fn a_directory_that_is_not_there_cannot_be_watched() {
    let tree = Tree::new();
    let mut hints = Hints::new(|| {}).unwrap();
    assert!(hints.watch(&tree.share.root().join("none")).is_err());
}
