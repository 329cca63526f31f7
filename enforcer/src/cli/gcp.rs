//! `enforcer gcp`: what Google is to be told of this host, and how its key is changed. But for `doctor` (`doctor.rs`) it asks no daemon and no Google,
//! and holds no authority but that of whoever may read the host's key.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the command line"
)]

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::{Args, Subcommand};
use enforcer_proto::principal::AgentName;
use serde_json::json;

use super::{ConfigArg, Failure};
use crate::app::publish_keys;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, KeyStore, TokenSource};
use crate::gcp::Plan;
use crate::token::{self, KNOWN_AFTER, LAST_FOR, Step};

#[derive(Subcommand, Debug)]
pub(super) enum GcpCommand {
    /// Print the issuer's public keys, as `--jwk-json-path` of a workload identity provider takes them.
    Jwks(ConfigArg),
    /// Print what Google must be told for this configuration and policy, as commands for gcloud and bq, or as Terraform. Tells Google nothing.
    Setup {
        #[command(flatten)]
        config: ConfigArg,
        /// As Terraform.
        #[arg(long)]
        terraform: bool,
    },
    /// Look at each link of the way to Google, live: names, TLS, this host's key and clock, each agent's token, jobs and datasets. One line for each,
    /// with what failed and the cure. The daemon looks where one runs (as root). Reads no rows, runs nothing that costs, writes nothing.
    Doctor {
        #[command(flatten)]
        config: ConfigArg,
        /// Only of this agent, or of the estimator by its name.
        #[arg(long)]
        agent: Option<AgentName>,
    },
    /// Print the issuer's discovery document, for whoever serves it; Google does not read it where it is given the keys.
    Discovery(ConfigArg),
    /// Change the issuer's key without a gap, in three steps: make the next one, have it sign, be rid of the last one. Each says what comes next.
    RotateKey(RotateArgs),
}

#[derive(Args, Debug)]
pub(super) struct RotateArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The second step: the next key signs from now on.
    #[arg(long, conflicts_with = "end")]
    switch: bool,
    /// The third: the last key is removed.
    #[arg(long)]
    end: bool,
    /// Do not wait until Google knows of the key, or until nothing that the last one has signed is on its way.
    #[arg(long)]
    now: bool,
}

pub(super) fn run(command: &GcpCommand, json: bool) -> Result<ExitCode, Failure> {
    match command {
        GcpCommand::Jwks(arg) => {
            let config = Config::load(&arg.config)?;
            let jwks = jwks(&config)?;
            println!("{jwks:#}");
        }
        GcpCommand::Setup { config, terraform } => {
            let config = Config::load(&config.config)?;
            let plan = Plan::of(&config, &config.load_policy()?)
                .context("planning what Google must be told")?;
            let jwks = config.run_dir.join("jwks.json");
            let jwks = jwks.to_string_lossy();
            let text = if *terraform {
                plan.terraform(&jwks)
            } else {
                plan.commands(&jwks)
            };
            print!("{text}");
        }
        GcpCommand::Discovery(arg) => {
            let config = Config::load(&arg.config)?;
            println!("{:#}", discovery(issuer(&config)?.issuer));
        }
        GcpCommand::Doctor { config, agent } => {
            return super::doctor::run(&config.config, agent.clone(), json);
        }
        GcpCommand::RotateKey(args) => rotate(args, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Who this host is to Google.
struct Issuer<'a> {
    issuer: &'a str,
    audience: &'a str,
    /// The id of the project that the provider is in, where it is named.
    project: Option<&'a str>,
}

fn issuer(config: &Config) -> Result<Issuer<'_>, Failure> {
    match &config.token {
        TokenSource::Federation {
            audience,
            issuer,
            project,
            ..
        } => Ok(Issuer {
            issuer,
            audience,
            project: project.as_deref(),
        }),
        TokenSource::Impersonation { .. } => Err(anyhow::anyhow!(
            "token.kind is \"impersonation\": this host is no issuer, and has no key of its own"
        )
        .into()),
    }
}

/// The public halves of the issuer's keys, wherever they are.
fn jwks(config: &Config) -> Result<serde_json::Value, Failure> {
    let jwks = token::jwks(&config.state_dir, config.token.keys());
    let jwks = super::ask::runtime()?.block_on(jwks);
    Ok(jwks.context("reading the issuer's keys")?)
}

/// OpenID Connect Discovery 1.0 §3, as far as a verifier of assertions reads it.
fn discovery(issuer: &str) -> serde_json::Value {
    let base = issuer.trim_end_matches('/');
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{base}/.well-known/jwks.json"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn rotate(args: &RotateArgs, json: bool) -> Result<(), Failure> {
    let config = Config::load(&args.config.config)?;
    let issuer = issuer(&config)?;
    let step = match (args.switch, args.end) {
        (true, _) => Step::Switch,
        (false, true) => Step::End,
        (false, false) => Step::Begin,
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(SystemClock.now().unix_ns);
    let store = config.token.keys();
    if let (KeyStore::Credential(name), Step::Begin) = (store, step) {
        may_give_away(name, json)?;
    }
    let made = super::ask::runtime()?
        .block_on(token::rotate(&config.state_dir, store, step, now, args.now))
        .context("changing the issuer's key")?;
    if let Some(key) = made {
        std::io::stdout()
            .write_all(key.as_bytes())
            .context("giving the new key away: it is lost, begin again")?;
    }
    let jwks = jwks(&config)?;
    publish_keys(&config.run_dir, &jwks)
        .context("the step is taken, and Google is to be given what `enforcer gcp jwks` prints")?;
    if json {
        super::say_json(&jwks);
        return Ok(());
    }
    let jwks = config.run_dir.join("jwks.json");
    let upload = upload(&issuer, &jwks);
    match (store, step) {
        // Its standard output is the key.
        (KeyStore::Credential(name), Step::Begin) => eprintln!("{}", given_away(name, &upload)),
        (KeyStore::Credential(name), Step::Switch) => println!("{}", to_hand_over(name)),
        (KeyStore::Credential(_) | KeyStore::File | KeyStore::Hsm(_), _) => {
            println!("{}", said(step, &upload));
        }
    }
    Ok(())
}

/// A private key is for a program that encrypts it, and for nobody's screen.
fn may_give_away(name: &str, json: bool) -> Result<(), Failure> {
    if json || std::io::stdout().is_terminal() {
        return Err(anyhow::anyhow!(
            "this prints a private key, for what encrypts it and for nothing else: enforcer gcp rotate-key | systemd-creds encrypt --name={name} - /etc/enforcer/{name}-next.cred"
        )
        .into());
    }
    Ok(())
}

fn given_away(name: &str, upload: &str) -> String {
    format!(
        "The next key is made and given away; it does not sign yet, and is nowhere on this host but where you have put it. Tell Google of it:\n\n{upload}\n\nThe first key of a host can be handed over at once, as LoadCredentialEncrypted={name}:FILE; another {} minutes later: enforcer gcp rotate-key --switch",
        KNOWN_AFTER.as_secs() / 60
    )
}

fn to_hand_over(name: &str) -> String {
    format!(
        "The new key may sign. Put its file in the place of the one that LoadCredentialEncrypted={name}: names, and restart the daemon: it signs from then on. {} minutes after that: enforcer gcp rotate-key --end",
        LAST_FOR.as_secs() / 60
    )
}

/// What has been done, and what is to be done next.
fn said(step: Step, upload: &str) -> String {
    match step {
        Step::Begin => format!(
            "The next key is made, and does not sign yet. Tell Google of both keys:\n\n{upload}\n\nand {} minutes later: enforcer gcp rotate-key --switch",
            KNOWN_AFTER.as_secs() / 60
        ),
        Step::Switch => format!(
            "The new key signs from now on; the daemon takes it for the next token. In {} minutes: enforcer gcp rotate-key --end",
            LAST_FOR.as_secs() / 60
        ),
        Step::End => format!("The last key is gone. Have Google forget it:\n\n{upload}"),
    }
}

/// The command that gives Google the keys.
fn upload(issuer: &Issuer<'_>, jwks: &Path) -> String {
    let part = |name: &str| {
        let mut parts = issuer.audience.split('/').skip_while(|part| *part != name);
        parts.nth(1).unwrap_or("?").to_owned()
    };
    let number = part("projects");
    // gcloud takes no number for it.
    let project = crate::gcp::pool_project(&number, issuer.project)
        .unwrap_or_else(|| format!("\"{}\"", crate::gcp::id_by_number(&number)));
    format!(
        "  gcloud iam workload-identity-pools providers update-oidc {} \\\n    --project={} --location={} --workload-identity-pool={} \\\n    --jwk-json-path={}",
        part("providers"),
        project,
        part("locations"),
        part("workloadIdentityPools"),
        jwks.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_says_what_is_to_be_done_next() {
        let audience = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/agents/providers/host-a";
        let jwks = Path::new("/run/enforcer/jwks.json");
        let issuer = |project| Issuer {
            issuer: "https://enforcer.example.com",
            audience,
            project,
        };
        let by_number = upload(&issuer(None), jwks);
        assert!(
            by_number.contains(
                "--project=\"$(gcloud projects describe 123 --format='value(projectId)')\""
            ),
            "{by_number}"
        );
        let upload = upload(&issuer(Some("the-pools")), jwks);
        let begun = said(Step::Begin, &upload);
        assert!(
            begun.contains(
                "update-oidc host-a \\\n    --project=the-pools --location=global --workload-identity-pool=agents \\\n    --jwk-json-path=/run/enforcer/jwks.json"
            ) && begun.ends_with("5 minutes later: enforcer gcp rotate-key --switch"),
            "{begun}"
        );
        let switched = said(Step::Switch, &upload);
        assert!(
            switched.ends_with("In 16 minutes: enforcer gcp rotate-key --end"),
            "{switched}"
        );
        assert!(said(Step::End, &upload).contains("update-oidc host-a"));
    }

    #[test]
    fn the_discovery_document_leads_to_keys_below_the_issuer() {
        let document = discovery("https://enforcer.example.com/host-a/");
        assert_eq!(document["issuer"], "https://enforcer.example.com/host-a/");
        assert_eq!(
            document["jwks_uri"],
            "https://enforcer.example.com/host-a/.well-known/jwks.json"
        );
    }
}
