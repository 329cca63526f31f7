//! The log as people read it: one line a record. And its verification, which needs no daemon.

use std::path::Path;

use enforcer_proto::audit::Record;
use enforcer_proto::event::Event;
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::{AgentName, Process};
use enforcer_proto::scope::TableRef;
use enforcer_proto::text::safe_line;

use super::{Failure, show};
use crate::audit;

/// The longest SQL that is shown on one line, characters; JSON has it whole.
const SQL_CHARS: usize = 160;

/// Which records are wanted.
pub(super) struct Filter {
    pub(super) grant: Option<GrantId>,
    pub(super) agent: Option<AgentName>,
}

/// Checks the chain in `dir`.
pub(super) fn verify(dir: &Path, json: bool) -> Result<(), Failure> {
    let chain = audit::verify(dir, |_, _| ())?;
    if json {
        println!(
            "{}",
            serde_json::json!({"whole": true, "records": chain.count(), "head": chain.head().to_string()})
        );
    } else {
        println!(
            "the chain is whole: {} records, head {}",
            chain.count(),
            chain.head()
        );
    }
    Ok(())
}

/// Prints one record, if it is wanted.
pub(super) fn print(line: &str, filter: &Filter, json: bool) {
    let Ok(record) = serde_json::from_str::<Record>(line) else {
        println!("?  a record that cannot be read; check with: enforcer log verify");
        return;
    };
    let about = About::of(&record.event);
    let wanted = filter.grant.is_none_or(|grant| about.grant == Some(grant))
        && filter
            .agent
            .as_ref()
            .is_none_or(|agent| about.agent == Some(agent));
    if !wanted {
        return;
    }
    if json {
        println!("{line}");
    } else {
        println!(
            "{:>5}  {}  {}",
            record.seq,
            show::time(record.unix_ns),
            sentence(&record.event)
        );
    }
}

/// What a record concerns.
struct About<'a> {
    grant: Option<GrantId>,
    agent: Option<&'a AgentName>,
}

impl<'a> About<'a> {
    const fn of(event: &'a Event) -> Self {
        let (grant, agent) = match event {
            Event::Approved { grant, agent, .. }
            | Event::Opened { grant, agent }
            | Event::Closed { grant, agent, .. }
            | Event::QueryAsked { grant, agent, .. }
            | Event::QueryAdmitted { grant, agent, .. } => (Some(*grant), Some(agent)),
            Event::JobSeen { grant, .. }
            | Event::QueryFinished { grant, .. }
            | Event::JobCancelled { grant, .. } => (Some(*grant), None),
            Event::QueryRefused { grant, agent, .. } => (*grant, Some(agent)),
            Event::Requested { agent, .. }
            | Event::Denied { agent, .. }
            | Event::RequestExpired { agent, .. }
            | Event::ProcessJoined { agent, .. }
            | Event::Forwarded { agent, .. } => (None, Some(agent)),
            Event::ConnectionRefused { agent, .. }
            | Event::KernelRefused { agent, .. }
            | Event::FurtherRefused { agent, .. } => (None, agent.as_ref()),
            Event::RequestRefused { caller, .. } | Event::DecisionRefused { caller, .. } => {
                (None, caller.agent.as_ref())
            }
            Event::DaemonStarted { .. }
            | Event::DaemonStopped {}
            | Event::TailRepaired { .. }
            | Event::HealthChanged { .. }
            | Event::Detached { .. }
            | Event::TooLong { .. } => (None, None),
        };
        Self { grant, agent }
    }
}

fn who(process: &Process) -> String {
    format!(
        "pid {} ({}, uid {})",
        process.pid,
        safe_line(&process.comm, 16),
        process.uid
    )
}

fn reads(tables: &[TableRef], bytes: u64) -> String {
    if tables.is_empty() {
        return String::new();
    }
    let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
    format!(", reads {}, {bytes} bytes", tables.join(" "))
}

fn sql(text: Option<&String>) -> String {
    text.map_or_else(String::new, |text| {
        format!(": {}", safe_line(text, SQL_CHARS))
    })
}

#[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
fn sentence(event: &Event) -> String {
    match event {
        Event::DaemonStarted {
            host,
            version,
            policy_digest,
        } => {
            format!(
                "daemon   started on {host}, version {version}, policy {}",
                &policy_digest[..policy_digest.len().min(12)]
            )
        }
        Event::DaemonStopped {} => "daemon   stopped".to_owned(),
        Event::TailRepaired { bytes } => {
            format!("daemon   set aside a torn last line of {bytes} bytes")
        }
        Event::Requested {
            request,
            agent,
            process,
            ask,
            rule,
            ..
        } => format!(
            "request  {request} {agent} asks for {} for {} by {}, rule {rule}: {}",
            ask.scope,
            ask.ttl,
            who(process),
            safe_line(&ask.reason, SQL_CHARS)
        ),
        Event::RequestRefused {
            caller, refusal, ..
        } => format!("REFUSED  a request of {}: {refusal}", who(&caller.process)),
        Event::Approved {
            request,
            grant,
            agent,
            approver,
            scope,
            ttl,
            bytes_max,
            queries_max,
            ..
        } => format!(
            "approve  {request} by {approver}: {grant} {agent} {scope} for {ttl}, at most {queries_max} queries and {bytes_max} bytes"
        ),
        Event::Opened { grant, agent } => format!("open     {grant} {agent}"),
        Event::Denied {
            request,
            agent,
            approver,
            reason,
        } => {
            format!(
                "deny     {request} {agent} by {approver}: {}",
                safe_line(reason, SQL_CHARS)
            )
        }
        Event::RequestExpired { request, agent } => {
            format!("expire   {request} {agent}: nobody decided in time")
        }
        Event::DecisionRefused {
            caller,
            action,
            refusal,
        } => format!("REFUSED  {action} by {}: {refusal}", who(&caller.process)),
        Event::Closed {
            grant,
            agent,
            reason,
            queries,
            bytes,
            by,
        } => {
            let by = by
                .as_ref()
                .map_or_else(String::new, |process| format!(" by {}", who(process)));
            format!("close    {grant} {agent}{by}: {reason}; {queries} queries, {bytes} bytes")
        }
        Event::QueryAdmitted {
            query,
            grant,
            agent,
            session,
            process,
            method,
            sql: text,
            tables,
            resource,
            bytes,
            is_dry_run,
            ..
        } => {
            let dry = if *is_dry_run { " (dry run)" } else { "" };
            let resource = resource
                .as_ref()
                .map_or_else(String::new, |resource| format!(" of {resource}"));
            format!(
                "query    {query} {grant} {agent} {session} {method}{dry}{resource} by {}{}{}",
                who(process),
                reads(tables, *bytes),
                sql(text.as_ref())
            )
        }
        Event::HealthChanged { faults } if faults.is_empty() => {
            "HEALTHY  the enforcement is as it should be".to_owned()
        }
        Event::HealthChanged { faults } => {
            format!("UNWELL   {}", safe_line(&faults.join("; "), 400))
        }
        Event::QueryAsked {
            grant,
            agent,
            session,
            process,
            method,
            sql: text,
        } => {
            format!(
                "asked    {grant} {agent} {session} {method} by {}{}",
                who(process),
                sql(Some(text))
            )
        }
        Event::JobSeen {
            query,
            grant,
            job,
            is_done,
            billed,
            read_outside,
            ..
        } => {
            let state = if *is_done {
                "has ended"
            } else {
                "is under way"
            };
            let billed =
                billed.map_or_else(String::new, |billed| format!(", {billed} bytes billed"));
            let outside = read_outside.as_ref().map_or_else(String::new, |table| {
                format!(", READ OUTSIDE ITS WINDOW: {table}")
            });
            format!("job      {query} {grant} {job} {state}{billed}{outside}")
        }
        Event::QueryFinished {
            query,
            grant,
            status,
            job,
            bytes,
            body_bytes,
            duration_us,
            trouble,
            ..
        } => {
            let status = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
            let job = job
                .as_ref()
                .map_or_else(String::new, |job| format!(", job {job}"));
            let trouble = trouble
                .as_ref()
                .map_or_else(String::new, |trouble| format!(", {trouble}"));
            format!(
                "answer   {query} {grant} {status}{job}, {bytes} bytes, {body_bytes} sent, {} ms{trouble}",
                duration_us / 1000
            )
        }
        Event::QueryRefused {
            grant,
            agent,
            session,
            process,
            request,
            sql: text,
            refusal,
            ..
        } => {
            let grant = grant.map_or_else(|| "no window".to_owned(), |grant| grant.to_string());
            format!(
                "REFUSED  {grant} {agent} {session} {} by {}: {refusal}{}",
                safe_line(request, 80),
                who(process),
                sql(text.as_ref())
            )
        }
        Event::ConnectionRefused {
            agent,
            process,
            refusal,
            count,
        } => {
            let agent = agent.as_ref().map_or("nobody", AgentName::as_str);
            let process = process
                .as_ref()
                .map_or_else(String::new, |process| format!(" by {}", who(process)));
            format!("REFUSED  {count} connections of {agent}{process}: {refusal}")
        }
        Event::JobCancelled {
            grant,
            job,
            outcome,
        } => format!(
            "cancel   {grant} job {job}: {}",
            safe_line(outcome, SQL_CHARS)
        ),
        Event::KernelRefused {
            agent,
            process,
            verdict,
            destination,
            count,
        } => {
            let agent = agent.as_ref().map_or("no agent", AgentName::as_str);
            format!(
                "KERNEL   {count} times {} to {destination} by {} of {agent}",
                safe_line(verdict, SQL_CHARS),
                who(process)
            )
        }
        Event::FurtherRefused {
            by,
            agent,
            uid,
            code,
            count,
        } => {
            let of = match (agent, uid) {
                (Some(agent), _) => agent.to_string(),
                (None, Some(uid)) => format!("uid {uid}"),
                (None, None) => "others".to_owned(),
            };
            let why = code.map_or_else(
                || "of more kinds than are told apart in a second".to_owned(),
                |code| format!("more than are recorded one by one [{code}]"),
            );
            format!("REFUSED  {count} more of {of} by {by}, {why}")
        }
        Event::TooLong { event, bytes } => {
            format!(
                "TOO LONG {} of {bytes} bytes, more than a record may have",
                safe_line(event, 80)
            )
        }
        Event::ProcessJoined { agent, process } => format!("join     {agent} {}", who(process)),
        Event::Detached { uid, reason } => format!(
            "DETACHED by uid {uid}, nothing is enforced from here on: {}",
            safe_line(reason, 400)
        ),
        Event::Forwarded {
            agent,
            process,
            request,
            count,
        } => {
            let process = process
                .as_ref()
                .map_or_else(String::new, |process| format!(" by {}", who(process)));
            format!(
                "passed   {count} times {} of {agent}{process}",
                safe_line(request, SQL_CHARS)
            )
        }
    }
}
