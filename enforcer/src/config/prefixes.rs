//! The file of shared prefixes: one network a line, `#` starts a comment. What is not a network is named by its line; nothing is guessed.

use std::path::Path;

use ipnet::IpNet;

use super::{ConfigError, malformed, read};

/// The most prefixes in the file; the kernel's maps hold twice as many of each family.
const PREFIXES_MAX: usize = 8192;

/// Reads the file.
///
/// # Errors
/// [`ConfigError`], naming the line.
pub(super) fn load(path: &Path) -> Result<Vec<IpNet>, ConfigError> {
    parse(&read(path)?).map_err(|why| malformed(path, why))
}

fn parse(text: &str) -> Result<Vec<IpNet>, String> {
    let mut prefixes = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let prefix: IpNet = line.parse().map_err(|_| {
            format!(
                "line {}: `{line}` is not a network such as 142.250.0.0/15",
                at + 1
            )
        })?;
        if prefix != prefix.trunc() {
            return Err(format!(
                "line {}: `{line}` has bits behind its length; {} was meant, or a longer one",
                at + 1,
                prefix.trunc()
            ));
        }
        if prefix.prefix_len() == 0 {
            return Err(format!("line {}: `{line}` is the whole internet", at + 1));
        }
        prefixes.push(prefix);
    }
    match prefixes.len() {
        0 => Err("it names no network: an empty list would protect nothing".to_owned()),
        count if count > PREFIXES_MAX => Err(format!(
            "it names {count} networks, and {PREFIXES_MAX} is the most"
        )),
        _ => Ok(prefixes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_passed_over() {
        let text = "# as of today\n\n142.250.0.0/15 # front ends\n2a00:1450::/32\n";
        let read = parse(text).expect("reads");
        assert_eq!(
            read,
            ["142.250.0.0/15", "2a00:1450::/32"].map(|net| net.parse().expect("a network"))
        );
    }

    #[test]
    fn every_mistake_is_named_by_its_line() {
        for (text, said) in [
            ("142.250.0.0/15\ngoogle.com\n", "line 2: `google.com`"),
            ("142.250.0.0\n", "line 1"),
            ("142.250.0.1/15\n", "142.250.0.0/15 was meant"),
            ("::/0\n", "the whole internet"),
            ("{\"prefixes\": []}\n", "line 1"),
            ("# nothing\n", "names no network"),
        ] {
            let why = parse(text).expect_err("is refused");
            assert!(why.contains(said) && !why.contains('\n'), "{why}");
        }
    }
}
