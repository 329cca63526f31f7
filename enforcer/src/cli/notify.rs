//! `enforcer notify test`: tries whether notices arrive.
#![expect(clippy::print_stdout, reason = "this is the command line")]

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use enforcer_proto::wire::{Ask, Reply};

use super::{EXIT_ERROR, Failure, ask};

#[derive(Subcommand, Debug)]
pub(super) enum NotifyCommand {
    /// Have the daemon send a notice that says that it is a test, once, and print what came of it.
    Test {
        /// To which hook; each when absent.
        #[arg(long)]
        hook: Option<String>,
    },
}

pub(super) fn run(socket: &Path, command: NotifyCommand, json: bool) -> Result<ExitCode, Failure> {
    let NotifyCommand::Test { hook } = command;
    let reply = ask::runtime()?.block_on(ask::ask_once(socket, &Ask::NotifyTest { hook }))?;
    let Reply::Notified(tested) = reply else {
        return Err(Failure::Other(anyhow::anyhow!(
            "the daemon answered something else than what came of the test"
        )));
    };
    if json {
        crate::cli::say_json(&serde_json::json!({"tested": tested}));
    } else {
        for one in &tested {
            match &one.trouble {
                None => println!("{}: it arrived", one.hook),
                Some(why) => println!("{}: it did not arrive: {why}", one.hook),
            }
        }
    }
    let is_good = tested.iter().all(|one| one.trouble.is_none());
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_ERROR)
    })
}
