//! The facts behind one record.

use crate::audit::Record;
use crate::event::{About, Event};
use crate::id::GrantId;
use crate::ledger::Ledger;
use crate::principal::{AgentName, Approver, ContainerOrigin, Process, UID_UNKNOWN};
use crate::refusal::Code;
use crate::search::Filter;
use crate::size;
use crate::text::safe_line;

use super::{Facts, Records, verdict};

/// The kinds of events that say which policy is in force from there on.
const POLICY_KINDS: &[&str] = &["daemon_started", "policy_loaded"];

/// How much of a policy's digest stands beside the number of its rule, characters.
const DIGEST_CHARS: usize = 12;

/// The longest text of a fact that somebody else chose, characters.
const TEXT_CHARS: usize = 600;

pub(super) fn of<S: Records>(source: &S, record: &Record) -> Result<Facts, S::Error> {
    let mut facts = Facts::default();
    let about = About::of(&record.event);
    decided(&record.event, &mut facts);
    if let Some(process) = about.process {
        facts.add("process", who(process));
    }
    if let Some(container) = about.container {
        facts.add("container", safe_line(&container.shown(), TEXT_CHARS));
    }
    let grant = about.grant;
    match (grant, about.request) {
        (Some(grant), _) => of_window(source, record, grant, &mut facts)?,
        (None, Some(_)) => of_request(source, record, &mut facts)?,
        (None, None) => {
            if let Some(agent) = about.agent {
                of_agent(source, record, agent, &mut facts)?;
            }
        }
    }
    of_policy(source, record, &mut facts)?;
    if let Some(code) = about.code {
        of_code(code, &mut facts);
    }
    if let Event::KernelRefused { verdict, .. } = &record.event {
        of_verdict(verdict, &mut facts);
    }
    Ok(facts)
}

/// A bound in words: older records have none, which the ledger takes as the largest number.
fn bound(most: u64, said: impl Fn(u64) -> String) -> String {
    if most == u64::MAX {
        "no bound".to_owned()
    } else {
        said(most)
    }
}

fn who(process: &Process) -> String {
    if process.uid == UID_UNKNOWN {
        return process.words(0);
    }
    format!(
        "pid {}, {}, uid {}",
        process.pid,
        safe_line(&process.comm, 64),
        process.uid
    )
}

/// What the record itself says.
#[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
fn decided(event: &Event, facts: &mut Facts) {
    match event {
        Event::QueryAdmitted {
            session,
            method,
            tables,
            writes,
            imports,
            exports,
            resource,
            bytes,
            ceiling,
            returned_ceiling,
            is_dry_run,
            dry_run_us,
            job,
            ..
        } => {
            facts.add("method", method);
            facts.add("connection", session);
            facts.add(
                "dry run",
                if *is_dry_run {
                    "yes: it starts no job and costs nothing"
                } else {
                    "no"
                },
            );
            list("reads", tables, facts);
            list("writes", writes, facts);
            list("imports from", imports, facts);
            list("exports to", exports, facts);
            if let Some(resource) = resource {
                facts.add("reaches for", safe_line(resource, TEXT_CHARS));
            }
            facts.add("estimate", size::whole(*bytes));
            if let Some(took_us) = dry_run_us {
                facts.add("judged", crate::sentence::judged_in(*took_us));
            }
            if let Some(ceiling) = ceiling {
                facts.add(
                    "held for it",
                    format!("{}, sent as its ceiling", size::whole(*ceiling)),
                );
            }
            if let Some(most) = returned_ceiling {
                facts.add("rows held", size::whole(*most));
            }
            if let Some(job) = job {
                facts.add("job", job);
            }
        }
        Event::QueryRefused {
            session,
            request,
            refusal,
            ..
        } => {
            facts.add("http request", safe_line(request, TEXT_CHARS));
            facts.add("connection", session);
            facts.add("sentence", &refusal.what);
        }
        Event::RequestRefused { ask, refusal, .. } => {
            if let Some(ask) = ask {
                facts.add("asked for", format!("{} for {}", ask.scope, ask.ttl));
                facts.add("because", safe_line(&ask.reason, TEXT_CHARS));
            }
            facts.add("sentence", &refusal.what);
        }
        Event::DecisionRefused {
            action, refusal, ..
        } => {
            facts.add("tried", safe_line(action, TEXT_CHARS));
            facts.add("sentence", &refusal.what);
        }
        Event::ConnectionRefused { refusal, count, .. } => {
            facts.add("connections", count);
            facts.add("sentence", &refusal.what);
        }
        Event::KernelRefused {
            verdict,
            destination,
            count,
            ..
        } => {
            facts.add("verdict", safe_line(verdict, TEXT_CHARS));
            facts.add("destination", safe_line(destination, TEXT_CHARS));
            facts.add("times", count);
        }
        Event::FurtherRefused { by, count, .. } => {
            facts.add("refused by", by);
            facts.add("times", count);
            facts.add(
                "note",
                "these were more than are recorded one by one, and are only counted",
            );
        }
        Event::Denied {
            approver, reason, ..
        } => {
            facts.add("decided by", approver);
            facts.add("because", safe_line(reason, TEXT_CHARS));
        }
        Event::RequestWithdrawn { .. } => {
            facts.add("because", "the process that it was for has ended");
        }
        Event::RequestJoined { process, .. } => {
            let note = format!(
                "uid {} has a query that waits with it, and cannot decide on it",
                process.uid
            );
            facts.add("note", note);
        }
        Event::RequestExpired { .. } => {
            facts.add("because", "nobody whom the policy names decided in time");
        }
        Event::Closed {
            reason,
            queries,
            bytes,
            ..
        } => {
            facts.add("because", reason);
            facts.add(
                "used",
                format!("{queries} queries, {}", size::whole(*bytes)),
            );
        }
        Event::JobCancelled { job, outcome, .. } => {
            facts.add("job", job);
            facts.add("outcome", safe_line(outcome, TEXT_CHARS));
        }
        Event::WayExamined { of, .. } => facts.add(
            "as",
            of.as_deref()
                .map_or_else(|| "all agents".to_owned(), |of| safe_line(of, TEXT_CHARS)),
        ),
        Event::NamespaceServed {
            netns,
            container,
            image,
            ..
        } => {
            facts.add("network namespace", netns);
            for (what, said) in [("container", container), ("image", image)] {
                if let Some(said) = said {
                    facts.add(what, safe_line(said, TEXT_CHARS));
                }
            }
            facts.add("because", "processes of the agent's are in it: the daemon listens there, on its loopback alone");
        }
        Event::ContainerChanged {
            container, cgroup, ..
        } => of_container(container.as_ref(), cgroup.as_deref(), facts),
        Event::NamespaceLeft { netns, .. } => {
            facts.add("network namespace", netns);
            facts.add("because", "no process of the agent's is in it any more, or somebody there has ended what the daemon served in it, which is the next record of it then");
        }
        Event::NamespaceRefused { netns, why, .. } => {
            facts.add("network namespace", netns);
            facts.add("because", safe_line(why, TEXT_CHARS));
        }
        Event::IssuerKeySigns { kid } => facts.add("kid", safe_line(kid, TEXT_CHARS)),
        Event::CredentialPresented {
            what,
            fingerprint,
            count,
            ..
        } => {
            facts.add("credential", safe_line(what, TEXT_CHARS));
            if let Some(fingerprint) = fingerprint {
                facts.add("sha-256 begins", safe_line(fingerprint, TEXT_CHARS));
            }
            facts.add("times", count);
            facts.add("because", "it was not sent on; where the agent has it from is not known here, and what it reaches by other ways no window scopes");
        }
        Event::Forwarded { request, count, .. } => {
            facts.add("http request", safe_line(request, TEXT_CHARS));
            facts.add("times", count);
            facts.add("because", "the name is on the agent's `allow` list");
        }
        Event::ApprovalGiven {
            approver,
            scope,
            ttl,
            digest,
            budget,
            signer,
            ..
        } => {
            facts.add("agreed by", approver);
            facts.add("shown", format!("digest {digest}"));
            if let Some(budget) = budget {
                facts.add("at most", budget);
            }
            facts.add(
                "to",
                format!("{scope} for {ttl} at most; others must agree as well"),
            );
            if let Some(signer) = signer {
                facts.add("signed by", safe_line(signer, TEXT_CHARS));
            }
        }
        Event::Approved {
            agreed,
            approver,
            digest,
            signer,
            break_glass,
            ..
        } => {
            match approver {
                Approver::Person { .. } => facts.add("shown", format!("digest {digest}")),
                Approver::Policy { .. } => facts.add("shown", "nobody: a rule opened it"),
            }
            list("agreed before", agreed, facts);
            if let Some(signer) = signer {
                facts.add("signed by", safe_line(signer, TEXT_CHARS));
            }
            if let Some(reason) = break_glass {
                facts.add("emergency", safe_line(reason, TEXT_CHARS));
            }
        }
        Event::Reviewed { reviewer, note, .. } => {
            facts.add("reviewed by", reviewer);
            facts.add("note", safe_line(note, TEXT_CHARS));
        }
        Event::AgentLocked { by, reason, .. } => {
            facts.add("locked by", by);
            facts.add("reason", safe_line(reason, TEXT_CHARS));
        }
        Event::AgentUnlocked { by, .. } => facts.add("unlocked by", by),
        Event::PolicyLoaded { rules, .. } => facts.add("rules", rules),
        Event::NotificationFailed { hook, count, why } => {
            facts.add("hook", safe_line(hook, TEXT_CHARS));
            facts.add("notices", count);
            facts.add("why", safe_line(why, TEXT_CHARS));
        }
        Event::PolicyRejected { digest, why } => {
            if let Some(digest) = digest {
                facts.add("file", format!("digest {digest}"));
            }
            facts.add("because", safe_line(why, TEXT_CHARS));
        }
        Event::Requested {
            ask,
            rule,
            from_query,
            process,
            origin,
            ..
        } => {
            facts.add("asked for", format!("{} for {}", ask.scope, ask.ttl));
            if let Some(origin) = origin {
                facts.add("started by", origin.chain(process.uid));
                facts.add("in", origin.place().unwrap_or_default());
            }
            facts.add("rule", rule);
            if let Some(from) = from_query {
                facts.add("scope", from.said());
                if let Some(named) = &from.named {
                    facts.add("its text names", &named.scope);
                }
                if let Some(estimate) = &from.estimate {
                    facts.add("estimate", estimate.said());
                }
            }
        }
        Event::Opened { .. }
        | Event::QueryAsked { .. }
        | Event::EstimateAsked { .. }
        | Event::JobSeen { .. }
        | Event::QueryFinished { .. }
        | Event::ProcessJoined { .. }
        | Event::DaemonStarted { .. }
        | Event::DaemonStopped {}
        | Event::TailRepaired { .. }
        | Event::SegmentsRemoved { .. }
        | Event::SnapshotTaken { .. }
        | Event::SnapshotSetAside { .. }
        | Event::HealthChanged { .. }
        | Event::EventsLost { .. }
        | Event::TooLong { .. }
        | Event::Detached { .. } => {}
    }
}

fn list<T: ToString>(name: &'static str, items: &[T], facts: &mut Facts) {
    if !items.is_empty() {
        let items: Vec<String> = items.iter().map(ToString::to_string).collect();
        facts.add(name, items.join(", "));
    }
}

/// The window that a record names: what was granted, by whom and by which rule, and what was used of it by then.
fn of_window<S: Records>(
    source: &S,
    record: &Record,
    grant: GrantId,
    facts: &mut Facts,
) -> Result<(), S::Error> {
    let of_grant = Filter {
        grant: Some(grant),
        ..Filter::default()
    };
    let approved = Filter {
        kind: Some("approved".to_owned()),
        ..of_grant.clone()
    };
    let Some(approved) = source.newest(approved)? else {
        facts.add(
            "window",
            format!("{grant}; its approval is not in this log"),
        );
        return Ok(());
    };
    if let Event::Approved {
        scope,
        ttl,
        approver,
        agent,
        ..
    } = &approved.event
    {
        facts.add(
            "window",
            format!("{grant} of agent {agent}: {scope} for {ttl}"),
        );
        facts.add(
            "decided by",
            format!("{approver} at {}", crate::text::utc(approved.unix_ns)),
        );
    }
    of_request(source, &approved, facts)?;
    // The ledger itself says what was left: it takes in what the window did before.
    let mut ledger = Ledger::default();
    ledger.apply(approved.now(), &approved.event);
    let before = Filter {
        first: Some(approved.seq + 1),
        last: Some(record.seq.saturating_sub(1)),
        ..of_grant
    };
    if record.seq > approved.seq + 1 {
        source.each(before, None, &mut |record| {
            ledger.apply(record.now(), &record.event);
        })?;
    }
    if let Some(held) = ledger.grant(grant) {
        let (usage, budget) = (&held.usage, &held.budget);
        facts.add(
            "queries then",
            format!("{} of {}", usage.queries, budget.queries_max),
        );
        facts.add(
            "bytes then",
            format!(
                "{} of {} used, {} left",
                size::whole(usage.bytes),
                size::whole(budget.bytes_max),
                size::whole(held.bytes_left())
            ),
        );
        facts.add(
            "rows then",
            format!(
                "{} of {} passed on",
                size::whole(usage.returned_bytes),
                bound(budget.returned_bytes_max, size::whole)
            ),
        );
        facts.add(
            "jobs then",
            format!(
                "{} of {} at once",
                usage.jobs_at_once(),
                bound(budget.jobs_at_once_max, |jobs| jobs.to_string())
            ),
        );
    }
    Ok(())
}

/// The request that a record names: what was asked, and which rule covers it.
fn of_request<S: Records>(source: &S, record: &Record, facts: &mut Facts) -> Result<(), S::Error> {
    let Some(request) = About::of(&record.event).request else {
        return Ok(());
    };
    let filter = Filter {
        request: Some(request),
        kind: Some("requested".to_owned()),
        ..Filter::default()
    };
    if let Some(Event::Requested {
        ask,
        rule,
        process,
        digest,
        ..
    }) = source.newest(filter)?.map(|record| record.event)
    {
        facts.add("asked by", format!("{} as {request}", who(&process)));
        facts.add("asked for", format!("{} for {}", ask.scope, ask.ttl));
        facts.add("reason", safe_line(&ask.reason, TEXT_CHARS));
        // Whoever decided did so under the policy in force then, which may number its rules otherwise.
        let decided = decided_under(&record.event);
        let policy = policy_at(source, record.seq)?;
        let policy = policy.map_or_else(String::new, |(digest, _)| {
            format!(" {}", safe_line(&digest, DIGEST_CHARS))
        });
        let number = decided.unwrap_or(rule);
        facts.add("rule", format!("{number} of the policy{policy}"));
        if number != rule {
            facts.add(
                "rule when asked",
                format!("{rule} of the policy in force then"),
            );
        }
        facts.add("digest when asked", digest);
    }
    Ok(())
}

/// The rule under which an event says that it was decided.
fn decided_under(event: &Event) -> Option<u32> {
    if let Event::Approved { rule, .. } | Event::ApprovalGiven { rule, .. } = event {
        *rule
    } else {
        None
    }
}

/// An agent that was refused outside every window: how its last one ended.
fn of_agent<S: Records>(
    source: &S,
    record: &Record,
    agent: &AgentName,
    facts: &mut Facts,
) -> Result<(), S::Error> {
    facts.add("agent", agent);
    let filter = Filter {
        agent: Some(agent.clone()),
        kind: Some("closed".to_owned()),
        last: Some(record.seq),
        ..Filter::default()
    };
    if let Some(closed) = source.newest(filter)?
        && let Event::Closed { grant, reason, .. } = &closed.event
    {
        facts.add(
            "last window",
            format!(
                "{grant}, closed at {}: {reason}",
                crate::text::utc(closed.unix_ns)
            ),
        );
    }
    Ok(())
}

/// The policy that was in force when the record was written.
fn of_policy<S: Records>(source: &S, record: &Record, facts: &mut Facts) -> Result<(), S::Error> {
    let said = policy_at(source, record.seq)?.map(|(digest, record)| {
        format!(
            "{digest}, in force since {} (record {})",
            crate::text::utc(record.unix_ns),
            record.seq
        )
    });
    facts.add(
        "policy",
        said.unwrap_or_else(|| "not in this log".to_owned()),
    );
    Ok(())
}

/// The digest of the policy that was in force at a record, and the record that says so.
fn policy_at<S: Records>(source: &S, seq: u64) -> Result<Option<(String, Record)>, S::Error> {
    let mut newest: Option<Record> = None;
    for kind in POLICY_KINDS {
        let filter = Filter {
            kind: Some((*kind).to_owned()),
            last: Some(seq),
            ..Filter::default()
        };
        let found = source.newest(filter)?;
        if found.as_ref().map(|found| found.seq) > newest.as_ref().map(|newest| newest.seq) {
            newest = found;
        }
    }
    Ok(newest.and_then(|record| {
        let digest = policy_digest(&record.event)?.to_owned();
        Some((digest, record))
    }))
}

/// The digest of the policy that is in force from `event` on.
const fn policy_digest(event: &Event) -> Option<&String> {
    match event {
        Event::DaemonStarted { policy_digest, .. } => Some(policy_digest),
        Event::PolicyLoaded { digest, .. } => Some(digest),
        Event::DaemonStopped {}
        | Event::TailRepaired { .. }
        | Event::SegmentsRemoved { .. }
        | Event::SnapshotTaken { .. }
        | Event::SnapshotSetAside { .. }
        | Event::Requested { .. }
        | Event::RequestRefused { .. }
        | Event::Approved { .. }
        | Event::ApprovalGiven { .. }
        | Event::Reviewed { .. }
        | Event::AgentLocked { .. }
        | Event::AgentUnlocked { .. }
        | Event::PolicyRejected { .. }
        | Event::NotificationFailed { .. }
        | Event::Opened { .. }
        | Event::Denied { .. }
        | Event::RequestExpired { .. }
        | Event::RequestWithdrawn { .. }
        | Event::DecisionRefused { .. }
        | Event::Closed { .. }
        | Event::HealthChanged { .. }
        | Event::QueryAsked { .. }
        | Event::EstimateAsked { .. }
        | Event::QueryAdmitted { .. }
        | Event::JobSeen { .. }
        | Event::QueryFinished { .. }
        | Event::QueryRefused { .. }
        | Event::ConnectionRefused { .. }
        | Event::JobCancelled { .. }
        | Event::KernelRefused { .. }
        | Event::FurtherRefused { .. }
        | Event::EventsLost { .. }
        | Event::TooLong { .. }
        | Event::RequestJoined { .. }
        | Event::ProcessJoined { .. }
        | Event::Detached { .. }
        | Event::CredentialPresented { .. }
        | Event::IssuerKeySigns { .. }
        | Event::NamespaceServed { .. }
        | Event::NamespaceLeft { .. }
        | Event::NamespaceRefused { .. }
        | Event::ContainerChanged { .. }
        | Event::WayExamined { .. }
        | Event::Forwarded { .. } => None,
    }
}

fn of_container(container: Option<&ContainerOrigin>, cgroup: Option<&str>, facts: &mut Facts) {
    let image = container.and_then(|container| container.image.as_deref());
    for (what, said) in [
        (
            "container",
            container.map(|container| container.name.as_str()),
        ),
        ("image", image),
        ("cgroup", cgroup),
    ] {
        if let Some(said) = said {
            facts.add(what, safe_line(said, TEXT_CHARS));
        }
    }
    facts.add(
        "because",
        "its runtime says so: what the agent does is done there until the log says otherwise",
    );
}

fn of_code(code: Code, facts: &mut Facts) {
    facts.add("code", code);
    facts.add("means", code.meaning().trim());
    facts.add("next step", code.next_step());
}

fn of_verdict(verdict: &str, facts: &mut Facts) {
    if let Some(reason) = verdict::named_in(verdict) {
        let said = verdict::explained(reason);
        facts.add("means", said.meaning);
        facts.add("next step", said.next_step);
    }
}
