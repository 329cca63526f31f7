//! `enforcer gcp doctor`: has the way to Google looked at, and prints each check as it comes. Where a daemon runs it is the daemon that looks: the
//! kernel refuses BigQuery to everybody else, and what the daemon goes by is what is wanted.
#![expect(clippy::print_stdout, reason = "this is the command line")]

use std::path::Path;
use std::process::ExitCode;

use enforcer_proto::check::{Check, Link, Mark};
use enforcer_proto::principal::AgentName;
use enforcer_proto::wire::{Ask, Reply};
use tokio::sync::mpsc;

use super::{EXIT_ERROR, Failure, ask};
use crate::causes::Causes;
use crate::config::Config;
use crate::doctor::Asked;

/// What was said so far, counted.
struct Said {
    json: bool,
    counts: [(Mark, usize); 4],
}

/// Has everything looked at. A failure makes the exit code one.
pub(super) fn run(path: &Path, agent: Option<AgentName>, json: bool) -> Result<ExitCode, Failure> {
    let mut said = Said::new(json);
    match Config::load(path) {
        Ok(config) => ask::runtime()?.block_on(look(&config, agent, &mut said))?,
        Err(error) => {
            let why = Causes(&error).to_string();
            let cure = Some("correct the file, or name another by --config");
            said.say(&Check::new(
                Mark::Fail,
                Link::Files,
                "configuration",
                &why,
                cure,
            ))?;
            let needs = "it needs the configuration";
            let rest = Check::new(Mark::NotTried, Link::Names, "everything else", needs, None);
            said.say(&rest)?;
        }
    }
    Ok(said.end())
}

async fn look(config: &Config, agent: Option<AgentName>, said: &mut Said) -> Result<(), Failure> {
    let socket = config.socket();
    let has_daemon = std::os::unix::net::UnixStream::connect(&socket).is_ok();
    let digest = config.digest();
    if !has_daemon {
        return alone(config, Asked { agent, digest }, said).await;
    }
    let mut client = ask::connect(&socket).await?;
    let ask = Ask::Doctor {
        agent,
        config: digest,
    };
    let mut reply = ask::asked(&socket, &mut client, &ask).await?;
    loop {
        match reply {
            Reply::Checked(check) => said.say(&check)?,
            Reply::Done => return Ok(()),
            Reply::Refused(refusal) => return Err(Failure::Refused(refusal)),
            Reply::Requested { .. }
            | Reply::Counted(_)
            | Reply::Opened(_)
            | Reply::GivenBack(_)
            | Reply::Status(_)
            | Reply::Records(_)
            | Reply::Joined(_)
            | Reply::Notified(_) => return Err(ask::something_else("a check")),
        }
        let next = client.next().await;
        reply = next.map_err(|error| Failure::Unreachable(socket.clone(), error))?;
    }
}

/// Without a daemon this process looks, with the issuer's key where it may read that.
async fn alone(config: &Config, asked: Asked, said: &mut Said) -> Result<(), Failure> {
    crate::token::harden()?;
    let doctor = crate::app::doctor_without_daemon(config).await?;
    let (to, mut checks) = mpsc::channel(1);
    let print = async {
        while let Some(check) = checks.recv().await {
            said.say(&check)?;
        }
        Ok(())
    };
    let (_, printed) = tokio::join!(doctor.examine(asked, to), print);
    printed
}

impl Said {
    const fn new(json: bool) -> Self {
        let counts = [
            (Mark::Ok, 0),
            (Mark::Fail, 0),
            (Mark::NotTried, 0),
            (Mark::Note, 0),
        ];
        Self { json, counts }
    }

    fn say(&mut self, check: &Check) -> Result<(), Failure> {
        for (mark, count) in &mut self.counts {
            *count += usize::from(*mark == check.mark);
        }
        if self.json {
            super::say_json(&serde_json::to_value(check)?);
        } else {
            println!("{check}");
        }
        Ok(())
    }

    fn end(self) -> ExitCode {
        let [(_, ok), (_, failed), (_, not_tried), (_, notes)] = self.counts;
        if !self.json {
            println!("{ok} ok, {failed} failed, {not_tried} not tried, {notes} notes");
        }
        if failed > 0 {
            ExitCode::from(EXIT_ERROR)
        } else {
            ExitCode::SUCCESS
        }
    }
}
