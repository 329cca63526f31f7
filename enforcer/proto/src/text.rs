//! Text that an agent chose, made safe to show: reasons, SQL, process names. Used by the console, the command line and refusals alike.

/// Whether a character may reorder, hide or fake what stands around it on a terminal.
///
/// Control characters, and the format characters of Unicode TR36/TR9: bidirectional marks and overrides, zero-width and invisible
/// operators, line and paragraph separators, tags, and variation selectors.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// `text` on one line: deceptive characters as `\u{…}`, at most `chars_max` characters, then `…`.
#[must_use]
pub fn safe_line(text: &str, chars_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(chars_max));
    for (count, c) in text.chars().enumerate() {
        if count == chars_max {
            out.push('…');
            break;
        }
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c if is_deceptive(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// `text` in lines of at most `chars` characters, broken at blanks where there are any; its own lines stay lines.
#[must_use]
pub fn wrapped(text: &str, chars: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let safe = safe_line(line, usize::MAX);
        let mut rest = safe.as_str();
        while let Some((at, _)) = rest.char_indices().nth(chars) {
            let cut = rest[..at].rfind(' ').filter(|cut| *cut > 0).unwrap_or(at);
            lines.push(rest[..cut].trim_end().to_owned());
            rest = rest[cut..].trim_start();
        }
        lines.push(rest.to_owned());
    }
    lines
}

/// Shortens `text` to at most `bytes_max` bytes, the last of which are `…`. One that is short enough stays as it is.
pub fn shorten(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
}

/// Shortens `text` to its last `bytes_max` bytes, the first of which are `…`. One that is short enough stays as it is.
pub fn keep_end(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let from = text.len() - bytes_max.saturating_sub('…'.len_utf8());
        let from = text.ceil_char_boundary(from);
        text.replace_range(..from, "…");
    }
}

/// Keeps at most `most` of these sentences; the last of them then says how many more there were.
pub fn keep(sentences: &mut Vec<String>, most: usize) {
    if sentences.len() > most {
        let more = sentences.split_off(most.saturating_sub(1)).len();
        sentences.push(format!("and {more} more"));
    }
}

/// Unix nanoseconds as people read them, UTC.
#[must_use]
pub fn utc(unix_ns: u64) -> String {
    let at = i64::try_from(unix_ns / 1_000_000)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| unix_ns.to_string(), |at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_and_overrides_become_visible() {
        assert_eq!(
            safe_line("a\u{1b}[2Jb\u{202e}c\nd", 100),
            "a\\u{1b}[2Jb\\u{202e}c d"
        );
        assert_eq!(safe_line("abcdef", 3), "abc…");
    }

    #[test]
    fn a_text_is_shortened_between_characters_and_says_so() {
        let shortened = |text: &str, bytes_max| {
            let mut text = text.to_owned();
            shorten(&mut text, bytes_max);
            text
        };
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abc…");
        assert_eq!(shortened("aééé", 6), "aé…");
    }

    #[test]
    fn sentences_past_those_that_are_kept_are_counted() {
        let kept = |count: u32| {
            let mut sentences = (0..count).map(|at| at.to_string()).collect();
            keep(&mut sentences, 3);
            sentences
        };
        assert_eq!(kept(3), ["0", "1", "2"]);
        assert_eq!(kept(4), ["0", "1", "and 2 more"]);
        assert_eq!(kept(10_000), ["0", "1", "and 9998 more"]);
    }

    #[test]
    fn lines_are_broken_at_blanks_and_hostile_ones_are_shown() {
        assert_eq!(wrapped("SELECT a FROM b", 9), ["SELECT a", "FROM b"]);
        assert_eq!(wrapped("abcdefgh\nij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrapped("a\u{1b}[2J", 20), ["a\\u{1b}[2J"]);
    }

    proptest! {
        #[test]
        fn nothing_but_blanks_is_lost_and_no_line_is_too_long(text in "[a-zé ,\n]{0,80}", chars in 1_usize..20) {
            let lines = wrapped(&text, chars);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= chars));
            let solid = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(solid(&lines.concat()), solid(&text));
        }
    }
}
