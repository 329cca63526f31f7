//! Putting back what was found.

use anyhow::Result;

use super::change::{Change, Content, Now, remove_folders};
use super::found::{Entry, Found, Owner};
use super::host::Host;
use super::place::Place;
use super::setup::without_ours;

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is again what it was, byte for byte.
    Restored,
    /// It was that already.
    AsItWas,
    /// It was changed by somebody else since: only what is ours was taken out.
    OursTakenOut,
    /// It is ours and was changed by somebody else since: left as it is.
    Left,
}

impl Removal {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restored => "put back",
            Self::AsItWas => "is as it was",
            Self::OursTakenOut => "was changed by somebody since: only what is ours was taken out",
            Self::Left => "was changed by somebody since: left as it is, take it away yourself",
        }
    }
}

/// One file, and what became of it.
#[derive(Debug)]
pub struct Removed {
    /// What changed.
    pub change: Change,
    /// What that is.
    pub removal: Removal,
}

/// Puts back all that was found, the last first; only says what it would do in a dry run. What is left stays known.
///
/// # Errors
/// When a file cannot be read or written.
pub fn remove(
    host: &Host,
    found: &mut Found,
    kept: &Place,
    is_dry_run: bool,
) -> Result<Vec<Removed>> {
    let mut all = Vec::new();
    for entry in found.files.clone().into_iter().rev() {
        let place = host.place(&entry.path)?;
        let removed = one(&entry, place.clone())?;
        if !is_dry_run {
            if removed.change.is_needed() {
                removed.change.apply()?;
            }
            if removed.removal != Removal::Left {
                let folders = entry
                    .made_above
                    .saturating_add(usize::from(entry.made_folder));
                remove_folders(&place, folders)?;
                found.files.retain(|other| other.path != entry.path);
                found.save(kept)?;
            }
        }
        all.push(removed);
    }
    Ok(all)
}

fn one(entry: &Entry, place: Place) -> Result<Removed> {
    let now = Now::of(place)?;
    let (removal, after) = what(entry, now.content.as_ref());
    Ok(Removed {
        change: now.becoming(after),
        removal,
    })
}

fn what(entry: &Entry, now: Option<&Content>) -> (Removal, Option<Content>) {
    match (entry.owner, now) {
        _ if now == entry.before.as_ref() => (Removal::AsItWas, entry.before.clone()),
        (_, Some(now)) if *now == entry.after => (Removal::Restored, entry.before.clone()),
        // What somebody has taken away is theirs to bring back.
        (_, None) => (Removal::AsItWas, None),
        (Owner::Shared | Owner::Roots, Some(now)) => {
            (Removal::OursTakenOut, Some(without_ours(now, entry)))
        }
        (Owner::Ours, Some(now)) => (Removal::Left, Some(now.clone())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::testing::{PROPERTIES, Unpacked};
    use super::*;

    fn removals(host: &Unpacked) -> Vec<Removal> {
        host.remove(false)
            .iter()
            .map(|removed| removed.removal)
            .collect()
    }

    #[test]
    fn everything_is_byte_for_byte_what_it_was() {
        for properties in [
            None,
            Some(""),
            Some("[core]\r\nproject = p\r\n"),
            Some("[core]\ncustom_ca_certs_file = /corp.pem\n # last line without an end"),
        ] {
            let host = Unpacked::new();
            if let Some(text) = properties {
                host.write(PROPERTIES, text);
            }
            host.write("etc/profile.d/enforcer-clients.sh", "# somebody else's\n");
            let before = host.everything();
            host.set_up().expect("sets up");
            host.set_up().expect("sets up once more");
            assert_ne!(host.everything(), before);
            assert_eq!(removals(&host), [Removal::Restored; 7]);
            assert_eq!(host.everything(), before);
            assert!(removals(&host).is_empty(), "nothing is left to remove");
        }
    }

    #[test]
    fn what_was_found_first_is_put_back_also_after_another_setup() {
        let mut host = Unpacked::new();
        host.write(PROPERTIES, "[core]\nproject = p\n");
        let before = host.everything();
        host.set_up().expect("sets up");
        host.needs_token = true;
        host.set_up().expect("sets up otherwise");
        assert_eq!(removals(&host), [Removal::Restored; 7]);
        assert_eq!(host.everything(), before);
    }

    #[test]
    fn of_a_file_that_somebody_has_changed_only_what_is_ours_is_taken_out_and_that_is_said() {
        let host = Unpacked::new();
        let corp = "[core]\ncustom_ca_certs_file = /corp.pem\n";
        host.write(PROPERTIES, corp);
        host.set_up().expect("sets up");
        let since = host.text(PROPERTIES) + "[proxy]\ntype = http\n";
        host.write(PROPERTIES, &since);
        let removed = host.remove(false);
        let path = host.path(PROPERTIES);
        let removed = removed.iter().find(|one| one.change.path() == path);
        assert_eq!(removed.expect("it").removal, Removal::OursTakenOut);
        assert_eq!(
            host.text(PROPERTIES),
            format!("{corp}[proxy]\ntype = http\n")
        );
    }

    #[test]
    fn an_edit_between_two_setups_is_kept_by_both_and_by_the_removal() {
        let mut host = Unpacked::new();
        host.write(PROPERTIES, "");
        host.set_up().expect("sets up");
        let since = host.text(PROPERTIES) + "[proxy]\ntype = http\n";
        host.write(PROPERTIES, &since);
        host.needs_token = true;
        host.set_up().expect("sets up otherwise");
        assert_eq!(removals(&host), [Removal::Restored; 7]);
        assert_eq!(host.text(PROPERTIES), "[proxy]\ntype = http\n");
    }

    #[test]
    fn a_file_of_ours_that_somebody_has_changed_is_left_and_stays_known() {
        let host = Unpacked::new();
        host.set_up().expect("sets up");
        let path = "etc/environment.d/60-enforcer-clients.conf";
        host.write(path, "MINE=1\n");
        let left =
            |removals: &[Removal]| removals.iter().filter(|one| **one == Removal::Left).count();
        assert_eq!(left(&removals(&host)), 1);
        assert_eq!(host.text(path), "MINE=1\n");
        std::fs::remove_file(host.path(path)).expect("removes");
        assert_eq!(removals(&host), [Removal::AsItWas]);
        assert!(
            !host.path("etc/environment.d").exists(),
            "it was made for it"
        );
    }

    #[test]
    fn a_folder_that_is_another_since_it_was_read_is_not_written_to() {
        let host = Unpacked::new();
        host.through_a_link();
        host.write(PROPERTIES, "[core]\nproject = p\n");
        host.set_up().expect("sets up");
        let now = host.text("opt/real/properties");
        let found = Found::load(&host.kept()).expect("reads");
        let path = Path::new("/").join(PROPERTIES);
        let entry = found.entry(&path).expect("it was changed");
        let place = host.host().place(&entry.path).expect("below");
        let removed = one(entry, place).expect("plans");
        host.lead_elsewhere();
        removed.change.apply().expect("puts back");
        assert_eq!(host.text("etc/cron.daily/properties"), now);
        assert_eq!(host.text("opt/real/properties"), "[core]\nproject = p\n");
    }

    #[test]
    fn what_others_have_a_say_in_since_is_left_alone() {
        let host = Unpacked::new();
        host.set_up().expect("sets up");
        host.give_away("opt");
        let mut found = Found::load(&host.kept()).expect("reads");
        let now = host.text(PROPERTIES);
        let error = remove(&host.host(), &mut found, &host.kept(), false);
        let error = format!("{:#}", error.expect_err("somebody else's"));
        assert!(error.contains("opt belongs to uid 64321"), "{error}");
        assert_eq!(host.text(PROPERTIES), now);
        let path = Path::new("/").join(PROPERTIES);
        assert!(found.entry(&path).is_some(), "it stays known");
    }

    #[test]
    fn a_dry_run_says_the_same_and_changes_nothing() {
        let host = Unpacked::new();
        host.set_up().expect("sets up");
        let before = host.everything();
        let removed = host.remove(true);
        assert_eq!(removed.len(), 7);
        assert!(
            removed
                .iter()
                .all(|removed| removed.change.shown().contains("  -")
                    || removed.change.shown().contains(" go,"))
        );
        assert_eq!(host.everything(), before);
    }
}
