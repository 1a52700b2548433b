use std::fs;
use std::os::unix::fs::symlink;

use uuid::Uuid;

use super::{CLUSTER, Tree, fifo};
use crate::killswitch::{KILLSWITCH_BYTES_MAX, local};
use crate::root::{look, publish_cluster, read_cluster};
use crate::{
    Dir, ErrorKind, File, Published, RootLook, RootSeen, Share, TreeAccess, Trip, TripMode, Unreachable,
    create_directories,
};

fn ready() -> Tree {
    let tree = Tree::new();
    assert_eq!(publish_cluster(&tree.share, CLUSTER).unwrap(), Published::Created);
    tree
}

fn seen(tree: &Tree) -> RootSeen {
    match look(&tree.share, CLUSTER, std::slice::from_ref(&tree.lane)) {
        RootLook::Reachable(seen) => seen,
        RootLook::Unreachable(why) => panic!("{why}"),
    }
}

fn unreachable(tree: &Tree) -> Unreachable {
    match look(&tree.share, CLUSTER, std::slice::from_ref(&tree.lane)) {
        RootLook::Reachable(seen) => panic!("{seen:?}"),
        RootLook::Unreachable(why) => why,
    }
}

fn tripped(mode: TripMode, reason: &str) -> Option<Trip> {
    Some(Trip { mode, reason: reason.to_owned() })
}

#[test]
fn a_share_with_our_cluster_and_lanes_is_reachable_and_stops_nothing() {
    let tree = ready();
    let seen = seen(&tree);
    assert_eq!((seen.killswitch.clone(), seen.stops(&tree.lane)), (None, None));
    assert_eq!(read_cluster(&tree.share).unwrap(), Some(CLUSTER));
}

#[test]
fn a_share_without_our_cluster_is_unreachable_whatever_else_it_holds() {
    let tree = Tree::new();
    tree.put(&File::Killswitch, b"");
    assert!(matches!(unreachable(&tree), Unreachable::NoCluster));
    assert_eq!(read_cluster(&tree.share).unwrap(), None);
    tree.put(&File::Cluster, format!("{}\n", Uuid::from_u128(7)).as_bytes());
    assert!(matches!(unreachable(&tree), Unreachable::OtherCluster { found: Some(_) }));
    tree.put(&File::Cluster, b"something");
    assert!(matches!(unreachable(&tree), Unreachable::OtherCluster { found: None }));
    assert!(matches!(read_cluster(&tree.share).unwrap_err().kind, ErrorKind::Conflict(_)));
    fs::remove_file(tree.path(&File::Cluster)).unwrap();
    fs::create_dir(tree.path(&File::Cluster)).unwrap();
    assert!(matches!(unreachable(&tree), Unreachable::OtherCluster { found: None }));
}

#[test]
fn a_missing_lane_or_root_is_unreachable() {
    let tree = ready();
    fs::rename(tree.share.root().join("a-to-b"), tree.share.root().join("moved")).unwrap();
    assert!(matches!(unreachable(&tree), Unreachable::NoLane { .. }));
    symlink(tree.share.root().join("moved"), tree.share.root().join("a-to-b")).unwrap();
    assert!(matches!(unreachable(&tree), Unreachable::Failed(_)));
    fs::rename(tree.share.root(), tree.share.root().with_extension("away")).unwrap();
    assert!(matches!(unreachable(&tree), Unreachable::Failed(_)));
}

#[test]
fn a_killswitch_in_any_form_is_a_trip() {
    let tree = ready();
    let path = tree.path(&File::Killswitch);
    fs::write(&path, b"too hot\nmore\n").unwrap();
    assert_eq!(seen(&tree).killswitch, tripped(TripMode::Halt, "too hot"));
    fs::write(&path, b"kill\nfire\n").unwrap();
    assert_eq!(seen(&tree).killswitch, tripped(TripMode::Kill, "fire"));
    fs::write(&path, b"").unwrap();
    assert_eq!(seen(&tree).killswitch, tripped(TripMode::Halt, ""));
    fs::write(&path, b"\xff\xfe").unwrap();
    assert_eq!(seen(&tree).killswitch.unwrap().mode, TripMode::Halt);
    fs::remove_file(&path).unwrap();
    for plant in [|path: &std::path::PathBuf| fs::create_dir(path).unwrap(), fifo] {
        plant(&path);
        assert_eq!(seen(&tree).killswitch, Some(Trip::unreadable()));
        fs::remove_dir(&path).or_else(|_| fs::remove_file(&path)).unwrap();
    }
    symlink("nowhere", &path).unwrap();
    assert_eq!(seen(&tree).killswitch, Some(Trip::unreadable()));
}

#[test]
fn a_huge_killswitch_is_read_only_at_its_beginning() {
    let tree = ready();
    let mut text = b"kill\n".to_vec();
    text.resize(usize::try_from(KILLSWITCH_BYTES_MAX).unwrap() * 4, b'x');
    fs::write(tree.path(&File::Killswitch), text).unwrap();
    let trip = seen(&tree).killswitch.unwrap();
    assert_eq!(trip.mode, TripMode::Kill);
    assert!(trip.reason.len() < usize::try_from(KILLSWITCH_BYTES_MAX).unwrap());
}

#[test]
fn a_lane_is_stopped_by_its_own_killswitch_and_the_harder_of_two_counts() {
    let tree = ready();
    tree.put(&File::lane_killswitch(&tree.lane), b"this lane");
    let only_lane = seen(&tree);
    assert_eq!(only_lane.killswitch, None);
    assert_eq!(only_lane.stops(&tree.lane).unwrap().reason, "this lane");
    assert_eq!(only_lane.stops(&tree.lane.reversed()), None);
    tree.put(&File::Killswitch, b"kill\nall");
    assert_eq!(seen(&tree).stops(&tree.lane).unwrap().mode, TripMode::Kill);
}

#[test]
fn a_killswitch_on_the_own_disk_is_seen_in_any_form() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("KILLSWITCH");
    assert_eq!(local(&path), None);
    fs::write(&path, b"kill\nnow").unwrap();
    assert_eq!(local(&path), tripped(TripMode::Kill, "now"));
    fs::remove_file(&path).unwrap();
    for plant in [|path: &std::path::PathBuf| fs::create_dir(path).unwrap(), fifo] {
        plant(&path);
        assert_eq!(local(&path), Some(Trip::unreadable()));
        fs::remove_dir(&path).or_else(|_| fs::remove_file(&path)).unwrap();
    }
    symlink("nowhere", &path).unwrap();
    assert_eq!(local(&path), Some(Trip::unreadable()));
}

#[test]
fn making_the_tree_again_adds_only_what_is_missing() {
    let tree = ready();
    tree.put(&File::Killswitch, b"stays");
    fs::remove_dir(tree.dir(&Dir::Metrics)).unwrap();
    create_directories(tree.share.root(), std::slice::from_ref(&tree.lane), TreeAccess::Owner).unwrap();
    assert!(tree.share.list(&Dir::Metrics, 1).is_ok());
    assert_eq!(seen(&tree).killswitch, tripped(TripMode::Halt, "stays"));
    assert_eq!(publish_cluster(&tree.share, CLUSTER).unwrap(), Published::AlreadyPresent);
    assert!(matches!(
        publish_cluster(&tree.share, Uuid::from_u128(7)).unwrap_err().kind,
        ErrorKind::Conflict(_)
    ));
    fs::remove_dir(tree.dir(&Dir::Metrics)).unwrap();
    symlink("/", tree.dir(&Dir::Metrics)).unwrap();
    assert!(create_directories(tree.share.root(), &[], TreeAccess::Owner).is_err());
}
