//! What of an unpacked root's setup is another than a running host's: it has copies of what the daemon publishes, since nobody may have the run
//! folder in what becomes of that root, and our CA stands in the bundle of roots that its own tool would make, since nothing of it is run.

use std::path::Path;

use anyhow::Result;

use super::bundle::{certificates, without};
use super::change::{Change, read};
use super::found::Owner;
use super::setup::{Step, Wanted};
use super::{Files, PLACEHOLDER_TOKEN};

/// Where the copies are. Not below `/run`, upon which runtimes and inits mount something empty.
const COPIES: &str = "/usr/local/share/enforcer";
/// Bundles of roots that tools make and clients read: Debian's and Alpine's, Red Hat's, Arch's and openSUSE's. Of the latter two clients know a link to it.
const MADE: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
];

/// The files that a root's clients are told of, as they are named in it.
pub(super) fn files() -> Files {
    Files::in_run_dir(Path::new(COPIES))
}

/// The copies: of the CA, of the bundle, and the token.
pub(super) fn copies(wanted: &Wanted<'_>, ca: &str, bundle: &str) -> Result<Vec<Step>> {
    let files = files();
    let copies = [
        (&files.ca, ca),
        (&files.bundle, bundle),
        (&files.token, PLACEHOLDER_TOKEN),
    ];
    let step = |(path, text): (&_, &str)| {
        let change = Change::of(wanted.host.place(path)?, |_| Ok(text.to_owned()))?;
        Ok(Step::new(wanted.host, change, Owner::Ours))
    };
    copies.into_iter().map(step).collect()
}

/// Our CA in the bundles of roots that the root has.
pub(super) fn made(wanted: &Wanted<'_>, ca: &str) -> Result<Vec<Step>> {
    let here = MADE.into_iter().filter(|path| wanted.host.has_itself(path));
    // Of an earlier setup: a CA that is the daemon's no more is not to be trusted on.
    let earlier = read(&wanted.host.place(files().ca)?)?;
    let earlier = earlier.map_or_else(String::new, |content| content.text);
    let step = |path| {
        let edit = |text: &str| Ok(with(text, ca, &earlier));
        let change = Change::of(wanted.host.place(path)?, edit)?;
        Ok(Step::new(wanted.host, change, Owner::Roots))
    };
    here.map(step).collect()
}

/// A bundle with ours in it, behind the others, and without the one that was ours earlier.
fn with(text: &str, ca: &str, earlier: &str) -> String {
    let ours = certificates(ca);
    let mut old = certificates(earlier);
    old.retain(|one| !ours.contains(one));
    let text = without(text, &old);
    if ours.is_subset(&certificates(&text)) {
        return text;
    }
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{text}{end}{ca}")
}

/// A bundle without what was added to it.
pub(super) fn without_added(now: &str, before: &str, after: &str) -> String {
    let (old, new) = (certificates(before), certificates(after));
    let added = new.difference(&old).cloned().collect();
    without(now, &added)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::testing::{PROPERTIES, Unpacked, pem_of, roots};
    use super::super::{Found, Host, Removal, remove};
    use super::*;

    const ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";
    const PROFILE: &str = "etc/profile.d/enforcer-clients.sh";

    /// With a tool, the Cloud SDK, and links as Debian has them.
    fn debian() -> Unpacked {
        let host = Unpacked::new();
        host.write(PROPERTIES, "[core]\nproject = p\n");
        host.write(ROOTS, &(pem_of(b"one") + &pem_of(b"two")));
        host.write("usr/lib/ssl/openssl.cnf", "");
        let link = host.path("usr/lib/ssl/cert.pem");
        symlink("/etc/ssl/certs/ca-certificates.crt", link).expect("links");
        host
    }

    /// With a bundle of roots and nothing that would make it anew.
    fn alpine() -> Unpacked {
        let host = Unpacked::new();
        for folder in ["opt", "usr"] {
            std::fs::remove_dir_all(host.path(folder)).expect("removes");
        }
        host.write(ROOTS, pem_of(b"one").trim_end());
        symlink("certs/ca-certificates.crt", host.path("etc/ssl/cert.pem")).expect("links");
        host
    }

    #[test]
    fn a_root_like_debians_or_alpines_has_all_that_its_files_name_and_is_in_the_end_what_it_was() {
        for host in [debian(), alpine()] {
            let before = host.everything();
            host.set_up().expect("sets up");
            let text = host.text(PROFILE);
            let values: Vec<&str> = text
                .lines()
                .filter_map(|line| line.split('=').nth(1))
                .collect();
            assert_eq!(values.len(), 4, "{text}");
            for value in values {
                let path = value.strip_prefix('/').expect("is absolute");
                assert!(host.text(path).ends_with(&pem_of(b"ours")), "{path}");
                assert_eq!(host.mode(path), 0o644);
            }
            assert!(
                host.text(ROOTS)
                    .ends_with(&("\n".to_owned() + &pem_of(b"ours")))
            );
            let now = host.everything();
            host.set_up().expect("sets up once more");
            assert_eq!(host.everything(), now);
            let removed = host.remove(false);
            assert!(removed.iter().all(|one| one.removal == Removal::Restored));
            assert_eq!(host.everything(), before);
        }
    }

    #[test]
    fn the_bundle_that_clients_of_arch_or_opensuse_know_by_a_link_has_our_ca() {
        for (link, bundle) in [
            (ROOTS, "etc/ca-certificates/extracted/tls-ca-bundle.pem"),
            (
                "etc/ssl/ca-bundle.pem",
                "var/lib/ca-certificates/ca-bundle.pem",
            ),
        ] {
            let host = Unpacked::new();
            host.write(bundle, &pem_of(b"one"));
            host.write(link, "");
            std::fs::remove_file(host.path(link)).expect("removes");
            symlink(Path::new("/").join(bundle), host.path(link)).expect("links");
            let before = host.everything();
            host.set_up().expect("sets up");
            assert_eq!(host.text(bundle), pem_of(b"one") + &pem_of(b"ours"));
            host.remove(false);
            assert_eq!(host.everything(), before, "{bundle}");
        }
    }

    #[test]
    fn of_a_bundle_that_the_roots_own_tool_has_made_since_only_our_ca_is_taken_out() {
        let host = debian();
        host.set_up().expect("sets up");
        let made = [&b"two"[..], b"ours", b"three"].map(pem_of).concat();
        host.write(ROOTS, &made);
        let removed = host.remove(false);
        let path = host.path(ROOTS);
        let removed = removed.iter().find(|one| one.change.path() == path);
        assert_eq!(removed.expect("it").removal, Removal::OursTakenOut);
        assert_eq!(host.text(ROOTS), pem_of(b"two") + &pem_of(b"three"));
    }

    #[test]
    fn a_ca_that_is_the_daemons_no_more_goes_as_the_next_one_comes() {
        let host = debian();
        let before = host.everything();
        host.set_up().expect("sets up");
        let earlier = std::fs::read_to_string(&host.files.ca).expect("reads");
        host.files
            .publish(&pem_of(b"next"), &roots())
            .expect("writes");
        host.set_up().expect("sets up otherwise");
        assert_eq!(
            host.text(ROOTS),
            [&b"one"[..], b"two", b"next"].map(pem_of).concat()
        );
        host.files.publish(&earlier, &roots()).expect("writes");
        host.remove(false);
        assert_eq!(host.everything(), before);
    }

    #[test]
    fn a_root_is_put_back_wherever_it_has_been_moved_to() {
        let host = debian();
        let before: Vec<_> = host
            .everything()
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        host.set_up().expect("sets up");
        let elsewhere = tempfile::tempdir().expect("a folder");
        let moved = elsewhere.path().join("root");
        std::fs::rename(host.path(""), &moved).expect("moves");
        let there = Host::unpacked(&moved).expect("is root's");
        let kept = there.kept(Path::new("/state")).expect("below");
        let mut found = Found::load(&kept).expect("reads");
        let removed = remove(&there, &mut found, &kept, false).expect("removes");
        assert!(removed.iter().all(|one| one.removal == Removal::Restored));
        std::fs::rename(&moved, host.path("")).expect("moves back");
        let after: Vec<_> = host
            .everything()
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(after, before);
    }

    /// What a hostile image has in the place of a folder that is written to.
    fn hostile(at: &str, target: &Path) -> Unpacked {
        let host = debian();
        let _ = std::fs::remove_dir_all(host.path(at));
        symlink(target, host.path(at)).expect("links");
        host
    }

    #[test]
    fn wherever_a_hostile_roots_links_lead_nothing_outside_of_it_is_read_or_written() {
        let outside = debian();
        let before = outside.everything();
        let up = Path::new("../../../../../../../../..");
        for at in [
            "etc",
            "usr/local/share",
            "opt/google-cloud-sdk",
            "state",
            "etc/ssl/certs",
        ] {
            let there = outside.path(at);
            let relative = up.join(there.strip_prefix("/").expect("is absolute"));
            let own = Path::new("/").join(at);
            let magic = Path::new("/proc/1/root").join(at);
            for target in [&there, &relative, &own, &up.join(at), &magic] {
                let host = hostile(at, target);
                let set_up = host.set_up();
                let said = format!("{at} -> {}: {set_up:?}", target.display());
                assert_eq!(outside.everything(), before, "{said}");
                assert!(!Path::new("/").join(PROFILE).exists(), "{said}");
                assert!(!files().ca.exists(), "{said}");
                if set_up.is_ok() {
                    host.remove(false);
                }
                assert_eq!(outside.everything(), before, "{said}");
            }
        }
    }

    #[test]
    fn a_file_of_a_hostile_roots_that_is_a_link_or_no_file_at_all_is_not_opened() {
        let outside = debian();
        let before = outside.everything();
        for (at, is_refused) in [
            (PROFILE, true),
            (ROOTS, false),
            ("state/clients.json", true),
        ] {
            let host = debian();
            host.write(at, "");
            std::fs::remove_file(host.path(at)).expect("removes");
            symlink(outside.path(ROOTS), host.path(at)).expect("links");
            assert_eq!(host.set_up().is_err(), is_refused, "{at}");
            std::fs::remove_file(host.path(at)).expect("removes");
            // One that never has anything to say: opened for reading it would be waited for, or worse.
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, host.path(at), kind, mode, 0).expect("makes");
            assert_eq!(host.set_up().is_err(), is_refused, "{at}");
        }
        assert_eq!(outside.everything(), before);
    }
}
