use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use dispatch_core::protocol::names::{Digest, Lane, NodeName};
use proptest::prelude::*;

use super::id;
use crate::layout::{EvidencePart, Hex16, LaneFile, Month, Name, TmpName};
use crate::{Area, Dir, File};

fn every_file() -> Vec<File> {
    let lane = Lane::parse("dev-box-to-gpu_box").unwrap();
    let node = NodeName::new("gpu_box").unwrap();
    let digest = Digest::of(b"x");
    let digest16 = Hex16::of(&digest);
    let month = Month::parse("2026-11").unwrap();
    let tmp =
        TmpName { of: "a.result.json".into(), node: node.clone(), pid: 7, random: Hex16::from_number(1) };
    let files = vec![
        File::Cluster,
        File::Killswitch,
        File::Heartbeat(node.clone()),
        File::Boot(node.clone(), 1_800_000_000),
        File::AuditCopy(node.clone()),
        File::Metrics(node),
        File::Tmp(tmp.clone()),
        File::lane_killswitch(&lane),
        File::pending_summary(&lane),
        File::in_lane(&lane, LaneFile::Tmp(tmp)),
        File::inbox(&lane, id(1)),
        File::attachment(&lane, digest),
        File::cancel(&lane, id(1)),
        File::pending(&lane, id(1)),
        File::terms(&lane, id(1)),
        File::decision(&lane, id(1), digest16),
        File::unsigned_ack(&lane, id(1)),
        File::processing(&lane, id(1)),
        File::progress(&lane, id(1)),
        File::done(&lane, id(1)),
        File::log(&lane, id(1)),
        File::result(&lane, id(1)),
        File::artifact(&lane, digest),
        File::in_lane(&lane, LaneFile::Refused(id(1))),
    ];
    let archived: Vec<File> = files.iter().filter_map(|file| file.archived(month)).collect();
    let evidence: Vec<File> = files.iter().filter_map(|file| file.evidence(digest16)).collect();
    let reasons: Vec<File> = evidence.iter().filter_map(File::reason).collect();
    assert_eq!((archived.len(), reasons.len()), (3, evidence.len()));
    files.into_iter().chain(archived).chain(evidence).chain(reasons).collect()
}

#[test]
fn every_file_is_read_back_from_its_own_name() {
    for file in every_file() {
        assert_eq!(file.dir().name(OsStr::new(&file.name())), Some(Name::File(file.clone())), "{file:?}");
    }
}

#[test]
fn the_tree_is_that_of_the_protocol() {
    let lane = Lane::parse("a-to-b").unwrap();
    let digest16 = Hex16::parse("0123456789abcdef").unwrap();
    let path = |file: File| file.path().to_str().unwrap().to_owned();
    let task = id(1).to_string();
    assert_eq!(path(File::Boot(NodeName::new("b").unwrap(), 12)), "heartbeats/b.boot-12.json");
    assert_eq!(path(File::cancel(&lane, id(1))), format!("a-to-b/control/{task}.cancel.json"));
    assert_eq!(
        path(File::decision(&lane, id(1), digest16)),
        format!("a-to-b/pending-ack/{task}.0123456789abcdef.ack")
    );
    let evidence = File::inbox(&lane, id(1)).evidence(digest16).unwrap();
    assert_eq!(path(evidence.clone()), format!("a-to-b/rejected/{task}.0123456789abcdef.json"));
    assert_eq!(
        path(evidence.reason().unwrap()),
        format!("a-to-b/rejected/{task}.0123456789abcdef.reason.json")
    );
    let outside = File::Heartbeat(NodeName::new("b").unwrap()).evidence(digest16).unwrap();
    assert_eq!(path(outside), "rejected/b.json.0123456789abcdef");
    let month = Month::parse("2026-11").unwrap();
    let archived = File::result(&lane, id(1)).archived(month).unwrap();
    assert_eq!(path(archived), format!("a-to-b/done/archive/2026-11/{task}.result.json"));
}

#[test]
fn anything_else_is_a_stranger() {
    let lane = Lane::parse("a-to-b").unwrap();
    let task = id(1).to_string();
    let strangers: [(Area, Vec<String>); 6] = [
        (
            Area::Inbox,
            vec![
                format!("{task}.json.swp"),
                format!("{}.json", task.to_uppercase()),
                format!("{task}.terms.json"),
                ".json".into(),
            ],
        ),
        (Area::PendingAck, vec![format!("{task}.ack.ack"), format!("{task}.0123.ack"), ".ack".into()]),
        (Area::Done, vec![format!("{task}.result"), "archive2".into()]),
        (Area::Archive, vec!["2026-13".into(), "2026-1".into(), "+026-01".into()]),
        (Area::Rejected, vec!["x.json".into(), "x.0123456789abcdef.json".into()]),
        (Area::Top, vec!["CLUSTER".into(), "killswitch".into(), "inbox ".into()]),
    ];
    for (area, names) in strangers {
        for name in names {
            assert_eq!(Dir::lane(&lane, area).name(OsStr::new(&name)), None, "{area:?} {name}");
        }
    }
    for name in ["a-to-", "b", "..", "Cluster"] {
        assert_eq!(Dir::Root.name(OsStr::new(name)), None, "{name}");
    }
    assert_eq!(Dir::Heartbeats.name(OsStr::new("b.boot-01.json")), None);
    assert_eq!(Dir::lane(&lane, Area::Inbox).name(OsStr::from_bytes(b"\xff.json")), None);
}

#[test]
fn a_reason_is_no_evidence_of_its_own() {
    let lane = Lane::parse("a-to-b").unwrap();
    let evidence = File::inbox(&lane, id(1)).evidence(Hex16::from_number(1)).unwrap();
    let reason = evidence.reason().unwrap();
    assert_eq!(reason.evidence(Hex16::from_number(2)), None);
    assert!(
        matches!(reason, File::Lane(_, LaneFile::Evidence { part: EvidencePart::Reason, .. })),
        "{reason:?}"
    );
}

proptest! {
    #[test]
    fn a_name_that_is_read_is_written_the_same(text in "[a-z0-9.-]{0,60}") {
        let lane = Lane::parse("a-to-b").unwrap();
        let areas = [Area::Tmp, Area::Inbox, Area::PendingAck, Area::Done, Area::Rejected, Area::Archive];
        let dirs = areas.map(|area| Dir::lane(&lane, area));
        for dir in dirs.iter().chain([&Dir::Root, &Dir::Tmp, &Dir::Heartbeats, &Dir::Rejected]) {
            if let Some(Name::File(file)) = dir.name(OsStr::new(&text)) {
                prop_assert_eq!(file.name(), text.clone());
                prop_assert_eq!(&file.dir(), dir);
            }
        }
    }
}
