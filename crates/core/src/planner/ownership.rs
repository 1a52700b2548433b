//! One owner per node: protocol section 7.

use uuid::Uuid;

/// A verified boot record of this node's name, as listed on the share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its number.
    pub boot: u64,
    /// The watcher that published it.
    pub instance: Uuid,
}

/// What this ledger knows about boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The highest boot this ledger has held, 0 before the first.
    pub highest_held: u64,
    /// Instances that this ledger noted, held or not.
    pub instances: Vec<Uuid>,
}

/// Step 1 of a start: a record above everything we held, by an instance we never noted, is somebody else's.
#[must_use]
pub fn foreign<'a>(shown: &'a [Shown], known: &Known) -> Option<&'a Shown> {
    shown
        .iter()
        .filter(|record| record.boot > known.highest_held && !known.instances.contains(&record.instance))
        .max_by_key(|record| record.boot)
}

/// What tells that a noted boot's watcher is dead: it ran on this very machine, since this very start of it, over
/// this very directory, and we hold its lock now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `/proc/sys/kernel/random/boot_id`.
    pub host_boot_id: String,
    /// Device of `watch.lock`.
    pub device: u64,
    /// Inode of `watch.lock`.
    pub inode: u64,
}

/// Whether a start must wait two heartbeat intervals and look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nobody else can be alive.
    None,
    /// Another copy of this node may be alive: listen for its heartbeat first.
    TwoHeartbeats,
}

/// Step 2 of a start. `noted_here` is where the ledger noted the highest record shown, if it did.
#[must_use]
pub fn wait_before_owning(shown: &[Shown], known: &Known, noted_here: Option<&Place>, today: &Place) -> Wait {
    let nothing_to_fear = shown.is_empty() && known.highest_held == 0;
    if nothing_to_fear || noted_here == Some(today) { Wait::None } else { Wait::TwoHeartbeats }
}

/// Step 3: the number of the new boot.
#[must_use]
pub fn next_boot(shown: &[Shown], known: &Known, unix_seconds: u64) -> u64 {
    let highest_shown = shown.iter().map(|record| record.boot).max().unwrap_or(0);
    known.highest_held.saturating_add(1).max(highest_shown.saturating_add(1)).max(unix_seconds)
}

/// The last look of a start: a record that the listing before did not have, other than mine.
#[must_use]
pub fn newcomer<'a>(before: &[Shown], after: &'a [Shown], mine: Uuid) -> Option<&'a Shown> {
    after.iter().find(|record| record.instance != mine && !before.contains(record))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(boot: u64, instance: u128) -> Shown {
        Shown { boot, instance: Uuid::from_u128(instance) }
    }

    #[test]
    fn a_higher_record_of_an_unknown_instance_is_foreign() {
        let known = Known { highest_held: 7, instances: vec![Uuid::from_u128(1)] };
        assert_eq!(foreign(&[shown(7, 2), shown(8, 1)], &known), None);
        assert_eq!(foreign(&[shown(8, 2)], &known), Some(&shown(8, 2)));
    }

    #[test]
    fn a_restart_in_the_same_place_waits_for_nobody() {
        let today = Place { host_boot_id: "b".into(), device: 1, inode: 2 };
        let known = Known { highest_held: 7, instances: vec![] };
        assert_eq!(wait_before_owning(&[shown(7, 1)], &known, Some(&today), &today), Wait::None);
        let copied = Place { inode: 3, ..today.clone() };
        assert_eq!(wait_before_owning(&[shown(7, 1)], &known, Some(&copied), &today), Wait::TwoHeartbeats);
        let rebooted = Place { host_boot_id: "c".into(), ..today.clone() };
        assert_eq!(wait_before_owning(&[shown(7, 1)], &known, Some(&rebooted), &today), Wait::TwoHeartbeats);
        assert_eq!(wait_before_owning(&[], &Known::default(), None, &today), Wait::None);
        assert_eq!(wait_before_owning(&[shown(7, 1)], &Known::default(), None, &today), Wait::TwoHeartbeats);
    }

    #[test]
    fn a_new_boot_is_above_everything_held_shown_and_the_clock() {
        let known = Known { highest_held: 7, instances: vec![] };
        assert_eq!(next_boot(&[], &known, 3), 8);
        assert_eq!(next_boot(&[shown(20, 1)], &known, 3), 21);
        assert_eq!(next_boot(&[shown(20, 1)], &known, 1_000), 1_000);
    }

    #[test]
    fn two_starts_at_once_see_each_other_in_the_last_look() {
        let mine = Uuid::from_u128(1);
        let before = [shown(5, 9)];
        assert_eq!(newcomer(&before, &[shown(5, 9), shown(6, 1)], mine), None);
        let rival = shown(6, 2);
        assert_eq!(newcomer(&before, &[shown(5, 9), rival.clone()], mine), Some(&rival));
    }
}
