use std::fs;
use std::os::unix::fs::symlink;

use dispatch_core::protocol::names::Digest;

use super::{Tree, fifo, id};
use crate::{
    Area, Dir, Disposition, EntryKind, ErrorKind, File, FileSystem, ListingEnd, MountFacts, Place, Share,
    Strategy, strategy_for,
};

#[test]
fn a_file_up_to_the_limit_is_read_and_a_larger_one_refused_unread() {
    let tree = Tree::new();
    let file = File::inbox(&tree.lane, id(1));
    tree.put(&file, b"12345");
    assert_eq!(tree.share.read(&file, 5).unwrap(), b"12345");
    let error = tree.share.read(&file, 4).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge { bytes: 5, limit: 4 });
    assert_eq!(error.disposition(), Disposition::Quarantine);
    // Sparse, so that reading it would be noticed by nothing but time and memory.
    let huge = fs::File::create(tree.path(&file)).unwrap();
    huge.set_len(1 << 40).unwrap();
    let error = tree.share.read(&file, 1024).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge { bytes: 1 << 40, limit: 1024 });
}

#[test]
fn only_regular_files_are_read() {
    let tree = Tree::new();
    let secret = tree.share.root().join("secret");
    fs::write(&secret, b"secret").unwrap();
    let cases = [(1, EntryKind::Symlink), (2, EntryKind::Special), (3, EntryKind::Directory)];
    let file = |number| File::inbox(&tree.lane, id(number));
    symlink(&secret, tree.path(&file(1))).unwrap();
    fifo(&tree.path(&file(2)));
    fs::create_dir(tree.path(&file(3))).unwrap();
    for (number, kind) in cases {
        let error = tree.share.read(&file(number), 1024).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotRegular(kind));
        assert_eq!(error.disposition(), Disposition::Quarantine);
        let mut sink = Vec::new();
        let error = tree.share.copy_in(&file(number), 1024, &mut sink).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotRegular(kind));
    }
}

#[test]
fn a_planted_symlink_to_a_directory_redirects_nothing() {
    let tree = Tree::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let inbox = Dir::lane(&tree.lane, Area::Inbox);
    let file = File::inbox(&tree.lane, id(1));
    fs::write(elsewhere.path().join(file.name()), b"planted").unwrap();
    fs::remove_dir(tree.dir(&inbox)).unwrap();
    symlink(elsewhere.path(), tree.dir(&inbox)).unwrap();
    assert_eq!(tree.share.read(&file, 1024).unwrap_err().kind, ErrorKind::Unreachable);
    assert_eq!(tree.share.list(&inbox, 10).unwrap_err().kind, ErrorKind::Unreachable);
    let other = File::inbox(&tree.lane, id(2));
    assert_eq!(tree.share.publish_once(&other, b"x").unwrap_err().disposition(), Disposition::Halt);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[test]
fn an_absent_file_is_absent_and_an_absent_directory_unreachable() {
    let tree = Tree::new();
    let file = File::inbox(&tree.lane, id(1));
    assert_eq!(tree.share.read(&file, 1).unwrap_err().kind, ErrorKind::Absent);
    assert_eq!(tree.share.stat(&file).unwrap_err().kind, ErrorKind::Absent);
    fs::remove_dir_all(tree.share.root()).unwrap();
    assert_eq!(tree.share.read(&file, 1).unwrap_err().kind, ErrorKind::Unreachable);
    assert_eq!(tree.share.free_space().unwrap_err().kind, ErrorKind::Unreachable);
}

#[test]
fn a_share_that_comes_back_is_seen_again() {
    let tree = Tree::new();
    let away = tree.share.root().with_extension("away");
    fs::rename(tree.share.root(), &away).unwrap();
    assert!(tree.share.list(&Dir::Root, 10).is_err());
    fs::rename(&away, tree.share.root()).unwrap();
    assert!(tree.share.list(&Dir::Root, 10).is_ok());
}

#[test]
fn a_listing_tells_types_counts_strangers_and_says_when_it_was_cut() {
    let tree = Tree::new();
    let inbox = Dir::lane(&tree.lane, Area::Inbox);
    tree.put(&File::inbox(&tree.lane, id(1)), b"x");
    fs::create_dir(tree.path(&File::inbox(&tree.lane, id(2)))).unwrap();
    fs::write(tree.dir(&inbox).join("notes.txt"), b"x").unwrap();
    let listing = tree.share.list(&inbox, 10).unwrap();
    let mut found: Vec<_> = listing.files().map(|(file, kind)| (file.task().unwrap(), kind)).collect();
    found.sort_by_key(|(id, _)| *id);
    assert_eq!(found, [(id(1), EntryKind::Regular), (id(2), EntryKind::Directory)]);
    assert_eq!((listing.strangers, listing.end), (1, ListingEnd::Reached));
    assert_eq!(tree.share.list(&inbox, 3).unwrap().end, ListingEnd::Reached);
    assert_eq!(tree.share.list(&inbox, 2).unwrap().end, ListingEnd::Limit);
}

#[test]
fn a_part_of_a_file_says_how_long_the_whole_is() {
    let tree = Tree::new();
    let log = File::log(&tree.lane, id(1));
    tree.put(&log, b"0123456789");
    let part = tree.share.read_part(&log, 7, 100).unwrap();
    assert_eq!((part.bytes.as_slice(), part.length), (b"789".as_slice(), 10));
    assert_eq!(tree.share.read_part(&log, 10, 5).unwrap().bytes, b"");
    assert_eq!(tree.share.read_part(&log, 0, 2).unwrap().bytes, b"01");
}

#[test]
fn copies_are_digested_and_limited_on_the_way() {
    let tree = Tree::new();
    let artifact = File::artifact(&tree.lane, Digest::of(b"abc"));
    let copied = tree.share.copy_out(&mut b"abc".as_slice(), 3, &artifact).unwrap();
    assert_eq!((copied.bytes, copied.digest), (3, Digest::of(b"abc")));
    let mut local = Vec::new();
    assert_eq!(tree.share.copy_in(&artifact, 3, &mut local).unwrap(), copied);
    assert_eq!(local, b"abc");
    let error = tree.share.copy_in(&artifact, 2, &mut local).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge { bytes: 3, limit: 2 });
    let other = File::artifact(&tree.lane, Digest::of(b"abcd"));
    let error = tree.share.copy_out(&mut b"abcd".as_slice(), 3, &other).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge { bytes: 4, limit: 3 });
    assert_eq!(tree.names(&Dir::lane(&tree.lane, Area::Artifacts)).len(), 1);
    assert_eq!(tree.names(&Dir::lane(&tree.lane, Area::Tmp)), Vec::<String>::new());
}

#[test]
fn a_log_is_mirrored_at_its_end_and_never_into_something_else() {
    let tree = Tree::new();
    let log = File::log(&tree.lane, id(1));
    for part in ["one ", "two"] {
        tree.share.mirror(&log).unwrap().write_all(part.as_bytes()).unwrap();
    }
    assert_eq!(fs::read(tree.path(&log)).unwrap(), b"one two");
    let planted = File::log(&tree.lane, id(2));
    fifo(&tree.path(&planted));
    let error = tree.share.mirror(&planted).err().unwrap();
    assert_eq!(error.kind, ErrorKind::NotRegular(EntryKind::Special));
    let audit = File::AuditCopy(tree.share.node().clone());
    assert_eq!(tree.share.append_own(&audit, b"a\n").unwrap(), 2);
    assert_eq!(tree.share.append_own(&audit, b"b\n").unwrap(), 4);
}

#[test]
fn a_directory_is_stamped_anew_by_every_change() {
    let tree = Tree::new();
    let inbox = Dir::lane(&tree.lane, Area::Inbox);
    let before = tree.share.stamp(&inbox).unwrap();
    assert_eq!(tree.share.stamp(&inbox).unwrap(), before);
    let file = File::inbox(&tree.lane, id(1));
    // The clock of a file system may stand still for some milliseconds, so the change is repeated until it shows.
    let changed = (0..100_000).any(|_| {
        tree.put(&file, b"x");
        fs::remove_file(tree.path(&file)).unwrap();
        tree.share.stamp(&inbox).unwrap() != before
    });
    assert!(changed);
    let space = tree.share.free_space().unwrap();
    assert!(space.free_bytes > 0 && space.free_bytes <= space.total_bytes);
}

#[test]
fn only_a_known_local_file_system_is_watched() {
    let strategy =
        |number| strategy_for(&MountFacts { file_system: FileSystem::from_type(number), device: 1 });
    for number in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630] {
        assert_eq!(strategy(number), Strategy::Inotify, "{number:x}");
    }
    for number in [0x6969, 0xFE53_4D42, 0xFF53_4D42, 0x6573_5546, 0x00C3_6400, 0x0102_1997, 0x1234] {
        assert_eq!(strategy(number), Strategy::Poll, "{number:x}");
    }
    let tree = Tree::new();
    let facts = tree.share.facts().unwrap();
    assert_eq!(MountFacts::of(tree.share.root()).unwrap(), facts);
    assert_ne!(facts.file_system.place(), Place::Network);
}
