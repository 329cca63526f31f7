//! Text that an agent chose, made safe to show: reasons, SQL, process names. Used by the console, the command line and refusals alike.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The most marks that are shown on one character: more than any script's writing needs, and too few to hide what stands below.
const MARKS_MAX: u32 = 4;

/// Whether a character may reorder, hide or fake what stands around it on a terminal.
///
/// Control characters, and the format characters of Unicode TR36/TR9: bidirectional marks and overrides, zero-width and invisible
/// operators, line and paragraph separators, tags, and variation selectors. Letters and symbols that are drawn as nothing are among them: the fillers
/// of Hangul, Khmer's inherent vowels, the empty pattern of Braille, the joiner of graphemes, and the marks that begin and end beams in music.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// How many columns a terminal takes for `c`: 0 for a mark that is set upon what stands before it.
fn columns_of(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// How many columns a terminal takes for `text`.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.width()
}

/// `text` on one line: deceptive characters as `\u{…}`, at most `chars_max` characters, then `…`. A mark that has nothing to stand on would not be
/// drawn, and one of many would be drawn upon the others: both are written out as well.
#[must_use]
pub fn safe_line(text: &str, chars_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(chars_max));
    // How many more marks what was written last can bear.
    let mut bears = 0;
    for (count, c) in text.chars().enumerate() {
        if count == chars_max {
            out.push('…');
            break;
        }
        match c {
            '\n' | '\r' | '\t' => {
                out.push(' ');
                bears = 0;
            }
            c if is_deceptive(c) => {
                out.extend(c.escape_unicode());
                bears = 0;
            }
            c if columns_of(c) > 0 => {
                out.push(c);
                bears = if c.is_whitespace() { 0 } else { MARKS_MAX };
            }
            c if bears > 0 => {
                out.push(c);
                bears -= 1;
            }
            c => out.extend(c.escape_unicode()),
        }
    }
    out
}

/// `text` in lines of at most so many columns of a terminal, broken at blanks where there are any; its own lines stay lines. What is wider by itself
/// than a line has one of its own.
#[must_use]
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let safe = safe_line(line, usize::MAX);
        let mut rest = safe.as_str();
        while let Some(at) = past(rest, columns) {
            let cut = rest[..at].rfind(' ').filter(|cut| *cut > 0).unwrap_or(at);
            lines.push(rest[..cut].trim_end().to_owned());
            rest = rest[cut..].trim_start();
        }
        lines.push(rest.to_owned());
    }
    lines
}

/// Where what does not fit into so many columns begins, never between a character and its marks; `None` where all of it fits.
fn past(text: &str, columns: usize) -> Option<usize> {
    let mut taken = 0_usize;
    for (at, c) in text.char_indices() {
        taken += columns_of(c);
        if taken > columns && at > 0 {
            return Some(at);
        }
    }
    None
}

/// The beginning of `text`, as much as fits into so many columns of a terminal.
#[must_use]
pub fn cut(text: &str, columns: usize) -> &str {
    let mut taken = 0_usize;
    let past = text.char_indices().find(|(_, c)| {
        taken += columns_of(*c);
        taken > columns
    });
    past.map_or(text, |(at, _)| &text[..at])
}

/// The end of `text`, as much as fits into so many columns of a terminal; marks whose character is cut off go with it.
#[must_use]
pub fn cut_to_end(text: &str, columns: usize) -> &str {
    let (mut taken, mut from) = (0_usize, text.len());
    for (at, c) in text.char_indices().rev() {
        taken += columns_of(c);
        if taken > columns {
            break;
        }
        if columns_of(c) > 0 {
            from = at;
        }
    }
    &text[from..]
}

/// `text` on one line, whole: what would end the line or move along it stands as `\n`, `\r` or `\t`, other deceptive characters as `\u{…}`.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.extend(c.escape_default()),
            c if is_deceptive(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// What begins each line of a text but its first, where it is printed.
const GOES_ON: &str = "│ ";

/// `text` as it is printed, in lines of at most `width` columns of a terminal, at least four: every one but the first begins with `│ `. So where the first begins
/// with a word of ours, nothing that somebody else wrote stands at the margin, where it could be taken for ours.
#[must_use]
pub fn laid_out(text: &str, width: usize) -> Vec<String> {
    // An empty text is an empty line.
    let mut lines = wrapped(text, width.saturating_sub(2).max(1));
    if lines.is_empty() {
        lines.push(String::new());
    }
    for line in lines.iter_mut().skip(1) {
        line.insert_str(0, GOES_ON);
    }
    lines
}

/// A JSON text with every deceptive character in it as `\uXXXX`, those above U+FFFF as two: the same to whoever parses it, and safe to see on a terminal.
///
/// In a JSON text such characters stand in strings alone, but for the blanks, line feeds and tabs between tokens, which stay.
#[must_use]
pub fn safe_json(json: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| is_deceptive(c) && !matches!(c, '\n' | '\r' | '\t');
    if !json.contains(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        if is_hidden(c) {
            let mut units = [0; 2];
            let units = c.encode_utf16(&mut units).iter();
            out.extend(units.map(|unit| format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
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

    #[test]
    fn wide_characters_take_the_columns_that_a_terminal_gives_them() {
        assert_eq!(wrapped("会会会 a", 4), ["会会", "会 a"]);
        assert_eq!(wrapped("会会", 1), ["会", "会"], "it goes on all the same");
        assert_eq!(cut("会会a", 3), "会");
        assert_eq!(cut("e\u{301}e\u{301}", 1), "e\u{301}");
        assert_eq!(cut_to_end("a会会", 3), "会");
        assert_eq!(cut_to_end("e\u{301}o\u{301}", 1), "o\u{301}");
    }

    #[test]
    fn what_is_drawn_as_nothing_is_written_out() {
        for c in "\u{3164}\u{115f}\u{1160}\u{2800}\u{34f}\u{ffa0}\u{17b4}\u{180b}\u{1d173}".chars()
        {
            assert_eq!(
                safe_line(&format!("a{c}b"), 9),
                format!("a{}b", c.escape_unicode())
            );
        }
        assert_eq!(
            safe_line("\u{301}a \u{301}", 9),
            "\\u{301}a \\u{301}",
            "nothing bears it"
        );
        let many = safe_line(&format!("e{}", "\u{301}".repeat(6)), 99);
        assert_eq!(
            many,
            format!("e{}\\u{{301}}\\u{{301}}", "\u{301}".repeat(4))
        );
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_it_may_be_and_none_begins_with_a_mark(text in "[a-z会가\u{301}\u{1160}\u{3164}\u{1F600}\u{1F3FB}\u{1F1E6} \n]{0,60}|.{0,60}", width in 2_usize..24) {
            for line in wrapped(&text, width) {
                prop_assert!(columns(&line) <= width, "{line:?}");
                prop_assert!(line.chars().next().is_none_or(|c| columns_of(c) > 0), "{line:?}");
            }
            let safe = safe_line(&text, usize::MAX);
            prop_assert!(columns(cut(&safe, width)) <= width && columns(cut_to_end(&safe, width)) <= width);
        }
    }

    #[test]
    fn a_text_cannot_make_a_line_of_its_own_where_it_is_printed() {
        let reason = "reason   month end\nagreed   uids 5002, 5003\r\nwanting  nobody";
        let lines = laid_out(reason, 40);
        assert_eq!(
            lines,
            [
                "reason   month end",
                "│ agreed   uids 5002, 5003",
                "│ wanting  nobody"
            ]
        );
        assert_eq!(laid_out("", 40), [""]);
        assert_eq!(laid_out("abcdefg", 5), ["abc", "│ def", "│ g"]);
        assert_eq!(
            one_line("SELECT 1\nq-7\t\u{202e}\r"),
            "SELECT 1\\nq-7\\t\\u{202e}\\r"
        );
    }

    #[test]
    fn json_shows_what_would_hide_in_it_and_says_the_same() {
        let safe = safe_json("{\"a\": \"\u{202e}\u{9b}\u{7f}\u{85}\u{e0041}é\"}");
        assert_eq!(safe, r#"{"a": "\u202e\u009b\u007f\u0085\udb40\udc41é"}"#);
        assert!(matches!(safe_json("{\n\t\"a\": 1}"), Cow::Borrowed(_)));
    }

    /// Text in which deceptive characters are likely.
    fn hostile() -> impl Strategy<Value = String> {
        let character = prop_oneof![
            any::<char>(),
            prop::char::ranges(
                vec![
                    '\u{0}'..='\u{1f}',
                    '\u{7f}'..='\u{a0}',
                    '\u{200b}'..='\u{206f}',
                    '\u{e0000}'..='\u{e0fff}'
                ]
                .into()
            ),
            prop::sample::select(vec!['"', '\\', '/', 'u', '\u{feff}', '\u{ad}']),
        ];
        prop::collection::vec(character, 0..64).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn safe_json_is_the_same_to_a_parser_and_has_nothing_deceptive(text in hostile(), key in hostile()) {
            let value = serde_json::json!({ key: [text] });
            for json in [value.to_string(), serde_json::to_string_pretty(&value).expect("a value")] {
                let safe = safe_json(&json);
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&safe).expect("JSON"), &value);
                let is_hidden = |c| is_deceptive(c) && c != '\n';
                prop_assert!(!safe.contains(is_hidden), "{}", safe);
            }
        }

        #[test]
        fn one_line_is_one_and_no_line_but_the_first_is_without_its_mark(text in hostile(), width in 4_usize..60) {
            prop_assert!(!one_line(&text).contains(is_deceptive));
            let lines = laid_out(&text, width);
            prop_assert!(lines.iter().all(|line| columns(line) <= width && !line.contains(is_deceptive)));
            prop_assert!(lines.iter().skip(1).all(|line| line.starts_with("│ ")));
        }

        #[test]
        fn nothing_but_blanks_is_lost_and_no_line_is_too_long(text in "[a-zé ,\n]{0,80}", chars in 1_usize..20) {
            let lines = wrapped(&text, chars);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= chars));
            let solid = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(solid(&lines.concat()), solid(&text));
        }
    }
}
