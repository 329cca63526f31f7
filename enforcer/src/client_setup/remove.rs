//! Putting back what was found.

use anyhow::{Context, Result};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::change::{Change, Content, Now};
use super::found::{Entry, Found, Owner};
use super::host::Host;
use super::place::{Missing, Place};
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
        let place = host.place_of(&entry.path)?;
        let removed = one(&entry, place.clone())?;
        if !is_dry_run {
            if removed.change.is_needed() {
                removed.change.apply()?;
            }
            if removed.removal != Removal::Left {
                if entry.made_folder {
                    remove_folder(&place)?;
                }
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
        (Owner::Shared, Some(now)) => (Removal::OursTakenOut, Some(without_ours(now, entry))),
        (Owner::Ours, Some(now)) => (Removal::Left, Some(now.clone())),
    }
}

/// The folder that was made for a file goes with it, unless somebody has put something else there.
fn remove_folder(place: &Place) -> Result<()> {
    let Some(folder) = place.folder() else {
        return Ok(());
    };
    let removing = || format!("removing {}", folder.path().display());
    let Some(above) = folder.open(Missing::Stays).with_context(removing)? else {
        return Ok(());
    };
    match rustix::fs::unlinkat(&above, folder.name(), AtFlags::REMOVEDIR) {
        Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(()),
        other => other.with_context(removing),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PROPERTIES, Unpacked};
    use super::*;

    /// Makes the folders that `setup` makes above those of its files, and the daemon its own.
    fn host() -> Unpacked {
        let host = Unpacked::new();
        for folder in ["etc", "state"] {
            std::fs::create_dir_all(host.path(folder)).expect("makes");
        }
        host
    }

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
            let host = host();
            if let Some(text) = properties {
                host.write(PROPERTIES, text);
            }
            host.write("etc/profile.d/enforcer-clients.sh", "# somebody else's\n");
            let before = host.everything();
            host.set_up().expect("sets up");
            host.set_up().expect("sets up once more");
            assert_ne!(host.everything(), before);
            assert_eq!(removals(&host), [Removal::Restored; 4]);
            assert_eq!(host.everything(), before);
            assert!(removals(&host).is_empty(), "nothing is left to remove");
        }
    }

    #[test]
    fn what_was_found_first_is_put_back_also_after_another_setup() {
        let mut host = host();
        host.write(PROPERTIES, "[core]\nproject = p\n");
        let before = host.everything();
        host.set_up().expect("sets up");
        host.needs_token = true;
        host.set_up().expect("sets up otherwise");
        assert_eq!(removals(&host), [Removal::Restored; 4]);
        assert_eq!(host.everything(), before);
    }

    #[test]
    fn of_a_file_that_somebody_has_changed_only_what_is_ours_is_taken_out_and_that_is_said() {
        let host = host();
        let corp = "[core]\ncustom_ca_certs_file = /corp.pem\n";
        host.write(PROPERTIES, corp);
        host.set_up().expect("sets up");
        let since = host.text(PROPERTIES) + "[proxy]\ntype = http\n";
        host.write(PROPERTIES, &since);
        let removed = host.remove(false);
        assert_eq!(removed.last().expect("one").removal, Removal::OursTakenOut);
        assert_eq!(
            host.text(PROPERTIES),
            format!("{corp}[proxy]\ntype = http\n")
        );
    }

    #[test]
    fn an_edit_between_two_setups_is_kept_by_both_and_by_the_removal() {
        let mut host = host();
        host.write(PROPERTIES, "");
        host.set_up().expect("sets up");
        let since = host.text(PROPERTIES) + "[proxy]\ntype = http\n";
        host.write(PROPERTIES, &since);
        host.needs_token = true;
        host.set_up().expect("sets up otherwise");
        assert_eq!(removals(&host), [Removal::Restored; 4]);
        assert_eq!(host.text(PROPERTIES), "[proxy]\ntype = http\n");
    }

    #[test]
    fn a_file_of_ours_that_somebody_has_changed_is_left_and_stays_known() {
        let host = host();
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
        let host = host();
        host.through_a_link();
        host.write(PROPERTIES, "[core]\nproject = p\n");
        host.set_up().expect("sets up");
        let now = host.text("opt/real/properties");
        let found = Found::load(&host.kept()).expect("reads");
        let entry = &found.files[0];
        let place = host.host().place_of(&entry.path).expect("below");
        let removed = one(entry, place).expect("plans");
        host.lead_elsewhere();
        removed.change.apply().expect("puts back");
        assert_eq!(host.text("etc/cron.daily/properties"), now);
        assert_eq!(host.text("opt/real/properties"), "[core]\nproject = p\n");
    }

    #[test]
    fn what_others_have_a_say_in_since_is_left_alone() {
        let host = host();
        host.set_up().expect("sets up");
        host.give_away("opt");
        let mut found = Found::load(&host.kept()).expect("reads");
        let now = host.text(PROPERTIES);
        let error = remove(&host.host(), &mut found, &host.kept(), false);
        let error = format!("{:#}", error.expect_err("somebody else's"));
        assert!(error.contains("opt belongs to uid 64321"), "{error}");
        assert_eq!(host.text(PROPERTIES), now);
        assert_eq!(found.files.len(), 1, "it stays known");
    }

    #[test]
    fn a_dry_run_says_the_same_and_changes_nothing() {
        let host = host();
        host.set_up().expect("sets up");
        let before = host.everything();
        let removed = host.remove(true);
        assert_eq!(removed.len(), 4);
        assert!(
            removed
                .iter()
                .all(|removed| removed.change.shown().contains("  -")
                    || removed.change.shown().contains("1 go"))
        );
        assert_eq!(host.everything(), before);
    }
}
