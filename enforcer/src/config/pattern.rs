//! Patterns of cgroups' and units' names. `*` stands for any part of one name, none included, and everything else for itself.

use std::path::Path;

/// Whether a name is a pattern.
pub(super) fn is_pattern(name: &str) -> bool {
    name.contains('*')
}

/// Whether a pattern means this name.
#[must_use]
pub(crate) fn means(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts = rest.split('*');
    let last = parts.next_back().unwrap_or_default();
    for part in parts {
        // The first place leaves the most for what follows.
        let Some(at) = left.find(part) else {
            return false;
        };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}

/// Whether a cgroup that a pattern of paths means may be this one, or lie inside of it or around it.
pub(super) fn may_be_nested(pattern: &Path, path: &Path) -> bool {
    let mut both = pattern.iter().zip(path);
    both.all(|(part, name)| means(&part.to_string_lossy(), &name.to_string_lossy()))
}

/// What is wrong with a pattern of paths, or a path.
pub(super) fn wrong_path(path: &Path) -> Option<&'static str> {
    let names = || path.iter().map(|part| part.to_string_lossy());
    if names().any(|name| is_foreign(&name)) {
        return Some(
            "in `cgroup` only `*` is a pattern, and stands for any part of one name: `?`, `[`, `]` and `**` are none, and are taken for no name",
        );
    }
    let is_any = path.file_name().is_some_and(|name| name == "*");
    is_any
        .then_some("the last name in `cgroup` would be any: name a part of it, as in agents/*bot*")
}

/// What is wrong with a pattern of units' names, or a name.
pub(super) fn wrong_unit(name: &str) -> Option<&'static str> {
    if is_foreign(name) {
        return Some(
            "in `unit` only `*` is a pattern, and stands for any part of the name: `?`, `[`, `]` and `**` are none, and no unit is called so",
        );
    }
    let is_any = name.rsplit_once('.').is_some_and(|(name, _)| name == "*");
    is_any.then_some("`unit` would be any: name a part of it, as in bot@*.service")
}

/// Whether somebody who wrote this took it for another kind of pattern.
fn is_foreign(name: &str) -> bool {
    name.contains(['?', '[', ']']) || name.contains("**")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_asterisk_is_any_part_of_a_name_and_everything_else_itself() {
        for (pattern, name) in [
            ("bot", "bot"),
            ("*bot*", "bot"),
            ("*bot*", "my-bot-1"),
            ("bot@*.service", "bot@1.service"),
            ("bot@*.service", "bot@.service"),
            ("a*b*c", "abbc"),
            ("a*ba", "ababa"),
        ] {
            assert!(means(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("bot", "bots"),
            ("bot*", "my-bot"),
            ("*bot", "bot-1"),
            ("bot@*.service", "bot@1.scope"),
            ("a*a", "a"),
            ("a*bc*c", "abc"),
            ("", "a"),
        ] {
            assert!(!means(pattern, name), "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_of_which_parts_were_left_out_is_meant_and_nothing_else_is_than_by_trying_all(pattern in "[ab*]{0,6}", name in "[ab]{0,6}") {
            fn by_trying_all(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern, name) {
                    ([], []) => true,
                    ([b'*', rest @ ..], _) => (0..=name.len()).any(|at| by_trying_all(rest, &name[at..])),
                    ([one, rest @ ..], [other, left @ ..]) => one == other && by_trying_all(rest, left),
                    ([], [_, ..]) | ([_, ..], []) => false,
                }
            }
            prop_assert_eq!(means(&pattern, &name), by_trying_all(pattern.as_bytes(), name.as_bytes()));
        }
    }

    #[test]
    fn a_pattern_may_be_what_it_means_and_what_lies_inside_of_that_or_around_it() {
        let may = |pattern: &str, path: &str| may_be_nested(Path::new(pattern), Path::new(path));
        assert!(may("agents/*bot*", "agents/my-bot"));
        assert!(may("agents/*bot*", "agents"));
        assert!(may("agents/*bot*", "agents/my-bot/inner"));
        assert!(!may("agents/*bot*", "agents/other"));
        assert!(!may("agents/*bot*", "others/bot"));
    }
}
