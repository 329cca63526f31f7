//! What people decide. What is agreed to is what is shown: the digest that goes to the daemon is of the request that this has just printed, or of
//! the one that the caller names.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use enforcer_proto::id::RequestId;
use enforcer_proto::scope::Scope;
use enforcer_proto::signed;
use enforcer_proto::time::Ttl;
use enforcer_proto::wire::{Ask, Reply, RequestView};

use super::{Failure, ask, show};

/// How an approver narrows what was asked.
#[derive(Default)]
pub(super) struct Terms {
    pub(super) ttl: Option<Ttl>,
    pub(super) scope: Option<Scope>,
    pub(super) bytes_max: Option<u64>,
    pub(super) queries_max: Option<u64>,
    pub(super) seen: Option<String>,
    /// The key to sign with, as `ssh-keygen` takes it.
    pub(super) sign: Option<PathBuf>,
}

/// Agrees to a request, and shows what to.
pub(super) fn approve(
    socket: &Path,
    request: RequestId,
    terms: Terms,
    json: bool,
) -> Result<(), Failure> {
    ask::runtime()?.block_on(async {
        let signs = terms.sign.is_some();
        let shown = shown(socket, request, terms.seen.clone(), signs, json).await?;
        let signature = shown.signature(&terms, None)?;
        let ask = Ask::Approve {
            request,
            signature,
            seen: shown.digest,
            ttl: terms.ttl,
            scope: terms.scope,
            bytes_max: terms.bytes_max,
            queries_max: terms.queries_max,
        };
        show::reply(&ask::ask_once(socket, &ask).await?, json)
    })
}

/// Opens a window without the others, and shows which.
pub(super) fn break_glass(
    socket: &Path,
    request: RequestId,
    reason: String,
    (seen, sign): (Option<String>, Option<PathBuf>),
    json: bool,
) -> Result<(), Failure> {
    ask::runtime()?.block_on(async {
        let shown = shown(socket, request, seen, sign.is_some(), json).await?;
        let terms = Terms {
            sign,
            ..Terms::default()
        };
        let signature = shown.signature(&terms, Some(&reason))?;
        let ask = Ask::BreakGlass {
            request,
            seen: shown.digest,
            reason,
            signature,
        };
        show::reply(&ask::ask_once(socket, &ask).await?, json)
    })
}

/// Shows one request.
pub(super) fn show(socket: &Path, request: RequestId, json: bool) -> Result<(), Failure> {
    let asked = Ask::Show { request };
    let reply = ask::runtime()?.block_on(ask::ask_once(socket, &asked))?;
    if let (Reply::Status(status), false) = (&reply, json) {
        status.requests.iter().for_each(show::request_and_state);
        return Ok(());
    }
    show::reply(&reply, json)
}

/// What the approver has been shown.
struct Shown {
    digest: String,
    /// The request, and whose host it is on; absent where only its digest was named.
    whole: Option<(String, RequestView)>,
}

/// The digest that the caller names, or that of the request as it is shown now.
async fn shown(
    socket: &Path,
    id: RequestId,
    named: Option<String>,
    signs: bool,
    json: bool,
) -> Result<Shown, Failure> {
    if named.is_none() && json {
        return Err(Failure::Usage(format!(
            "with --json nothing is shown, so --seen must name what was: the digest of {id} from `enforcer status --request {id} --json`"
        )));
    }
    if let (Some(digest), false) = (&named, signs) {
        let digest = digest.clone();
        return Ok(Shown {
            digest,
            whole: None,
        });
    }
    let whole = waiting(socket, id).await?;
    if let Some((_, request)) = whole.as_ref().filter(|_| !json) {
        show::request(request);
    }
    let shown = whole.as_ref().map(|(_, request)| request.digest.clone());
    Ok(Shown {
        // Who is shown nothing decides on nothing: the daemon says why not, and has it on record.
        digest: named.or(shown).unwrap_or_default(),
        whole,
    })
}

impl Shown {
    /// A signature over what is approved, made by the approver's own `ssh-keygen`, which asks for a passphrase or a touch by itself.
    fn signature(
        &self,
        terms: &Terms,
        break_glass: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let (Some(key), Some((host, request))) = (&terms.sign, &self.whole) else {
            return Ok(None);
        };
        let statement = signed::statement(&signed::Terms {
            host,
            request: request.request,
            digest: &self.digest,
            scope: terms.scope.as_ref().unwrap_or(&request.scope),
            ttl: terms.ttl.unwrap_or(request.ttl),
            bytes_max: terms.bytes_max.unwrap_or(request.budget.bytes_max),
            queries_max: terms.queries_max.unwrap_or(request.budget.queries_max),
            break_glass,
        });
        sign(key, &statement).map(Some)
    }
}

fn sign(key: &Path, statement: &str) -> Result<String, Failure> {
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", signed::NAMESPACE, "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting ssh-keygen, which signs")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(statement.as_bytes())
            .context("giving ssh-keygen what to sign")?;
    }
    let output = child.wait_with_output().context("waiting for ssh-keygen")?;
    if !output.status.success() {
        let why = anyhow::anyhow!("ssh-keygen did not sign: {}", output.status);
        return Err(Failure::Other(why));
    }
    let signature = String::from_utf8(output.stdout).context("reading the signature")?;
    Ok(signature)
}

/// The host's name, and the request that waits there; none where the caller may not see it, or it does not wait.
async fn waiting(socket: &Path, id: RequestId) -> Result<Option<(String, RequestView)>, Failure> {
    let reply = match ask::ask_once(socket, &Ask::Show { request: id }).await {
        Ok(reply) => reply,
        Err(Failure::Refused(_)) => return Ok(None),
        Err(
            failure @ (Failure::Unreachable(..)
            | Failure::Usage(_)
            | Failure::NotRun(..)
            | Failure::Other(_)),
        ) => {
            return Err(failure);
        }
    };
    let Reply::Status(status) = reply else {
        return Err(ask::something_else("its status"));
    };
    let host = status.host;
    let mut requests = status.requests.into_iter();
    let found = requests.find(|request| request.request == id && request.state == "pending");
    Ok(found.map(|request| (host, request)))
}
