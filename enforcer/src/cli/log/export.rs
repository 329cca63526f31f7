//! The log for other programs: JSON lines, CSV, or events of the Open Cybersecurity Schema Framework. Written as it is read; nothing is held.

mod csv;
mod ocsf;

use std::io::{self, BufWriter, Write};

use clap::ValueEnum;
use enforcer_proto::search::Filter;

use super::source::Source;
use crate::cli::Failure;

/// In which form the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// A record a line, as it is in the log; it can be verified no more than the part that it is.
    Json,
    /// RFC 4180, a head line first; cells that a spreadsheet would take for a formula have a ' before them.
    Csv,
    /// OCSF 1.2.0, an event a line.
    Ocsf,
}

/// Writes the records that `filter` wants to standard output.
pub(super) fn export(source: &Source, filter: Filter, format: Format) -> Result<(), Failure> {
    let out = BufWriter::new(io::stdout().lock());
    write(source, filter, format, out)
}

fn write(
    source: &Source,
    filter: Filter,
    format: Format,
    mut out: impl Write,
) -> Result<(), Failure> {
    match format {
        Format::Json => source.each(filter, None, &mut |_, line| Ok(writeln!(out, "{line}")?))?,
        Format::Csv => {
            let mut csv = csv::Table::begin(&mut out)?;
            source.each(filter, None, &mut |record, _| csv.row(record))?;
            csv.end()?;
        }
        Format::Ocsf => {
            let hosts = ocsf::Hosts::of(source)?;
            source.each(filter, None, &mut |record, _| {
                let event = ocsf::event(record, hosts.at(record.seq));
                serde_json::to_writer(&mut out, &event)?;
                Ok(out.write_all(b"\n")?)
            })?;
        }
    }
    Ok(out.flush()?)
}
