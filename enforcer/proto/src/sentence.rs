//! The one-line sentence of an event: what is shown of a record, next to its number and time, by the command line, exports and the console alike.

use crate::asking::FromQuery;
use crate::event::{Event, FAULT_BYTES_MAX, FAULTS_RECORDED_MAX};
use crate::principal::{AgentName, ContainerOrigin, Process};
use crate::scope::TableRef;
use crate::size;
use crate::text::{keep, safe_line};

/// The longest SQL that is shown on one line, characters; JSON has it whole.
const SQL_CHARS: usize = 160;

fn who(process: &Process) -> String {
    process.words(16)
}

fn reads(tables: &[TableRef], bytes: u64) -> String {
    if tables.is_empty() {
        return String::new();
    }
    let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
    format!(", reads {}, {}", tables.join(" "), size::whole(bytes))
}

/// By whom a query was judged, and how long its client waited for that.
#[must_use]
pub fn judged_in(took_us: u64) -> String {
    match took_us {
        0 => "as just before in this window, without asking BigQuery again".to_owned(),
        _ => format!(
            "by BigQuery's dry run, in {}.{} ms",
            took_us / 1000,
            took_us % 1000 / 100
        ),
    }
}

/// Tables or buckets, behind what is done with them.
fn listed<T: ToString>(how: &str, items: &[T]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!(", {how} {}", items.join(" "))
}

fn sql(text: Option<&String>) -> String {
    text.map_or_else(String::new, |text| {
        format!(": {}", safe_line(text, SQL_CHARS))
    })
}

/// Each with its end, where the cure stands: as many and as long as a record holds, and what one has beyond that is counted.
fn each_fault(faults: &[String]) -> String {
    let mut each: Vec<String> = faults
        .iter()
        .map(|fault| safe_line(fault, FAULT_BYTES_MAX))
        .collect();
    keep(&mut each, FAULTS_RECORDED_MAX);
    each.join("; ")
}

/// In which container a process is, where that is known.
fn in_container(container: Option<&String>, image: Option<&String>) -> String {
    let container = container.map_or_else(String::new, |container| {
        format!(" in the container {}", safe_line(container, 64))
    });
    let image = image.map_or_else(String::new, |image| {
        format!(" of the image {}", safe_line(image, 128))
    });
    format!("{container}{image}")
}

/// The same of one that a runtime told of.
fn in_origin(container: Option<&ContainerOrigin>) -> String {
    container.map_or_else(String::new, |container| {
        in_container(Some(&container.name), container.image.as_ref())
    })
}

/// How far the scope of a request can be trusted that was made of a query, and what BigQuery's dry run said of it.
fn of_query(from: &FromQuery) -> String {
    let estimate = from.estimate.as_ref();
    let estimate = estimate.map_or_else(String::new, |estimate| format!("; {}", estimate.said()));
    format!(", {}{estimate}", from.said())
}

/// One line about `event`. What an agent wrote is made safe to show.
#[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
#[must_use]
pub fn sentence(event: &Event) -> String {
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
            from_query,
            ends_with_process,
            origin,
            ..
        } => format!(
            "request  {request} {agent} asks for {} for {} by {}{}, rule {rule}{}{}: {}",
            ask.scope,
            ask.ttl,
            who(process),
            origin
                .as_ref()
                .and_then(|origin| origin.container.as_ref())
                .map_or_else(String::new, |container| in_container(
                    Some(&container.name),
                    container.image.as_ref()
                )),
            if *ends_with_process {
                ", for a command"
            } else {
                ""
            },
            from_query.as_ref().map_or_else(String::new, of_query),
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
            agreed,
            signer,
            break_glass,
            ..
        } => {
            let with = listed("with", agreed);
            let signed = signer.as_ref().map_or_else(String::new, |signer| {
                format!(", signed by {}", safe_line(signer, 80))
            });
            let glass = break_glass.as_ref().map_or_else(String::new, |reason| {
                format!(", IN AN EMERGENCY: {}", safe_line(reason, SQL_CHARS))
            });
            format!(
                "approve  {request} by {approver}{with}{signed}: {grant} {agent} {scope} for {ttl}, at most {queries_max} queries and {}{glass}",
                size::whole(*bytes_max)
            )
        }
        Event::ApprovalGiven {
            request,
            agent,
            approver,
            scope,
            ttl,
            signer,
            ..
        } => {
            let signed = signer.as_ref().map_or_else(String::new, |signer| {
                format!(", signed by {}", safe_line(signer, 80))
            });
            format!(
                "agree    {request} {agent} by {approver}{signed}, others must as well: {scope} for {ttl} at most"
            )
        }
        Event::Reviewed {
            grant,
            agent,
            reviewer,
            note,
        } => format!(
            "review   {grant} {agent} by {reviewer}: {}",
            safe_line(note, SQL_CHARS)
        ),
        Event::AgentLocked { agent, by, reason } => format!(
            "LOCKED   {agent} by {by}, it gets no window: {}",
            safe_line(reason, SQL_CHARS)
        ),
        Event::AgentUnlocked { agent, by } => format!("unlocked {agent} by {by}"),
        Event::PolicyLoaded {
            digest,
            rules,
            is_same_text,
        } => {
            let names = if *is_same_text {
                ", as it was, with its users and groups looked up anew"
            } else {
                ""
            };
            let short = &digest[..digest.len().min(12)];
            format!("policy   {short} from here on, {rules} rules{names}")
        }
        Event::PolicyRejected { why, .. } => format!(
            "REFUSED  a changed policy file, the rules stay as they were: {}",
            safe_line(why, 400)
        ),
        Event::SegmentsRemoved {
            first_seq,
            last_seq,
            ..
        } => format!("REMOVED  records {first_seq} to {last_seq}, as the retention says"),
        Event::SnapshotTaken { records, sha256 } => format!(
            "daemon   kept what record {records} had made of the ledger, {}",
            safe_line(sha256, 12)
        ),
        Event::SnapshotSetAside { why } => {
            format!("daemon   set a snapshot aside: {}", safe_line(why, 400))
        }
        Event::NotificationFailed { hook, count, why } => format!(
            "UNTOLD   {count} notices to {} were given up: {}",
            safe_line(hook, 40),
            safe_line(why, SQL_CHARS)
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
        Event::RequestWithdrawn { request, agent, by } => {
            let by = by
                .as_ref()
                .map_or_else(String::new, |process| format!(", {}", who(process)));
            format!("withdraw {request} {agent}: the process that it was for has ended{by}")
        }
        Event::RequestJoined {
            request,
            agent,
            process,
        } => format!(
            "wait     {request} {agent}: a query of {} waits with it",
            who(process)
        ),
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
            format!(
                "close    {grant} {agent}{by}: {reason}; {queries} queries, {}",
                size::whole(*bytes)
            )
        }
        Event::QueryAdmitted {
            query,
            grant,
            agent,
            session,
            process,
            container,
            method,
            sql: text,
            tables,
            writes,
            imports,
            exports,
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
                "query    {query} {grant} {agent} {session} {method}{dry}{resource} by {}{}{}{}{}{}{}",
                who(process),
                in_origin(container.as_deref()),
                reads(tables, *bytes),
                listed("writes", writes),
                listed("from", imports),
                listed("to", exports),
                sql(text.as_ref())
            )
        }
        Event::HealthChanged { faults } if faults.is_empty() => {
            "HEALTHY  the enforcement is as it should be".to_owned()
        }
        Event::HealthChanged { faults } => {
            format!("UNWELL   {}", each_fault(faults))
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
        Event::EstimateAsked {
            agent,
            session,
            process,
            method,
            project,
            sql: text,
        } => {
            format!(
                "estimate {agent} {session} {method} in {} by {}{}",
                safe_line(project, 80),
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
            let billed = billed.map_or_else(String::new, |billed| {
                format!(", {} billed", size::whole(billed))
            });
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
                "answer   {query} {grant} {status}{job}, {}, {} sent, {} ms{trouble}",
                size::short(*bytes),
                size::short(*body_bytes),
                duration_us / 1000
            )
        }
        Event::QueryRefused {
            grant,
            agent,
            session,
            process,
            container,
            request,
            sql: text,
            refusal,
            ..
        } => {
            let grant = grant.map_or_else(|| "no window".to_owned(), |grant| grant.to_string());
            format!(
                "REFUSED  {grant} {agent} {session} {} by {}{}: {refusal}{}",
                safe_line(request, 80),
                who(process),
                in_origin(container.as_deref()),
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
            ..
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
        Event::EventsLost { kinds } => {
            let kinds: Vec<String> = kinds
                .iter()
                .map(|(kind, count)| format!("{count} of {}", safe_line(kind, 80)))
                .collect();
            format!(
                "LOST     what happened while the log could not be written, and has no record: {}",
                kinds.join(", ")
            )
        }
        Event::ProcessJoined { agent, process } => format!("join     {agent} {}", who(process)),
        Event::Detached { uid, reason } => format!(
            "DETACHED by uid {uid}, nothing is enforced from here on: {}",
            safe_line(reason, 400)
        ),
        Event::WayExamined { process, of } => format!(
            "doctor   {} had the way to Google looked at, as {}",
            who(process),
            of.as_deref()
                .map_or_else(|| "all agents".to_owned(), |of| safe_line(of, 64))
        ),
        Event::NamespaceServed {
            agent,
            process,
            netns,
            container,
            image,
        } => format!(
            "netns    {netns} is served, where {agent} runs {}{}",
            who(process),
            in_container(container.as_ref(), image.as_ref())
        ),
        Event::NamespaceLeft { agent, netns } => {
            format!("netns    {netns} is served no more for {agent}")
        }
        Event::ContainerChanged {
            agent,
            container: Some(container),
            cgroup,
        } => format!(
            "workload {agent} runs{}, in the cgroup {}",
            in_container(Some(&container.name), container.image.as_ref()),
            safe_line(cgroup.as_deref().unwrap_or("?"), 400)
        ),
        Event::ContainerChanged {
            agent,
            container: None,
            cgroup: _,
        } => format!("workload {agent} runs in no container any more"),
        Event::NamespaceRefused {
            agent,
            process,
            netns,
            why,
        } => format!(
            "REFUSED  netns {netns} of {agent}, {}: {}",
            who(process),
            safe_line(why, 400)
        ),
        Event::IssuerKeySigns { kid } => format!(
            "key      assertions are signed by the key {} from here on",
            safe_line(kid, 64)
        ),
        Event::CredentialPresented {
            agent,
            process,
            what,
            fingerprint,
            count,
        } => {
            let process = process
                .as_ref()
                .map_or_else(String::new, |process| format!(" by {}", who(process)));
            let fingerprint = fingerprint.as_ref().map_or_else(String::new, |begins| {
                format!(" (sha-256 {}…)", safe_line(begins, 16))
            });
            format!(
                "own key  {count} times {agent} sent {}{fingerprint}{process}; it was not sent on",
                safe_line(what, SQL_CHARS)
            )
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said where a container of Kubernetes' is an agent's, and another was: two paths as that makes them, and then what to do.
    fn with_real_paths(agent: &str) -> String {
        let cgroup = |digit: char| {
            let id = String::from(digit).repeat(64);
            let pod = "kubepods-burstable-pod8dbc0b14_47a8_4b23_9f0e_6a2d1c3b4a5f.slice";
            format!(
                "/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/{pod}/cri-containerd-{id}.scope"
            )
        };
        format!(
            "agent {agent} has its workload in {} now, and what was its workload, or may have been, is refused: its cgroup {} is there, and no runtime tells any more of a container in it that is called so: stop that, or call it so again and the other one otherwise",
            cgroup('a'),
            cgroup('b')
        )
    }

    #[test]
    fn each_fault_is_told_whole_with_its_cure_however_many_there_are_and_nothing_of_a_record_is_lost()
     {
        let told = |faults: Vec<String>| sentence(&Event::HealthChanged { faults }.bounded());
        let faults: Vec<String> = (0..FAULTS_RECORDED_MAX)
            .map(|number| with_real_paths(&format!("agent-{number}")))
            .collect();
        assert_eq!(
            told(faults.clone()),
            format!("UNWELL   {}", faults.join("; "))
        );
        let more = [faults, vec!["one".to_owned(), "more".to_owned()]].concat();
        let said = told(more);
        assert!(said.ends_with("otherwise; and 3 more"), "{said}");
        // The longest that a record holds, each character of one byte and of more, or one that is made visible.
        for longest in ["x", "é", "\n", "\u{1b}"] {
            let longest = longest.repeat(FAULT_BYTES_MAX);
            let event = Event::HealthChanged {
                faults: vec![longest; 40],
            }
            .bounded();
            let Event::HealthChanged { faults } = &event else {
                panic!("another");
            };
            let whole: Vec<String> = faults
                .iter()
                .map(|fault| safe_line(fault, usize::MAX))
                .collect();
            assert_eq!(sentence(&event), format!("UNWELL   {}", whole.join("; ")));
        }
        // Of a record that another program wrote as much is told.
        let faults = vec!["y".repeat(10 * FAULT_BYTES_MAX); 1000];
        let said = sentence(&Event::HealthChanged { faults });
        assert!(said.ends_with("…; and 969 more"), "{}", said.len());
        assert!(said.len() < (FAULTS_RECORDED_MAX + 1) * (FAULT_BYTES_MAX + 8));
    }

    #[test]
    fn a_served_namespace_is_told_with_its_container_and_image_where_those_are_known() {
        let before = r#"{"kind":"namespace_served","agent":"bot","process":{"pid":7,"start_boot_ns":1,"uid":2001,"comm":"sleep"},"netns":42}"#;
        let event: Event = serde_json::from_str(before).expect("an older record is read");
        assert_eq!(
            who(&Process::unknown(7)),
            "pid 7 (ended by then)",
            "and not root's"
        );
        let told = "netns    42 is served, where bot runs pid 7 (sleep, uid 2001)";
        assert_eq!(sentence(&event), told);
        // A record that says nothing of a container is written as it always was: its hash is over these bytes.
        assert_eq!(serde_json::to_string(&event).expect("JSON"), before);
        let known = r#""netns":42,"container":"agent\nbox","image":"localhost/agent:1"}"#;
        let with = before.replace(r#""netns":42}"#, known);
        let event: Event = serde_json::from_str(&with).expect("a record");
        let said = sentence(&event);
        assert!(
            said.starts_with(told) && said.ends_with(" of the image localhost/agent:1"),
            "{said}"
        );
        assert!(
            said.contains(" in the container agent") && !said.contains('\n'),
            "{said}"
        );
    }
}
