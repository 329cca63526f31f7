//! The Cloud SDK's properties: INI as Python's configparser reads it. Only single lines are changed; all others stay as they are, byte for byte.

use anyhow::{Result, bail};

/// The line ends of a text that has none of its own.
const LINE_END: &str = "\n";

/// A property of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Property {
    pub(super) section: &'static str,
    pub(super) key: &'static str,
}

/// What a line is to configparser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind<'a> {
    Section(&'a str),
    Key(&'a str),
    /// More of the value before it.
    More,
    /// A comment, or nothing.
    Nothing,
}

/// One line, its end included, and what it is.
struct Line<'a> {
    text: &'a str,
    kind: Kind<'a>,
    /// The section that it stands in or begins.
    section: &'a str,
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let (mut section, mut is_in_value) = ("", false);
    let mut found = Vec::new();
    for line in text.split_inclusive('\n') {
        let kind = kind(line, is_in_value);
        match kind {
            Kind::Section(name) => (section, is_in_value) = (name, false),
            Kind::Key(_) => is_in_value = true,
            Kind::More | Kind::Nothing => {}
        }
        found.push(Line {
            text: line,
            kind,
            section,
        });
    }
    found
}

fn kind(line: &str, is_in_value: bool) -> Kind<'_> {
    let bare = line.trim();
    if bare.is_empty() || bare.starts_with(['#', ';']) {
        return Kind::Nothing;
    }
    if is_in_value && line.starts_with([' ', '\t']) {
        return Kind::More;
    }
    match bare
        .strip_prefix('[')
        .and_then(|rest| rest.rsplit_once(']'))
    {
        Some((name, _)) => Kind::Section(name),
        None => Kind::Key(bare.split(['=', ':']).next().unwrap_or_default().trim()),
    }
}

impl Line<'_> {
    fn is_of(&self, property: Property) -> bool {
        // Sections are told apart by their case, and keys are not.
        matches!(self.kind, Kind::Key(key) if key.eq_ignore_ascii_case(property.key))
            && self.section == property.section
    }
}

/// Says what the Cloud SDK would not read.
///
/// # Errors
/// A sentence that names the line.
pub(super) fn check(text: &str) -> Result<()> {
    let lines = lines(text);
    for (at, line) in lines.iter().enumerate() {
        check_line(at, line.text, line.kind)?;
        if let (Kind::More, Some(Kind::Nothing)) =
            (line.kind, at.checked_sub(1).map(|at| lines[at].kind))
        {
            bail!(
                "line {} goes on with a value behind an empty line or a comment, which is easily overlooked: put it behind the value's first line",
                at + 1
            );
        }
        let earlier = lines[..at]
            .iter()
            .position(|other| match (line.kind, other.kind) {
                (Kind::Section(one), Kind::Section(two)) => one == two,
                (Kind::Key(one), Kind::Key(two)) => {
                    line.section == other.section && one.eq_ignore_ascii_case(two)
                }
                (Kind::Section(_) | Kind::Key(_) | Kind::More | Kind::Nothing, _) => false,
            });
        if let Some(earlier) = earlier {
            bail!(
                "lines {} and {} say the same thing twice, and the Cloud SDK reads no such file: take one of them out",
                earlier + 1,
                at + 1
            );
        }
        if matches!(line.kind, Kind::Key(_)) && line.section.is_empty() {
            bail!(
                "line {} stands in no section, and the Cloud SDK reads no such file: correct it",
                at + 1
            );
        }
    }
    Ok(())
}

/// Says what of a line alone the Cloud SDK would not read, or would read as more than one.
fn check_line(at: usize, text: &str, kind: Kind<'_>) -> Result<()> {
    let at = at + 1;
    if text.trim_end_matches(['\r', '\n']).contains('\r') {
        bail!("line {at} has a carriage return in it, at which the Cloud SDK ends it: take it out");
    }
    if matches!(kind, Kind::Key(_)) && !text.contains(['=', ':']) {
        bail!(
            "line {at} gives its property no value, and the Cloud SDK reads no such file: correct it"
        );
    }
    Ok(())
}

/// The value of a property.
pub(super) fn value(text: &str, property: Property) -> Option<String> {
    let lines = lines(text);
    let line = lines.iter().find(|line| line.is_of(property))?;
    let (_, value) = line.text.split_once(['=', ':'])?;
    Some(value.trim().to_owned())
}

/// The text with the property set, everything else as it was.
pub(super) fn with(text: &str, property: Property, value: &str) -> String {
    let end = if text.contains("\r\n") {
        "\r\n"
    } else {
        LINE_END
    };
    let new = format!("{} = {value}{end}", property.key);
    let lines = lines(text);
    let place = lines.iter().position(|line| line.is_of(property));
    let in_section = lines
        .iter()
        .rposition(|line| line.section == property.section && line.kind != Kind::Nothing);
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        let is_old = place.is_some_and(|place| is_of_value(&lines, place, at));
        if place == Some(at) {
            out += &new;
        } else if !is_old {
            out += &ended(line.text, end);
        }
        if place.is_none() && in_section == Some(at) {
            out += &new;
        }
    }
    if place.is_none() && in_section.is_none() {
        out += &format!("[{}]{end}{new}", property.section);
    }
    out
}

/// The text without the property, and without its section where that has nothing else left and `keeps_section` does not say that it stays.
pub(super) fn without(text: &str, property: Property, keeps_section: bool) -> String {
    let lines = lines(text);
    let Some(place) = lines.iter().position(|line| line.is_of(property)) else {
        return text.to_owned();
    };
    let rest = |at: &usize| !is_of_value(&lines, place, *at);
    let has_more = (0..lines.len())
        .filter(rest)
        .any(|at| lines[at].section == property.section && matches!(lines[at].kind, Kind::Key(_)));
    let is_kept = |at: &usize| {
        let is_header = lines[*at].kind == Kind::Section(property.section);
        rest(at) && (has_more || keeps_section || !is_header)
    };
    (0..lines.len())
        .filter(is_kept)
        .map(|at| lines[at].text)
        .collect()
}

/// Whether a text has this section.
pub(super) fn has_section(text: &str, name: &str) -> bool {
    lines(text)
        .iter()
        .any(|line| line.kind == Kind::Section(name))
}

/// Whether line `at` is the property's that begins in line `place`, or more of its value.
fn is_of_value(lines: &[Line<'_>], place: usize, at: usize) -> bool {
    at >= place
        && lines[place + 1..=at.max(place)]
            .iter()
            .all(|line| line.kind == Kind::More)
}

/// A last line without an end gets one: something comes after it.
fn ended(line: &str, end: &str) -> String {
    if line.ends_with('\n') {
        line.to_owned()
    } else {
        format!("{line}{end}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CA: Property = Property {
        section: "core",
        key: "custom_ca_certs_file",
    };
    const TOKEN: Property = Property {
        section: "auth",
        key: "access_token_file",
    };

    #[test]
    fn a_property_is_set_in_its_section_and_nothing_else_changes() {
        let before = "[core]\ndisable_usage_reporting = True\ncustom_ca_certs_file = /old\n\n[proxy]\ntype = http\n";
        let after = with(before, CA, "/new");
        assert_eq!(after, before.replace("/old", "/new"));
        assert_eq!(with(&after, CA, "/new"), after, "once more changes nothing");
        assert_eq!(
            with(&after, TOKEN, "/token"),
            format!("{after}[auth]\naccess_token_file = /token\n")
        );
        assert_eq!(with("", CA, "1"), "[core]\ncustom_ca_certs_file = 1\n");
    }

    #[test]
    fn what_configparser_reads_as_the_same_key_is_the_same_key() {
        for before in [
            "[core]\nCustom_CA_Certs_File: /old\n",
            "[core]\ncustom_ca_certs_file=/old\n  /more\n\t/still\n",
            "[core] ; of the site\ncustom_ca_certs_file = /old",
        ] {
            let after = with(before, CA, "/new");
            assert_eq!(value(&after, CA).as_deref(), Some("/new"), "{before:?}");
            assert!(
                !after.contains("/old") && !after.contains("/more") && !after.contains("/still"),
                "{after:?}"
            );
        }
        // Another section, a comment, a part of another value.
        for before in [
            "[Core]\ncustom_ca_certs_file = /old\n",
            "[core]\n# custom_ca_certs_file = /old\n",
            "[core]\nx = 1\n  custom_ca_certs_file = /old\n",
        ] {
            assert_eq!(value(before, CA), None, "{before:?}");
            let after = with(before, CA, "/new");
            let kept = has_section(before, CA.section);
            assert_eq!(without(&after, CA, kept), before);
        }
    }

    #[test]
    fn lines_that_end_otherwise_keep_their_ends() {
        assert_eq!(
            with("[core]\r\na = 1\r\n", CA, "/new"),
            "[core]\r\na = 1\r\ncustom_ca_certs_file = /new\r\n"
        );
        assert_eq!(
            with("[core]\na = 1", CA, "/new"),
            "[core]\na = 1\ncustom_ca_certs_file = /new\n"
        );
    }

    #[test]
    fn what_the_cloud_sdk_would_not_read_is_said_by_its_lines() {
        for (text, says) in [
            ("[core]\na = 1\n[proxy]\n[core]\n", "lines 1 and 4"),
            ("[core]\na = 1\n\nA: 2\n", "lines 2 and 4"),
            ("a = 1\n[core]\n", "line 1 stands in no section"),
            ("[core]\nproject\n", "line 2 gives its property no value"),
            ("[core]\na = /x\n  /y\n\n  /z\n", "line 5 goes on"),
            ("[core]\na = 1\r[auth]\n", "line 2 has a carriage return"),
        ] {
            let error = check(text).expect_err(text).to_string();
            assert!(error.contains(says), "{error}");
        }
        check("# all\n[core]\na = 1\n[proxy]\na = 1\n").expect("is good");
    }

    #[test]
    fn a_section_that_is_left_empty_goes_only_where_it_need_not_stay() {
        let text = "[core]\ncustom_ca_certs_file = /x\n[proxy]\ntype = http\n";
        assert_eq!(without(text, CA, false), "[proxy]\ntype = http\n");
        assert_eq!(without(text, CA, true), "[core]\n[proxy]\ntype = http\n");
        assert_eq!(without(text, TOKEN, false), text);
    }

    proptest! {
        #[test]
        fn a_property_that_was_not_there_goes_without_a_trace(
            text in "(\\[(core|auth|Core)\\]\n|(a|b) = [a-z /]{0,4}\n|  more\n|# c\n|\n){0,8}"
        ) {
            prop_assume!(check(&text).is_ok() && value(&text, CA).is_none());
            let keeps = has_section(&text, CA.section);
            prop_assert_eq!(without(&with(&text, CA, "/x"), CA, keeps), text);
        }
    }
}
