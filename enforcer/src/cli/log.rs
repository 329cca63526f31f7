//! The log as people read it: one line a record, the story of a window, why something was allowed or refused; for other
//! programs.

mod args;
mod codes;
mod export;
mod source;
mod story;
#[cfg(test)]
mod tests;
mod why;

use std::path::Path;

use enforcer_proto::audit::Record;
use enforcer_proto::sentence::sentence;

pub(super) use args::{FilterArgs, PlaceArgs, ReadArgs};
pub(super) use export::Format;
use source::{Source, lines};

use super::Failure;
use super::ask::runtime;
use crate::search::{INDEX_NAME, Index};
use enforcer_proto::text::{safe_json, utc};
pub(super) use enforcer_proto::why::Id;

/// Prints the records that are asked for, and with `--follow` those that come.
pub(super) fn read(socket: &Path, asked: &ReadArgs, json: bool) -> Result<(), Failure> {
    let filter = asked.filter.filter();
    if asked.follow {
        // Asked for once: what is there, and what comes.
        return runtime()?.block_on(lines(socket, true, asked.limit, filter, &mut |line| {
            match serde_json::from_str::<Record>(line) {
                Ok(record) => print(&record, line, json),
                Err(_) => {
                    println!("?  a record that cannot be read; check with: enforcer log verify")
                }
            }
            Ok(())
        }));
    }
    let source = Source::of(socket, &asked.place);
    source.each(filter, asked.limit, &mut |record, line| {
        print(record, line, json);
        Ok(())
    })
}

/// Tells the story of a window, a request or a query.
pub(super) fn show(socket: &Path, id: Id, place: &PlaceArgs, json: bool) -> Result<(), Failure> {
    story::show(&Source::of(socket, place), id, json)
}

/// Says why something was allowed or refused.
pub(super) fn why(socket: &Path, id: Id, place: &PlaceArgs, json: bool) -> Result<(), Failure> {
    why::why(&Source::of(socket, place), id, json)
}

/// Writes the records that are asked for in another form.
pub(super) fn export(
    socket: &Path,
    filter: &FilterArgs,
    place: &PlaceArgs,
    format: Format,
) -> Result<(), Failure> {
    export::export(&Source::of(socket, place), filter.filter(), format)
}

/// Builds the index of the log in `dir`, or brings it up to date.
pub(super) fn index(
    dir: &Path,
    file: Option<&Path>,
    rebuild: bool,
    json: bool,
) -> Result<(), Failure> {
    let file = file.map_or_else(|| dir.join(INDEX_NAME), Path::to_owned);
    let mut index = Index::open(dir, &file)?;
    let built = index.update(rebuild)?;
    let how = if built.is_anew {
        "built anew"
    } else {
        "up to date"
    };
    if json {
        crate::cli::say_json(
            &serde_json::json!({"index": file, "last": built.last, "added": built.added, "anew": built.is_anew}),
        );
    } else {
        println!(
            "{}: {how}, up to record {}, {} of them taken in now",
            file.display(),
            built.last,
            built.added
        );
    }
    Ok(())
}

/// Prints one record.
fn print(record: &Record, line: &str, json: bool) {
    if json {
        println!("{}", safe_json(line));
    } else {
        println!("{}", line_of(record));
    }
}

/// A record's number, time and sentence.
fn line_of(record: &Record) -> String {
    format!(
        "{:>5}  {}  {}",
        record.seq,
        utc(record.unix_ns),
        sentence(&record.event)
    )
}
