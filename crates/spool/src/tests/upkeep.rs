use std::fs;
use std::time::Duration;

use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::time::Timestamp;

use super::{Tree, id};
use crate::layout::{Hex16, LaneFile, TmpName};
use crate::upkeep::{archive_done_beyond, find_result, remove_leftovers, trim_evidence_to};
use crate::{Area, Dir, File, Share};

const HOUR: Duration = Duration::from_secs(3_600);

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap())
}

#[test]
fn only_old_leftovers_of_my_own_are_removed() {
    let tree = Tree::new();
    let leftover = |node: &str, number| {
        let node = NodeName::new(node).unwrap();
        let random = Hex16::from_number(number);
        let tmp = TmpName { of: format!("{}.json", id(1)), node, pid: 1, random };
        let file = File::in_lane(&tree.lane, LaneFile::Tmp(tmp));
        tree.put(&file, b"half");
        file
    };
    let (old, young, other) = (leftover("b", 1), leftover("b", 2), leftover("a", 3));
    tree.age(&old, HOUR * 25);
    tree.age(&young, HOUR * 23);
    tree.age(&other, HOUR * 25);
    let tmp = Dir::lane(&tree.lane, Area::Tmp);
    fs::write(tree.dir(&tmp).join("stranger"), b"x").unwrap();
    let removed = remove_leftovers(&tree.share, &tmp, tree.share.node(), now()).unwrap();
    assert_eq!(removed, 1);
    assert_eq!(tree.names(&tmp), [other.name(), young.name(), "stranger".to_owned()]);
}

#[test]
fn evidence_goes_oldest_first_until_both_limits_hold() {
    let tree = Tree::new();
    let evidence: Vec<File> = (1..=4)
        .map(|number| {
            let file = File::inbox(&tree.lane, id(number)).evidence(Hex16::from_number(1)).unwrap();
            tree.put(&file, b"0123456789");
            tree.age(&file, HOUR * (10 - u32::try_from(number).unwrap()));
            file
        })
        .collect();
    let rejected = Dir::lane(&tree.lane, Area::Rejected);
    assert_eq!(trim_evidence_to(&tree.share, &rejected, 4, 40).unwrap(), 0);
    assert_eq!(trim_evidence_to(&tree.share, &rejected, 3, 40).unwrap(), 1);
    assert!(!tree.path(&evidence[0]).exists());
    assert_eq!(trim_evidence_to(&tree.share, &rejected, 3, 15).unwrap(), 2);
    assert_eq!(tree.names(&rejected), [evidence[3].name()]);
}

#[test]
fn the_archive_takes_old_finished_tasks_beyond_the_newest() {
    let tree = Tree::new();
    for number in 1..=4 {
        for file in [File::done(&tree.lane, id(number)), File::log(&tree.lane, id(number))] {
            tree.put(&file, b"x");
        }
        let result = File::result(&tree.lane, id(number));
        if number != 4 {
            tree.put(&result, format!("result {number}").as_bytes());
            tree.age(&result, HOUR * 24 * (10 - u32::try_from(number).unwrap()));
        }
    }
    let young = File::result(&tree.lane, id(5));
    tree.put(&young, b"young");
    assert_eq!(archive_done_beyond(&tree.share, &tree.lane, now(), 5).unwrap(), 0);
    assert_eq!(archive_done_beyond(&tree.share, &tree.lane, now(), 2).unwrap(), 2);
    for number in 1..=5 {
        let found = find_result(&tree.share, &tree.lane, id(number), 100).unwrap();
        let there = tree.path(&File::result(&tree.lane, id(number))).exists();
        match number {
            1 | 2 => assert_eq!((found, there), (Some(format!("result {number}").into_bytes()), false)),
            4 => assert_eq!((found, there), (None, false)),
            _ => assert!(found.is_some() && there),
        }
    }
    assert_eq!(archive_done_beyond(&tree.share, &tree.lane, now(), 0).unwrap(), 1);
    assert!(tree.path(&young).exists(), "it is younger than a day");
    assert_eq!(tree.share.list(&Dir::lane(&tree.lane, Area::Done), 100).unwrap().strangers, 0);
}
