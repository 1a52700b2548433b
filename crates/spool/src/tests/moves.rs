use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use dispatch_core::protocol::names::Digest;

use super::{Tree, fifo, id};
use crate::layout::{Hex16, Month};
use crate::{Area, Dir, EntryKind, ErrorKind, Evidence, File, Moved, Removed, SetAside, Share, Standing};

#[test]
fn anything_at_a_name_is_set_aside_without_being_followed() {
    let tree = Tree::new();
    let secret = tree.share.root().join("secret");
    fs::write(&secret, b"secret").unwrap();
    let file = |number| File::inbox(&tree.lane, id(number));
    tree.put(&file(1), b"junk");
    symlink(&secret, tree.path(&file(2))).unwrap();
    fifo(&tree.path(&file(3)));
    fs::create_dir(tree.path(&file(4))).unwrap();
    fs::write(tree.path(&file(4)).join("within"), b"x").unwrap();
    fs::create_dir(tree.path(&file(5))).unwrap();
    fs::set_permissions(tree.path(&file(5)), fs::Permissions::from_mode(0o0)).unwrap();
    for number in 1..=5 {
        let SetAside::Moved { evidence } = tree.share.set_aside(&file(number), Evidence::Unread).unwrap()
        else {
            panic!("it is there")
        };
        assert_eq!(evidence.task(), Some(id(number)));
        assert_eq!(evidence.dir(), Dir::lane(&tree.lane, Area::Rejected));
        fs::symlink_metadata(tree.path(&evidence)).unwrap();
        assert_eq!(tree.share.set_aside(&file(number), Evidence::Unread).unwrap(), SetAside::Absent);
    }
    assert_eq!(tree.names(&Dir::lane(&tree.lane, Area::Inbox)), Vec::<String>::new());
    assert_eq!(fs::read(secret).unwrap(), b"secret");
}

#[test]
fn evidence_is_named_by_the_bytes_that_were_read() {
    let tree = Tree::new();
    let file = File::inbox(&tree.lane, id(1));
    tree.put(&file, b"junk");
    let digest = Digest::of(b"junk");
    let answer = tree.share.set_aside(&file, Evidence::Bytes(digest)).unwrap();
    let evidence = file.evidence(Hex16::of(&digest)).unwrap();
    assert_eq!(answer, SetAside::Moved { evidence: evidence.clone() });
    assert!(evidence.name().contains(&digest.hex16()));
    assert_eq!(tree.share.read(&evidence, 10).unwrap(), b"junk");
}

#[test]
fn a_directory_planted_at_the_evidence_name_does_not_keep_junk_in_its_place() {
    let tree = Tree::new();
    let file = File::inbox(&tree.lane, id(1));
    tree.put(&file, b"junk");
    let digest = Digest::of(b"junk");
    let foretold = file.evidence(Hex16::of(&digest)).unwrap();
    fs::create_dir(tree.path(&foretold)).unwrap();
    let answer = tree.share.set_aside(&file, Evidence::Bytes(digest)).unwrap();
    let SetAside::Moved { evidence } = answer else { panic!("it is there") };
    assert_ne!(evidence, foretold);
    assert!(!tree.path(&file).exists());
}

#[test]
fn a_file_outside_lanes_is_set_aside_in_the_root() {
    let tree = Tree::new();
    let heartbeat = File::Heartbeat(tree.share.node().clone());
    fs::create_dir(tree.path(&heartbeat)).unwrap();
    let answer = tree.share.set_aside(&heartbeat, Evidence::Unread).unwrap();
    assert!(matches!(answer, SetAside::Moved { evidence } if evidence.dir() == Dir::Rejected));
    let error = tree.share.set_aside(&File::Cluster, Evidence::Unread);
    assert_eq!(error.unwrap(), SetAside::Absent);
}

#[test]
fn removing_says_whether_there_was_something() {
    let tree = Tree::new();
    let file = File::inbox(&tree.lane, id(1));
    tree.put(&file, b"x");
    assert_eq!(tree.share.remove(&file).unwrap(), Removed::Removed);
    assert_eq!(tree.share.remove(&file).unwrap(), Removed::Absent);
    fs::create_dir(tree.path(&file)).unwrap();
    let error = tree.share.remove(&file).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotRegular(EntryKind::Directory));
}

#[test]
fn evidence_that_is_a_tree_is_removed_whole_and_its_symlinks_not_followed() {
    let tree = Tree::new();
    let kept = tree.share.root().join("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("file"), b"x").unwrap();
    let evidence = File::inbox(&tree.lane, id(1)).evidence(Hex16::from_number(1)).unwrap();
    let path = tree.path(&evidence);
    fs::create_dir_all(path.join("deep/deeper")).unwrap();
    fs::write(path.join("deep/file"), b"x").unwrap();
    symlink(&kept, path.join("deep/link")).unwrap();
    assert_eq!(tree.share.remove(&evidence).unwrap(), Removed::Removed);
    assert!(!path.exists());
    assert!(kept.join("file").exists());
}

#[test]
fn a_move_makes_the_archive_month_and_overwrites_nothing() {
    let tree = Tree::new();
    let month = Month::parse("2026-11").unwrap();
    let file = File::result(&tree.lane, id(1));
    let archived = file.archived(month).unwrap();
    assert_eq!(tree.share.move_to(&file, &archived).unwrap(), Moved::Absent);
    tree.put(&file, b"one");
    assert_eq!(tree.share.move_to(&file, &archived).unwrap(), Moved::Moved);
    assert_eq!(tree.share.read(&archived, 10).unwrap(), b"one");
    tree.put(&file, b"two");
    let error = tree.share.move_to(&file, &archived).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict(Standing::Bytes { bytes: 3, digest: None }));
    assert_eq!(tree.share.read(&archived, 10).unwrap(), b"one");
}
