//! How commands print: text of which nothing that an agent wrote stands at the margin, JSON in which nothing deceptive stands as itself.

use std::io::{self, Write};

use enforcer_proto::text::{laid_out, one_line, safe_json};
use serde::Serialize;

use super::TwinError;
use crate::app::popup::clock;
use crate::app::tail::Entry;

/// How wide lines of text are, columns.
const WIDTH: usize = 100;

/// Prints fields, each of which begins with a word of ours; what goes on below that is marked.
pub(super) fn print(fields: &[String]) -> Result<(), TwinError> {
    let mut out = io::stdout().lock();
    for line in fields.iter().flat_map(|field| laid_out(field, WIDTH)) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Prints one object on a line.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), TwinError> {
    let json = serde_json::to_string(value)?;
    Ok(writeln!(io::stdout().lock(), "{}", safe_json(&json))?)
}

/// Prints a line of the log.
pub(super) fn print_record(line: &str, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return writeln!(out, "{}", safe_json(line));
    }
    match Entry::read(line) {
        Some(entry) => writeln!(
            out,
            "{:>6}  {}  {}",
            entry.record.seq,
            clock(entry.record.unix_ns),
            one_line(&entry.sentence)
        ),
        None => writeln!(out, "     ?  a record that this release cannot read"),
    }
}
