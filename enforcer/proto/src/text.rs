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

/// Shortens `text` to at most `bytes_max` bytes, the last of which are `…`. One that is short enough stays as it is.
pub fn shorten(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
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
}
