//! The share: whether it is ours, what its mount is and can do, and what lies on it that should not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dispatch_core::protocol::names::Lane;
use dispatch_node::config::{Config, Strategy as Wanted};
use dispatch_node::report::Report;
use dispatch_spool::root::look;
use dispatch_spool::{
    Ability, Area, Dir, LIST_ENTRIES_MAX, ListingEnd, MountFacts, Place, PosixShare, RootLook, Share as _,
    ShareError, Strategy, Tried, strategy_for,
};

use super::Sheet;
use crate::beats::Beats;
use crate::context;

/// A sync that takes longer makes every send slow.
const SLOW_SYNC: Duration = Duration::from_millis(500);
/// Less room than this is said.
const LITTLE_BYTES: u64 = 1024 * 1024 * 1024;
/// With less than this nothing should be begun.
const NONE_BYTES: u64 = 64 * 1024 * 1024;

pub(super) fn share(config: &Config) -> Sheet {
    let mut sheet = Sheet::default();
    let share = context::share(config);
    let lanes = lanes(config);
    match look(&share, config.cluster, &lanes) {
        RootLook::Reachable(_) => {
            sheet.ok("share", format!("{} is this cluster's, with all lanes", config.root.display()));
        }
        RootLook::Unreachable(why) => {
            sheet.report("share", &Report::from(why), "mount the share, or set it up with dispatchctl init");
            return sheet;
        }
    }
    match share.facts() {
        Ok(facts) => {
            mount(&mut sheet, config, &facts);
            in_effect(&mut sheet, config);
        }
        Err(error) => sheet.report("mount", &Report::from(error), "mount the share again"),
    }
    match share.probe() {
        Ok(tried) => tried.iter().for_each(|one| ability(&mut sheet, one)),
        Err(error) => {
            sheet.report("mount", &Report::from(error), "this user must be able to write <share>/tmp");
        }
    }
    match share.free_space() {
        Ok(space) => room(&mut sheet, "the share", space.free_bytes, space.total_bytes),
        Err(error) => sheet.report("disk", &Report::from(error), "mount the share again"),
    }
    if let Err(error) = names(&mut sheet, &share, &lanes) {
        sheet.report("names", &Report::from(error), "run: dispatchctl init");
    }
    sheet
}

fn lanes(config: &Config) -> Vec<Lane> {
    let both = |peer| {
        let lane = Lane::new(config.node.clone(), peer);
        [lane.reversed(), lane]
    };
    config.peers.keys().cloned().flat_map(both).collect()
}

fn mount(sheet: &mut Sheet, config: &Config, facts: &MountFacts) {
    let kind = facts.file_system;
    let options = options_of(&config.root).map_or_else(String::new, |options| format!(", mounted {options}"));
    sheet.ok("mount", format!("{kind}, device {}{options}", facts.device));
    let by_itself = strategy_for(facts);
    let word = |strategy| match strategy {
        Strategy::Inotify => "inotify",
        Strategy::Poll => "poll",
    };
    match (config.watch.strategy, by_itself) {
        (Wanted::Auto, strategy) => {
            sheet.ok("strategy", format!("auto, which is {} on {kind}", word(strategy)));
        }
        (Wanted::Poll, _) => sheet.ok("strategy", "poll, as configured"),
        (Wanted::Inotify, Strategy::Inotify) => sheet.ok("strategy", "inotify, as configured"),
        (Wanted::Inotify, Strategy::Poll) => sheet.warning(
            "strategy",
            format!("inotify is configured, and on {kind} it never tells what another machine did"),
            "set strategy = \"auto\" under [watch]; the tick finds everything all the same, only later",
        ),
        (Wanted::SmbNotify, _) => sheet.warning(
            "strategy",
            format!("smb-notify is configured; in effect it is {}", word(by_itself)),
            "set strategy = \"auto\" under [watch]",
        ),
    }
    if kind.place() == Place::Unknown {
        sheet.warning(
            "mount",
            format!("a file system of type {kind} is not known to Dispatch, and is polled"),
            "nothing, if what is measured below is well",
        );
    }
}

/// How a running watcher says that it looks.
fn in_effect(sheet: &mut Sheet, config: &Config) {
    // Keys or a share that cannot be read have their own lines.
    let beat = Beats::of(config).ok().and_then(|beats| beats.read_alive(&config.node).ok().flatten());
    if let Some(watch) = beat.map(|beat| beat.watch) {
        let text = format!("the watcher says: {}, and a look every {} ms", watch.strategy, watch.poll_ms);
        sheet.ok("strategy", text);
    }
}

/// The options of the mount that a path is on, as the kernel lists them.
fn options_of(path: &Path) -> Option<String> {
    let real = fs::canonicalize(path).ok()?;
    let listed = fs::read_to_string("/proc/self/mounts").ok()?;
    options_in(&listed, &real)
}

fn options_in(listed: &str, path: &Path) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for mount in listed.lines() {
        let mut fields = mount.split(' ');
        let (place, options) = (fields.nth(1)?, fields.nth(1)?);
        // Blanks and the like stand as octal numbers there.
        let place = place.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
        let length = place.len();
        // The last of equal ones lies on top of those before it.
        if path.starts_with(&place) && best.is_none_or(|(longest, _)| length >= longest) {
            best = Some((length, options));
        }
    }
    best.map(|(_, options)| options.to_owned())
}

const fn ability_words(ability: Ability) -> (&'static str, &'static str) {
    match ability {
        Ability::Exclusive => (
            "O_EXCL makes a file once",
            "mount the share so that O_EXCL works (NFS 3 or newer, SMB 2 or newer)",
        ),
        Ability::Sync => ("fsync of a file", "look at the server's disk, and at the mount's options"),
        Ability::Link => (
            "link gives a second name once",
            "mount with hard links (SMB: a server with POSIX extensions, or `mfsymlinks` off); without them nothing can be published",
        ),
        Ability::LinkCount => ("the number of names is told", "nothing: Dispatch does not rest on it"),
        Ability::Listing => (
            "a new name is seen by a fresh listing",
            "mount with a short attribute cache (NFS: actimeo=1 or lookupcache=none)",
        ),
        Ability::Rename => {
            ("rename moves in one step", "look at the server: a move must not leave two names")
        }
        Ability::SyncDir => {
            ("fsync of a directory", "look at the mount's options: names must survive a power cut")
        }
        Ability::Remove => ("a file is removed", "let this user remove its own files on the share"),
    }
}

fn ability(sheet: &mut Sheet, tried: &Tried) {
    let (what, mend) = ability_words(tried.ability);
    match &tried.done {
        Ok(took) => {
            let ms = format!("{}.{:03} ms", took.as_millis(), took.as_micros() % 1_000);
            let synced = matches!(tried.ability, Ability::Sync | Ability::SyncDir);
            if synced && *took > SLOW_SYNC {
                sheet.warning("mount", format!("{what}: {ms}, which makes every message slow"), mend);
            } else {
                sheet.ok("mount", format!("{what}: {ms}"));
            }
        }
        Err(error) => {
            let text = format!("{what}: no: {}", dispatch_node::report::one_line(error));
            match tried.ability {
                Ability::LinkCount => sheet.warning("mount", text, mend),
                Ability::Exclusive
                | Ability::Sync
                | Ability::Link
                | Ability::Listing
                | Ability::Rename
                | Ability::SyncDir
                | Ability::Remove => sheet.failed("mount", text, mend),
            }
        }
    }
}

pub(super) fn room(sheet: &mut Sheet, what: &str, free: u64, total: u64) {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let text = format!("{what} has {} of {} MiB free", mib(free), mib(total));
    let mend = "make room: what is not written is not lost, and nothing goes on until there is some";
    match free {
        free if free < NONE_BYTES => sheet.failed("disk", text, mend),
        free if free < LITTLE_BYTES => sheet.warning("disk", text, mend),
        _ => sheet.ok("disk", text),
    }
}

/// Names that do not belong, floods, and evidence that was set aside.
fn names(sheet: &mut Sheet, share: &PosixShare, lanes: &[Lane]) -> Result<(), ShareError> {
    let areas = [
        Area::Top,
        Area::Inbox,
        Area::Attachments,
        Area::Control,
        Area::PendingAck,
        Area::Processing,
        Area::Done,
        Area::Artifacts,
    ];
    let of_lanes = lanes.iter().flat_map(|lane| areas.map(|area| Dir::lane(lane, area)));
    let top = [Dir::Root, Dir::Tmp, Dir::Heartbeats, Dir::Logs, Dir::Metrics];
    let mut strangers = 0_usize;
    for dir in top.into_iter().chain(of_lanes) {
        let listing = share.list(&dir, LIST_ENTRIES_MAX)?;
        let shown = Path::new("<share>").join(dir.path());
        if listing.end == ListingEnd::Limit {
            sheet.failed(
                "names",
                format!("{} is flooded: it holds more than {LIST_ENTRIES_MAX} names", shown.display()),
                "find out what fills it, and remove that",
            );
        }
        strangers = strangers.saturating_add(listing.strangers);
        if listing.strangers > 0 {
            sheet.warning(
                "names",
                format!(
                    "{} holds {} name(s) that no release of Dispatch writes",
                    shown.display(),
                    listing.strangers
                ),
                "look at them: they are left alone and cost time with every look",
            );
        }
    }
    if strangers == 0 {
        sheet.ok("names", "no directory of the share holds a name that does not belong");
    }
    let evidence = lanes.iter().map(|lane| Dir::lane(lane, Area::Rejected)).chain([Dir::Rejected]);
    let mut set_aside = 0_usize;
    for dir in evidence {
        set_aside = set_aside.saturating_add(share.list(&dir, LIST_ENTRIES_MAX)?.entries.len());
    }
    if set_aside > 0 {
        sheet.warning(
            "names",
            format!(
                "{set_aside} file(s) lie in rejected/: refused messages, or bytes at names this node writes"
            ),
            "look at the .reason.json beside each, then remove what is understood",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::doctor::Verdict;

    #[test]
    fn the_options_are_those_of_the_mount_that_a_path_is_on() {
        let listed = "/dev/a / ext4 rw,relatime 0 0\nsrv:/x /mnt/my\\040share nfs4 rw,soft 0 0\n";
        assert_eq!(options_in(listed, Path::new("/mnt/my share/dispatch")).as_deref(), Some("rw,soft"));
        assert_eq!(options_in(listed, Path::new("/mnt/other")).as_deref(), Some("rw,relatime"));
        assert_eq!(options_in("nonsense", Path::new("/")), None);
    }

    #[test]
    fn room_is_told_in_three_degrees() {
        let verdict = |free| {
            let mut sheet = Sheet::default();
            room(&mut sheet, "the disk", free, u64::MAX);
            sheet.lines.remove(0).verdict
        };
        assert_eq!(verdict(NONE_BYTES - 1), Verdict::Failed);
        assert_eq!(verdict(LITTLE_BYTES - 1), Verdict::Warning);
        assert_eq!(verdict(LITTLE_BYTES), Verdict::Ok);
    }

    #[test]
    fn an_ability_that_is_missing_fails_and_one_that_is_slow_warns() {
        use dispatch_spool::Failed;
        let told = |ability, done| {
            let mut sheet = Sheet::default();
            super::ability(&mut sheet, &Tried { ability, done });
            sheet.lines.remove(0)
        };
        assert_eq!(told(Ability::Link, Err(Failed::Wrong("twice"))).verdict, Verdict::Failed);
        assert_eq!(told(Ability::LinkCount, Err(Failed::Wrong("one"))).verdict, Verdict::Warning);
        assert_eq!(told(Ability::Sync, Ok(SLOW_SYNC * 2)).verdict, Verdict::Warning);
        assert_eq!(told(Ability::Listing, Ok(SLOW_SYNC * 2)).verdict, Verdict::Ok);
        assert!(told(Ability::Exclusive, Err(Failed::Wrong("twice"))).mend.is_some());
    }
}
