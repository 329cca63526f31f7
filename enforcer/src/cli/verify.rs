//! `enforcer log verify` and `enforcer log key`: checking a log from its files alone. No daemon is asked, and no secret is needed to verify.
#![expect(clippy::print_stdout, reason = "this is the command line")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use enforcer_proto::checkpoint::{Checkpoint, Verifier, notes};
use enforcer_proto::text::{safe_json, utc};

use super::{EXIT_ERROR, Failure};
use crate::audit::publish;
use crate::audit::verify::{Fault, Report, Unfinished, examine};
use crate::config::Config;

/// The longest file of checkpoints that is read, bytes.
const CHECKPOINTS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Prints the public key of this host's checkpoints.
pub(super) fn key(config: &Path, json: bool) -> Result<(), Failure> {
    let config = Config::load(config)?;
    let key = publish::read_key(&config.state_dir, &config.host)?;
    let key = key.ok_or_else(|| {
        anyhow!(
            "there is no key in {} yet: the daemon makes it at its first start",
            publish::key_path(&config.state_dir).display()
        )
    })?;
    let key = key.verifier();
    if json {
        println!(
            "{}",
            safe_json(
                &serde_json::json!({"key": key.to_string(), "origin": key.name()}).to_string()
            )
        );
    } else {
        println!("{key}");
    }
    Ok(())
}

/// Checks the log in `dir`, and compares it with checkpoints where there are some.
pub(super) fn verify(
    dir: &Path,
    signed: Option<&(PathBuf, String)>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let checkpoints = match signed {
        Some((file, key)) => read_checkpoints(file, &read_key(key)?)?,
        None => Vec::new(),
    };
    let report = examine(dir, &checkpoints)?;
    if json {
        println!(
            "{}",
            safe_json(&serde_json::to_string(&report).map_err(anyhow::Error::from)?)
        );
    } else {
        print(&report);
    }
    Ok(if report.whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_ERROR)
    })
}

fn read_key(key: &str) -> anyhow::Result<Verifier> {
    let path = Path::new(key);
    let text = if path.is_file() {
        std::fs::read_to_string(path).with_context(|| format!("reading the key in {key}"))?
    } else {
        key.to_owned()
    };
    text.parse().with_context(|| format!("the key `{key}`"))
}

/// Every checkpoint of a file, each signed by the key: one that is not is no witness of anything.
fn read_checkpoints(file: &Path, key: &Verifier) -> anyhow::Result<Vec<Checkpoint>> {
    let at = || format!("reading {}", file.display());
    let bytes = std::fs::metadata(file).with_context(at)?.len();
    if bytes > CHECKPOINTS_BYTES_MAX {
        bail!(
            "{} has {bytes} bytes, more than the {CHECKPOINTS_BYTES_MAX} that are read: give the newest checkpoints alone",
            file.display()
        );
    }
    let text = std::fs::read_to_string(file).with_context(at)?;
    let mut read = Vec::new();
    for (number, note) in notes(&text).enumerate() {
        let checkpoint = key
            .verify(note)
            .with_context(|| format!("checkpoint {} of {}", number + 1, file.display()))?;
        read.push(checkpoint);
    }
    if read.is_empty() {
        bail!("{} holds no checkpoint", file.display());
    }
    Ok(read)
}

fn print(report: &Report) {
    for fault in &report.faults {
        let file = fault.file.as_ref();
        let place = file.map_or_else(String::new, |file| format!("{}: ", file.display()));
        println!("BAD  {place}{}", Fault::why_with_record(fault));
    }
    if report.faults_left_out > 0 {
        println!("BAD  and {} more", report.faults_left_out);
    }
    if let Some(unfinished) = &report.unfinished {
        println!("NOTE: {}", of_unfinished(unfinished));
    }
    if !report.whole {
        println!("the log is not what was written: keep it as evidence");
        return;
    }
    let since = if report.first_record > 1 {
        format!(
            " from record {} on (older ones were removed, on record)",
            report.first_record
        )
    } else {
        String::new()
    };
    println!(
        "the chain is whole{since}: {} records, head {}",
        report.records, report.head
    );
    match (report.signed_record, report.signed_unix_ns) {
        (Some(record), Some(unix_ns)) => println!(
            "it is what was signed, up to record {record} ({}, {} checkpoints compared); the {} records behind that are not signed yet",
            utc(unix_ns),
            report.checkpoints,
            report.records - record
        ),
        (None, _) | (_, None) => println!(
            "NOTE: without a checkpoint (--checkpoint, --key) a cut-off end, or a log rewritten as a whole, cannot be seen"
        ),
    }
}

fn of_unfinished(unfinished: &Unfinished) -> String {
    format!(
        "{}: behind the last record stand {} bytes of another, {}, without an end: it is being written just now, or the disk was full, or the host died, in the middle of it. Nothing was allowed by it, and the daemon cuts it off before it writes on",
        unfinished.file.display(),
        unfinished.bytes,
        unfinished.record
    )
}
