use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Barrier;
use std::thread;

use dispatch_core::protocol::names::Digest;

use super::{Tree, fifo, id};
use crate::{Area, Dir, Disposition, EntryKind, ErrorKind, File, Op, Published, Share, Standing};

#[test]
fn publishing_the_same_bytes_again_is_no_second_message() {
    let tree = Tree::new();
    let file = File::inbox(&tree.lane, id(1));
    assert_eq!(tree.share.publish_once(&file, b"task").unwrap(), Published::Created);
    assert_eq!(tree.share.publish_once(&file, b"task").unwrap(), Published::AlreadyPresent);
    assert_eq!(tree.share.read(&file, 100).unwrap(), b"task");
    assert_eq!(tree.names(&Dir::lane(&tree.lane, Area::Tmp)), Vec::<String>::new());
    assert_eq!(fs::metadata(tree.path(&file)).unwrap().nlink(), 1);
}

#[test]
fn other_bytes_at_the_name_are_a_conflict_that_says_what_stands_there() {
    let tree = Tree::new();
    let file = |number| File::inbox(&tree.lane, id(number));
    tree.put(&file(1), b"other");
    tree.put(&file(2), b"much longer than mine");
    fs::create_dir(tree.path(&file(3))).unwrap();
    fifo(&tree.path(&file(4)));
    symlink("nowhere", tree.path(&file(5))).unwrap();
    let cases = [
        (1, Standing::Bytes { bytes: 5, digest: Some(Digest::of(b"other")) }),
        (2, Standing::Bytes { bytes: 21, digest: None }),
        (3, Standing::NotRegular(EntryKind::Directory)),
        (4, Standing::NotRegular(EntryKind::Special)),
        (5, Standing::NotRegular(EntryKind::Symlink)),
    ];
    for (number, standing) in cases {
        let error = tree.share.publish_once(&file(number), b"my bytes").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict(standing));
        assert_eq!((error.op, error.disposition()), (Op::Publish, Disposition::Quarantine));
    }
    assert_eq!(fs::read(tree.path(&file(1))).unwrap(), b"other");
    assert_eq!(tree.names(&Dir::lane(&tree.lane, Area::Tmp)), Vec::<String>::new());
}

#[test]
fn a_symlink_to_my_own_bytes_is_still_a_conflict() {
    let tree = Tree::new();
    let file = File::inbox(&tree.lane, id(1));
    let elsewhere = tree.share.root().join("elsewhere");
    fs::write(&elsewhere, b"task").unwrap();
    symlink(&elsewhere, tree.path(&file)).unwrap();
    let error = tree.share.publish_once(&file, b"task").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict(Standing::NotRegular(EntryKind::Symlink)));
}

#[test]
fn of_racing_publishers_one_makes_the_file_and_all_know_it() {
    let tree = Tree::new();
    let barrier = Barrier::new(8);
    for round in 0..20 {
        let file = File::inbox(&tree.lane, id(round));
        let answers: Vec<bool> = thread::scope(|scope| {
            let publishers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        tree.share.publish_once(&file, b"same").unwrap() == Published::Created
                    })
                })
                .collect();
            publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|created| **created).count(), 1);
    }
}

#[test]
fn of_racing_messages_exactly_one_stands_and_the_others_are_told() {
    let tree = Tree::new();
    let barrier = Barrier::new(8);
    let file = File::result(&tree.lane, id(1));
    let won: Vec<u8> = thread::scope(|scope| {
        let publishers: Vec<_> = (0..8_u8)
            .map(|number| {
                let (tree, file, barrier) = (&tree, &file, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    match tree.share.publish_once(file, &[number]) {
                        Ok(Published::Created) => Some(number),
                        Ok(Published::AlreadyPresent) => panic!("these are not my bytes"),
                        Err(error) => {
                            assert!(matches!(error.kind, ErrorKind::Conflict(Standing::Bytes { .. })));
                            None
                        }
                    }
                })
            })
            .collect();
        publishers.into_iter().filter_map(|publisher| publisher.join().unwrap()).collect()
    });
    assert_eq!(won.len(), 1);
    assert_eq!(tree.share.read(&file, 1).unwrap(), won);
}

#[test]
fn many_files_are_answered_one_by_one() {
    let tree = Tree::new();
    tree.put(&File::inbox(&tree.lane, id(2)), b"other");
    tree.put(&File::done(&tree.lane, id(3)), b"3");
    let files = [
        (File::inbox(&tree.lane, id(1)), b"1".to_vec()),
        (File::inbox(&tree.lane, id(2)), b"2".to_vec()),
        (File::done(&tree.lane, id(3)), b"3".to_vec()),
        (File::Heartbeat(tree.share.node().clone()), b"4".to_vec()),
    ];
    let answers = tree.share.publish_many(&files);
    let words: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Ok(Published::Created) => "created",
            Ok(Published::AlreadyPresent) => "present",
            Err(_) => "failed",
        })
        .collect();
    assert_eq!(words, ["created", "failed", "present", "created"]);
}

#[test]
fn replacing_takes_the_place_of_files_but_not_of_directories() {
    let tree = Tree::new();
    let file = File::terms(&tree.lane, id(1));
    tree.share.replace(&file, b"one").unwrap();
    tree.share.replace(&file, b"two").unwrap();
    assert_eq!(tree.share.read(&file, 10).unwrap(), b"two");
    fs::remove_file(tree.path(&file)).unwrap();
    symlink("nowhere", tree.path(&file)).unwrap();
    tree.share.replace(&file, b"three").unwrap();
    assert_eq!(tree.share.read(&file, 10).unwrap(), b"three");
    fs::remove_file(tree.path(&file)).unwrap();
    fs::create_dir(tree.path(&file)).unwrap();
    let error = tree.share.replace(&file, b"four").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict(Standing::NotRegular(EntryKind::Directory)));
    assert_eq!(tree.names(&Dir::lane(&tree.lane, Area::Tmp)), Vec::<String>::new());
}

#[test]
fn a_file_is_readable_for_whom_its_directory_is() {
    let tree = Tree::new();
    let mode = |file: &File| fs::metadata(tree.path(file)).unwrap().permissions().mode() & 0o777;
    let private = File::inbox(&tree.lane, id(1));
    assert_eq!(tree.share.publish_once(&private, b"x").unwrap(), Published::Created);
    assert_eq!(mode(&private), 0o600);
    let inbox = tree.dir(&Dir::lane(&tree.lane, Area::Inbox));
    fs::set_permissions(inbox, fs::Permissions::from_mode(0o2770)).unwrap();
    let shared = File::inbox(&tree.lane, id(2));
    assert_eq!(tree.share.publish_once(&shared, b"x").unwrap(), Published::Created);
    assert_eq!(mode(&shared), 0o640);
}

#[test]
fn a_lost_tmp_directory_is_an_unreachable_share() {
    let tree = Tree::new();
    fs::remove_dir(tree.dir(&Dir::lane(&tree.lane, Area::Tmp))).unwrap();
    let error = tree.share.publish_once(&File::inbox(&tree.lane, id(1)), b"x").unwrap_err();
    assert_eq!((error.kind, error.disposition()), (ErrorKind::Unreachable, Disposition::Halt));
}
