use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::{Tree, id};
use crate::hint::Ear;
use crate::layout::Hex16;
use crate::{Area, Dir, File, Hints, Published, Rings, Share};

const DEADLINE: Duration = Duration::from_secs(10);

/// Events are queued by the call that makes them, so what was done before a look is in it.
fn ear(tree: &Tree, areas: &[Area]) -> Ear {
    let ear = Ear::new().unwrap();
    for area in areas {
        let dir = Dir::lane(&tree.lane, *area);
        ear.watch(&tree.share.root().join(dir.path()), Rings::of(&dir)).unwrap();
    }
    ear
}

#[test]
fn the_bell_rings_for_what_is_published_or_moved_in() {
    let tree = Tree::new();
    let (ring, rung) = mpsc::channel();
    let mut hints = Hints::new(move || ring.send(()).unwrap_or_default()).unwrap();
    hints.watch_dir(tree.share.root(), &Dir::lane(&tree.lane, Area::Inbox)).unwrap();
    let file = File::inbox(&tree.lane, id(1));
    assert_eq!(tree.share.publish_once(&file, b"x").unwrap(), Published::Created);
    rung.recv_timeout(DEADLINE).unwrap();
    while rung.try_recv().is_ok() {}
    let moved = File::processing(&tree.lane, id(2));
    tree.put(&moved, b"y");
    fs::rename(tree.path(&moved), tree.path(&File::inbox(&tree.lane, id(2)))).unwrap();
    rung.recv_timeout(DEADLINE).unwrap();
}

#[test]
fn dropping_the_hints_ends_their_thread() {
    let (ring, rung) = mpsc::channel::<()>();
    drop(Hints::new(move || ring.send(()).unwrap_or_default()).unwrap());
    assert_eq!(rung.recv_timeout(DEADLINE), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn a_killswitch_is_news_when_it_comes_changes_and_goes() {
    let tree = Tree::new();
    let ear = ear(&tree, &[Area::Top]);
    let file = tree.path(&File::lane_killswitch(&tree.lane));
    fs::write(&file, "halt").unwrap();
    assert!(ear.has_news());
    fs::write(&file, "kill").unwrap();
    assert!(ear.has_news());
    fs::remove_file(&file).unwrap();
    assert!(ear.has_news());
    assert!(!ear.has_news());
}

#[test]
fn what_the_node_itself_does_is_no_news() {
    let tree = Tree::new();
    let taken = File::inbox(&tree.lane, id(1));
    tree.put(&taken, b"x");
    let ear = ear(&tree, &[Area::Top, Area::Inbox, Area::PendingAck]);
    fs::remove_file(tree.path(&taken)).unwrap();
    tree.share.replace(&File::pending_summary(&tree.lane), b"{}").unwrap();
    tree.share.replace(&File::terms(&tree.lane, id(1)), b"{}").unwrap();
    assert_eq!(tree.share.publish_once(&File::pending(&tree.lane, id(1)), b"x").unwrap(), Published::Created);
    assert!(!ear.has_news());
    let decision = File::decision(&tree.lane, id(1), Hex16::from_number(7));
    assert_eq!(tree.share.publish_once(&decision, b"x").unwrap(), Published::Created);
    assert!(ear.has_news());
}

#[test]
fn looking_is_no_news() {
    let tree = Tree::new();
    let inbox = Dir::lane(&tree.lane, Area::Inbox);
    let file = File::inbox(&tree.lane, id(1));
    tree.put(&file, b"x");
    let ear = ear(&tree, &[Area::Inbox]);
    assert_eq!(tree.share.list(&inbox, 10).unwrap().entries.len(), 1);
    assert_eq!(tree.share.read(&file, 10).unwrap(), b"x");
    assert!(!ear.has_news());
}

#[test]
fn a_directory_that_goes_is_news() {
    let tree = Tree::new();
    let ear = ear(&tree, &[Area::Inbox]);
    fs::remove_dir(tree.share.root().join(Dir::lane(&tree.lane, Area::Inbox).path())).unwrap();
    assert!(ear.has_news());
}

#[test]
fn a_directory_that_is_not_there_cannot_be_watched() {
    let mut hints = Hints::new(|| {}).unwrap();
    assert!(hints.watch(Path::new("/proc/none"), Rings::Appearing).is_err());
}

#[test]
fn a_directory_that_is_watched_no_longer_is_no_news_whatever_becomes_of_it() {
    let tree = Tree::new();
    let (inbox, control) = (Dir::lane(&tree.lane, Area::Inbox), Dir::lane(&tree.lane, Area::Control));
    let ear = ear(&tree, &[Area::Inbox, Area::Control]);
    let path = tree.share.root().join(inbox.path());
    ear.unwatch(&path);
    ear.unwatch(&path);
    fs::write(path.join("x"), "x").unwrap();
    fs::remove_file(path.join("x")).unwrap();
    fs::remove_dir(&path).unwrap();
    assert!(!ear.has_news());
    fs::write(tree.share.root().join(control.path()).join("x"), "x").unwrap();
    assert!(ear.has_news());
}
