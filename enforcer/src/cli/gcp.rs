//! `enforcer gcp`: what Google is to be told of this host, and how its key is changed. But for `doctor` (`doctor.rs`) it asks no daemon and no Google,
//! and holds no authority but that of whoever may read the host's key.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the command line"
)]

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::{Args, Subcommand};
use enforcer_proto::principal::AgentName;
use serde_json::json;

use super::{ConfigArg, Failure};
use crate::app::publish_keys;
use crate::atomic_file::{self, Rights};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, KeyStore, TokenSource};
use crate::gcp::Plan;
use crate::token::{self, KNOWN_AFTER, LAST_FOR, Step, Turn};

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
    /// Of a key that is a credential (token.key_credential): into this new file, encrypted by systemd-creds, and nowhere else.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["switch", "end"])]
    output: Option<PathBuf>,
    /// The next key that was given away is lost: another is made in its stead.
    #[arg(long, conflicts_with_all = ["switch", "end"])]
    again: bool,
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
    let turn = Turn {
        step,
        now,
        is_forced: args.now,
        is_lost: args.again,
    };
    take(&config, turn, args.output.as_deref(), json)?;
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
        (KeyStore::Credential(name), Step::Begin) => {
            eprintln!("{}", given_away(name, &upload, args.output.as_deref()));
        }
        (KeyStore::Credential(name), Step::Switch) => println!("{}", to_hand_over(name)),
        (KeyStore::Credential(_) | KeyStore::File | KeyStore::Hsm(_), _) => {
            println!("{}", said(step, &upload));
        }
    }
    Ok(())
}

/// Takes the step. A key that is to be handed over goes to the file that is named, or to whatever standard output is.
fn take(config: &Config, turn: Turn, output: Option<&Path>, json: bool) -> Result<(), Failure> {
    let store = config.token.keys();
    let name = match (store, output) {
        (KeyStore::Credential(name), _) => name.as_str(),
        (KeyStore::File | KeyStore::Hsm(_), None) => "",
        (KeyStore::File | KeyStore::Hsm(_), Some(_)) => {
            return Err(anyhow::anyhow!(
                "--output is for a key that is a credential (token.key_credential): this host's is kept where it is made"
            )
            .into());
        }
    };
    if let (KeyStore::Credential(name), Step::Begin, None) = (store, turn.step, output) {
        may_give_away(name, json)?;
    }
    let mut given = None;
    let mut give = |key: &str| match output {
        Some(file) => {
            encrypt(name, key, file)?;
            given = Some(file.to_owned());
            Ok(())
        }
        None => {
            let mut out = std::io::stdout();
            out.write_all(key.as_bytes())?;
            out.flush()
        }
    };
    let taken = token::rotate(&config.state_dir, store, turn, &mut give);
    let taken = super::ask::runtime()?.block_on(taken);
    if let (Err(_), Some(file)) = (&taken, &given) {
        // It is of a key that nobody is told of.
        std::fs::remove_file(file).with_context(|| format!("removing {}", file.display()))?;
    }
    Ok(taken.context("changing the issuer's key")?)
}

/// Has the key encrypted for this host, and puts what comes of it into a file that was not there before.
fn encrypt(name: &str, key: &str, file: &Path) -> io::Result<()> {
    let failed = |why: String| io::Error::other(why);
    if file.symlink_metadata().is_ok() {
        let why = format!(
            "{} is there already, and is not overwritten",
            file.display()
        );
        return Err(failed(why));
    }
    let mut child = Command::new("systemd-creds")
        .args(["encrypt", &format!("--name={name}"), "-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("systemd-creds: {error}")))?;
    let input = child.stdin.take();
    let written = input.map_or(Ok(()), |mut input| input.write_all(key.as_bytes()));
    let made = child.wait_with_output()?;
    written?;
    if !made.status.success() || made.stdout.is_empty() {
        return Err(failed(format!("systemd-creds ended with {}", made.status)));
    }
    atomic_file::create(file, &made.stdout, Rights::of_mode(0o600))
}

/// A private key is for a program that encrypts it, and for nobody's screen.
fn may_give_away(name: &str, json: bool) -> Result<(), Failure> {
    if json || std::io::stdout().is_terminal() {
        return Err(anyhow::anyhow!(
            "this prints a private key, for what encrypts it and for nothing else: enforcer gcp rotate-key --output /etc/enforcer/{name}-next.cred"
        )
        .into());
    }
    Ok(())
}

fn given_away(name: &str, upload: &str, output: Option<&Path>) -> String {
    let place = output.map_or_else(
        || "is nowhere on this host but where you have put it".to_owned(),
        |file| format!("is nowhere but in {}, encrypted", file.display()),
    );
    format!(
        "The next key is made and given away; it does not sign yet, and {place}. Tell Google of it:\n\n{upload}\n\nThe first key of a host can be handed over at once, as LoadCredentialEncrypted={name}:FILE; another {} minutes later: enforcer gcp rotate-key --switch",
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
