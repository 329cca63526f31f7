//! What setting a host's clients up comes to, and doing it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustls_pki_types::CertificateDer;

use super::Files;
use super::bundle::{bundle, certificates};
use super::change::{Change, Content, read};
use super::found::{Entry, Found, Owner};
use super::host::{Host, Store};
use super::ini::{self, Property};
use super::place::{Place, Untrusted};
use super::unpacked;

/// For login shells.
const PROFILE: &str = "/etc/profile.d/enforcer-clients.sh";
/// For the services of users; one of the system names it as its `EnvironmentFile`.
pub(super) const ENVIRONMENT: &str = "/etc/environment.d/60-enforcer-clients.conf";
const HEAD: &str =
    "# Written by `enforcer client setup`, and taken away by `enforcer client remove`.\n";
/// Whom the Cloud SDK trusts.
pub(super) const CA: Property = Property {
    section: "core",
    key: "custom_ca_certs_file",
};
/// Where it finds a token.
pub(super) const TOKEN: Property = Property {
    section: "auth",
    key: "access_token_file",
};

/// A part of a host that is set up by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The Cloud SDK's properties: `bq` and `gcloud`, whoever runs them.
    Sdk,
    /// Variables for Python, gRPC and Node: login shells, and services that are told of the file.
    Environment,
    /// The system's trust store: curl, OpenSSL and what else reads it.
    Store,
}

impl Part {
    /// All of them, in the order in which they are set up.
    pub const ALL: [Self; 3] = [Self::Sdk, Self::Environment, Self::Store];
}

/// What is to be set up, and with what.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Where.
    pub host: &'a Host,
    /// What the daemon publishes.
    pub files: &'a Files,
    /// The system's roots.
    pub roots: &'a [CertificateDer<'a>],
    /// The Cloud SDK; those that are found when absent.
    pub sdk: Option<&'a Path>,
    /// Which parts.
    pub parts: &'a [Part],
    /// Whether nothing stands in for the metadata server, so that the Cloud SDK must be told of a token.
    pub needs_token: bool,
}

/// What setting up comes to.
#[derive(Debug)]
pub struct Plan {
    /// One for each file.
    pub steps: Vec<Step>,
    /// What is not set up, and why.
    pub left_out: Vec<String>,
    /// The trust store, where its tool must be run in the end.
    pub store: Option<Store>,
}

/// One file.
#[derive(Debug)]
pub struct Step {
    /// What becomes of it.
    pub change: Change,
    /// As the host itself calls it.
    inside: PathBuf,
    /// Whose it is; what the daemon publishes itself is nobody's to put back.
    owner: Option<Owner>,
}

/// Plans it; changes nothing.
///
/// # Errors
/// When the daemon has not published its CA yet, the system has no roots, or a file cannot be read or would not be understood.
pub fn plan(wanted: &Wanted<'_>) -> Result<Plan> {
    let start = || {
        format!(
            "reading {}: start the daemon once, it publishes its CA there",
            wanted.files.ca.display()
        )
    };
    let published = |path: &Path| Place::below(path.parent().unwrap_or(path), path);
    let ca = read(&published(&wanted.files.ca)?)?
        .with_context(start)?
        .text;
    is_plain(wanted.files)?;
    let bundle = bundle(&ca, wanted.roots)?;
    let steps = if wanted.host.is_running() {
        let change = Change::of(published(&wanted.files.bundle)?, |_| Ok(bundle))?;
        vec![Step {
            inside: change.path().to_owned(),
            change,
            owner: None,
        }]
    } else {
        unpacked::copies(wanted, &ca, &bundle)?
    };
    let mut plan = Plan {
        steps,
        left_out: Vec::new(),
        store: None,
    };
    for part in wanted.parts {
        match part {
            Part::Sdk => sdks(wanted, &mut plan)?,
            Part::Environment => environment(wanted, &mut plan)?,
            Part::Store => store(wanted, &ca, &mut plan)?,
        }
    }
    Ok(plan)
}

/// Files are named in three notations, of which each has its own way with other characters.
pub(super) fn is_plain(files: &Files) -> Result<()> {
    let path = files.ca.to_str().unwrap_or_default();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    ensure!(
        path.starts_with('/') && path.chars().all(is_plain),
        "`run_dir` is to be an absolute path of letters, digits and ._- for clients to be told of it: {}",
        files.ca.display()
    );
    Ok(())
}

fn sdks(wanted: &Wanted<'_>, plan: &mut Plan) -> Result<()> {
    if wanted.sdk.is_none() {
        let found = wanted.host.looks_at_path();
        found.map_err(|error| with_cure(error, wanted))?;
    }
    let sdks = wanted.host.sdks(wanted.sdk)?;
    if sdks.is_empty() {
        let why = "no Cloud SDK is found; name one that is elsewhere with --sdk";
        plan.left_out.push(why.to_owned());
    }
    for sdk in sdks {
        let change = sdk_properties(&sdk, wanted).map_err(|error| with_cure(error, wanted))?;
        let step = Step::new(wanted.host, change, Owner::Shared);
        plan.steps.push(step);
    }
    Ok(())
}

fn sdk_properties(sdk: &Path, wanted: &Wanted<'_>) -> Result<Change> {
    let place = wanted.host.place_of(&sdk.join("properties"))?;
    Change::of(place, |text| properties(text, wanted))
}

/// Where others have a say in the Cloud SDK, its owner sets it up: root would do what they choose.
fn with_cure(error: anyhow::Error, wanted: &Wanted<'_>) -> anyhow::Error {
    if error.downcast_ref::<Untrusted>().is_none() {
        return error;
    }
    let files = wanted.told();
    let bundle = files.bundle.display();
    error.context(format!(
        "the Cloud SDK is not set up (move it to where root alone writes, or leave it out with --only and have its owner run `gcloud config set core/custom_ca_certs_file {bundle}`)"
    ))
}

fn properties(text: &str, wanted: &Wanted<'_>) -> Result<String> {
    ini::check(text)?;
    let files = wanted.told();
    let (bundle, token) = (files.bundle.display(), files.token.display());
    let mut text = ini::with(text, CA, &bundle.to_string());
    if wanted.needs_token {
        text = ini::with(&text, TOKEN, &token.to_string());
    }
    Ok(text)
}

fn environment(wanted: &Wanted<'_>, plan: &mut Plan) -> Result<()> {
    for (path, before) in [(PROFILE, "export "), (ENVIRONMENT, "")] {
        let line = |(name, value): (String, String)| format!("{before}{name}={value}\n");
        let lines: String = wanted.told().trust().into_iter().map(line).collect();
        let change = Change::of(wanted.host.place(path)?, |_| Ok(format!("{HEAD}{lines}")))?;
        plan.steps.push(Step::new(wanted.host, change, Owner::Ours));
    }
    Ok(())
}

fn store(wanted: &Wanted<'_>, ca: &str, plan: &mut Plan) -> Result<()> {
    if !wanted.host.is_running() {
        plan.steps.extend(unpacked::made(wanted, ca)?);
    }
    let Some(store) = wanted.host.store() else {
        let tools = [Store::Debian, Store::RedHat]
            .map(Store::tool)
            .join(" nor ");
        plan.left_out.push(format!(
            "the trust store is of no kind that is known: neither {tools} is here"
        ));
        return Ok(());
    };
    let change = Change::of(wanted.host.place(store.place())?, |_| Ok(ca.to_owned()))?;
    let ours = certificates(ca);
    let is_trusted = |one: &Vec<u8>| {
        wanted
            .roots
            .iter()
            .any(|root| root.as_ref() == one.as_slice())
    };
    if change.is_needed() || !ours.iter().all(is_trusted) {
        plan.store = Some(store);
    }
    plan.steps.push(Step::new(wanted.host, change, Owner::Ours));
    Ok(())
}

impl Wanted<'_> {
    /// The files that the host's clients are told of.
    fn told(&self) -> Files {
        if self.host.is_running() {
            self.files.clone()
        } else {
            unpacked::files()
        }
    }
}

impl Step {
    /// One that can be put back.
    pub(super) fn new(host: &Host, change: Change, owner: Owner) -> Self {
        Self {
            inside: host.inside(change.path()),
            change,
            owner: Some(owner),
        }
    }

    /// Does it; what was found is kept at `kept` first.
    ///
    /// # Errors
    /// When a file cannot be written, or one of ours was changed by somebody else.
    pub fn apply(&self, found: &mut Found, kept: &Place) -> Result<()> {
        let (Some(owner), Some(after)) = (self.owner, &self.change.after) else {
            return self.change.apply();
        };
        let old = found.entry(&self.inside);
        let (made_folder, made_above) = match old {
            Some(old) => (old.made_folder, old.made_above),
            None => {
                let missing = self.change.missing_folders()?;
                (missing > 0, missing.saturating_sub(1))
            }
        };
        let entry = Entry {
            path: self.inside.clone(),
            owner,
            before: self.found_before(owner, old)?,
            after: after.clone(),
            made_folder,
            made_above,
        };
        found.put(entry);
        found.save(kept)?;
        self.change.apply()
    }

    /// What is to be put back one day: what is there now or, where that is of an earlier setup, what was there before that.
    fn found_before(&self, owner: Owner, old: Option<&Entry>) -> Result<Option<Content>> {
        let now = &self.change.before;
        let Some(old) = old else {
            return Ok(now.clone());
        };
        if now.as_ref() == Some(&old.after) || *now == old.before {
            return Ok(old.before.clone());
        }
        match (owner, now) {
            (Owner::Shared | Owner::Roots, Some(now)) => Ok(Some(without_ours(now, old))),
            (Owner::Shared | Owner::Roots | Owner::Ours, None) => Ok(None),
            (Owner::Ours, Some(_)) => anyhow::bail!(
                "{} is not as `enforcer client setup` wrote it, somebody has changed it since: take it away, and set up again",
                self.path().display()
            ),
        }
    }

    /// Whether the file is not as it should be already.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.change.is_needed()
    }

    /// Which file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.change.path()
    }
}

/// What a file of somebody else's holds now, without what is ours in it.
pub(super) fn without_ours(now: &Content, entry: &Entry) -> Content {
    let before = entry.before.as_ref().map_or("", |content| &content.text);
    let text = match entry.owner {
        Owner::Shared => with_properties_of_before(&now.text, before, entry),
        Owner::Roots => unpacked::without_added(&now.text, before, &entry.after.text),
        // It is ours as a whole.
        Owner::Ours => now.text.clone(),
    };
    Content {
        text,
        rights: now.rights,
    }
}

/// A text with the properties that we set as they were before.
fn with_properties_of_before(now: &str, before: &str, entry: &Entry) -> String {
    let mut text = now.to_owned();
    for property in [CA, TOKEN] {
        let (written, earlier) = (
            ini::value(&entry.after.text, property),
            ini::value(before, property),
        );
        if written == earlier || ini::value(&text, property) != written {
            continue;
        }
        text = match earlier {
            Some(earlier) => ini::with(&text, property, &earlier),
            None => ini::without(&text, property, ini::has_section(before, property.section)),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PROPERTIES, Unpacked, pem_of};
    use super::*;

    fn needed(host: &Unpacked) -> Vec<bool> {
        let plan = host.plan().expect("plans");
        plan.steps.iter().map(Step::is_needed).collect()
    }

    #[test]
    fn setting_up_a_second_time_finds_everything_as_it_should_be() {
        let host = Unpacked::new();
        host.write(PROPERTIES, "[core]\nproject = p\n");
        assert_eq!(needed(&host), [true; 7]);
        host.set_up().expect("sets up");
        assert_eq!(needed(&host), [false; 7]);
        let files = unpacked::files();
        let bundle = files.bundle.display();
        assert_eq!(
            host.text(PROPERTIES),
            format!("[core]\nproject = p\ncustom_ca_certs_file = {bundle}\n")
        );
        let line = format!("REQUESTS_CA_BUNDLE={bundle}\n");
        assert!(host.text(&PROFILE[1..]).contains(&format!("export {line}")));
        assert!(host.text(&ENVIRONMENT[1..]).contains(&format!("\n{line}")));
        assert_eq!(host.text(&Store::Debian.place()[1..]), pem_of(b"ours"));
    }

    #[test]
    fn the_cloud_sdk_is_told_of_a_token_only_where_nothing_stands_in_for_the_metadata_server() {
        let mut host = Unpacked::new();
        host.set_up().expect("sets up");
        assert!(!host.text(PROPERTIES).contains("access_token_file"));
        host.needs_token = true;
        host.set_up().expect("sets up");
        assert!(host.text(PROPERTIES).ends_with(&format!(
            "[auth]\naccess_token_file = {}\n",
            unpacked::files().token.display()
        )));
    }

    #[test]
    fn without_a_published_ca_there_is_nothing_to_trust() {
        let host = Unpacked::new();
        std::fs::remove_file(&host.files.ca).expect("removes");
        let error = host.plan().expect_err("no CA");
        assert!(format!("{error:#}").contains("start the daemon once"));
    }

    #[test]
    fn what_was_there_keeps_its_mode_and_what_is_new_can_be_read_by_all() {
        use std::os::unix::fs::PermissionsExt as _;
        let host = Unpacked::new();
        host.write(PROPERTIES, "");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(host.path(PROPERTIES), private).expect("closes");
        host.set_up().expect("sets up");
        assert_eq!(
            (host.mode(PROPERTIES), host.mode(&PROFILE[1..])),
            (0o600, 0o644)
        );
        assert_eq!(
            host.mode("state/clients.json"),
            0o600,
            "it has what was found"
        );
    }

    #[test]
    fn a_folder_that_is_another_since_the_plan_is_not_written_to() {
        let host = Unpacked::new();
        host.through_a_link();
        let before = "[core]\nproject = p\n";
        host.write(PROPERTIES, before);
        let plan = host.plan().expect("plans");
        host.lead_elsewhere();
        let mut found = Found::load(&host.kept()).expect("reads");
        for step in plan.steps {
            step.apply(&mut found, &host.kept()).expect("applies");
        }
        assert_eq!(host.text("etc/cron.daily/properties"), before);
        let written = host.text("opt/real/properties");
        assert!(written.contains("custom_ca_certs_file"), "{written}");
    }

    #[test]
    fn where_others_have_a_say_nothing_is_written_and_the_cure_is_said() {
        for at in ["opt", "opt/google-cloud-sdk", PROPERTIES] {
            let host = Unpacked::new();
            host.write(PROPERTIES, "");
            host.give_away(at);
            let before = host.everything();
            let error = format!("{:#}", host.set_up().expect_err("somebody else's"));
            for says in [
                &format!("{at} belongs to uid 64321"),
                "move it to where root alone writes",
                "gcloud config set core/custom_ca_certs_file",
            ] {
                assert!(error.contains(says), "{error}");
            }
            assert_eq!(error.lines().count(), 1);
            assert_eq!(host.everything(), before);
        }
        let host = Unpacked::new();
        host.give_away("usr/local");
        let error = format!("{:#}", host.set_up().expect_err("somebody else's"));
        assert!(error.contains("usr/local belongs to uid 64321"), "{error}");
        assert!(!error.contains("Cloud SDK"), "{error}");
    }

    #[test]
    fn no_link_below_a_root_leads_out_of_it() {
        let (host, outside) = (Unpacked::new(), Unpacked::new());
        outside.write(PROPERTIES, "");
        std::fs::remove_dir_all(host.path("opt")).expect("removes");
        std::os::unix::fs::symlink(outside.path("opt"), host.path("opt")).expect("links");
        std::os::unix::fs::symlink(outside.path("etc"), host.path("etc")).expect("links");
        let before = outside.everything();
        let plan = host.plan().expect("plans");
        assert!(plan.left_out[0].contains("no Cloud SDK is found"));
        host.set_up().expect("sets up");
        assert_eq!(outside.everything(), before);
        let inside = outside.path(&PROFILE[1..]);
        let inside = inside.strip_prefix("/").expect("is absolute");
        assert!(host.path(&inside.display().to_string()).is_file());
    }

    #[test]
    fn a_file_that_could_be_run_cannot_be_run_any_more_and_is_again_as_it_was_in_the_end() {
        use std::os::unix::fs::PermissionsExt as _;
        let host = Unpacked::new();
        host.write(PROPERTIES, "");
        let odd = std::fs::Permissions::from_mode(0o6755);
        std::fs::set_permissions(host.path(PROPERTIES), odd).expect("opens");
        host.set_up().expect("sets up");
        assert_eq!(host.mode(PROPERTIES), 0o644);
        assert_eq!(needed(&host), [false; 7]);
        host.remove(false);
        assert_eq!(host.mode(PROPERTIES), 0o6755);
    }

    #[test]
    fn properties_that_the_cloud_sdk_would_not_read_are_left_alone_and_nothing_else_is_written() {
        let host = Unpacked::new();
        host.write(PROPERTIES, "[core]\na = 1\n[core]\nb = 1\n");
        let before = host.everything();
        let error = format!("{:#}", host.set_up().expect_err("a section twice"));
        assert!(
            error.contains("lines 1 and 3 say the same thing twice"),
            "{error}"
        );
        assert!(error.contains(PROPERTIES), "{error}");
        assert_eq!(host.everything(), before);
    }

    #[test]
    fn a_file_of_ours_that_somebody_has_changed_is_not_written_over() {
        let host = Unpacked::new();
        host.set_up().expect("sets up");
        host.write(&PROFILE[1..], "export MINE=1\n");
        let error = format!("{:#}", host.set_up().expect_err("changed since"));
        assert!(error.contains("somebody has changed it since"), "{error}");
        assert_eq!(host.text(&PROFILE[1..]), "export MINE=1\n");
    }

    #[test]
    fn a_path_that_a_shell_would_read_otherwise_is_refused() {
        let mut host = Unpacked::new();
        let odd = host.path("run $HOME");
        std::fs::create_dir(&odd).expect("makes");
        std::fs::copy(&host.files.ca, odd.join("ca.pem")).expect("copies");
        host.files = Files::in_run_dir(&odd);
        let error = host.plan().expect_err("odd").to_string();
        assert!(error.contains("letters, digits and ._-"), "{error}");
    }

    #[test]
    fn red_hats_trust_store_has_its_own_place_and_an_unknown_one_is_said_to_be_left_out() {
        let host = Unpacked::new();
        let [debian, red_hat] =
            [Store::Debian, Store::RedHat].map(|store| host.path(&store.tool()[1..]));
        std::fs::remove_file(&debian).expect("removes");
        let left_out = host.plan().expect("plans").left_out.join("");
        assert!(
            left_out.contains("the trust store is of no kind that is known"),
            "{left_out}"
        );
        host.write(&Store::RedHat.tool()[1..], "");
        host.set_up().expect("sets up");
        assert!(red_hat.exists());
        assert_eq!(host.text(&Store::RedHat.place()[1..]), pem_of(b"ours"));
    }

    #[test]
    fn where_a_file_is_in_the_place_of_a_folder_that_is_said_and_nothing_is_written() {
        let host = Unpacked::new();
        host.write("etc/profile.d", "no folder");
        let before = host.everything();
        let error = format!("{:#}", host.set_up().expect_err("no folder"));
        assert!(
            error.contains("etc/profile.d/enforcer-clients.sh: Not a directory"),
            "{error}"
        );
        assert_eq!(host.everything(), before);
    }

    #[test]
    fn a_store_whose_tool_has_not_run_yet_is_made_anew_though_the_file_is_there() {
        let host = Unpacked::new();
        host.set_up().expect("sets up");
        assert_eq!(host.plan().expect("plans").store, Some(Store::Debian));
    }
}
