//! Records as events of the Open Cybersecurity Schema Framework, version 1.2.0 (<https://schema.ocsf.io/1.2.0>).
//!
//! Which class an event has is a choice: requests and their decisions are *Entity Management*, what gives and takes access is *User Access
//! Management*, BigQuery's methods are *API Activity*, what the kernel refused and connections that never became a request are *Network
//! Activity*, the daemon's own life is *Application Lifecycle*, and what is wrong with the enforcement is a *Detection Finding*. The whole event
//! is under `unmapped` as well.

use enforcer_proto::audit::Record;
use enforcer_proto::event::{About, Event};
use enforcer_proto::principal::{ContainerOrigin, Process};
use enforcer_proto::query::Method;
use enforcer_proto::search::Filter;
use enforcer_proto::sentence::sentence;
use enforcer_proto::text::utc;
use serde_json::{Map, Value, json};

use super::super::source::Source;
use crate::cli::Failure;

/// The version of the schema.
pub(super) const VERSION: &str = "1.2.0";

/// A class of the schema: its name, number and category.
#[derive(Debug, Clone, Copy)]
struct Class {
    name: &'static str,
    uid: u32,
    category: &'static str,
}

const FINDING: Class = Class {
    name: "Detection Finding",
    uid: 2004,
    category: "Findings",
};
const ENTITY: Class = Class {
    name: "Entity Management",
    uid: 3004,
    category: "Identity & Access Management",
};
const ACCESS: Class = Class {
    name: "User Access Management",
    uid: 3005,
    category: "Identity & Access Management",
};
const NETWORK: Class = Class {
    name: "Network Activity",
    uid: 4001,
    category: "Network Activity",
};
const LIFECYCLE: Class = Class {
    name: "Application Lifecycle",
    uid: 6002,
    category: "Application Activity",
};
const API: Class = Class {
    name: "API Activity",
    uid: 6003,
    category: "Application Activity",
};

/// What happened, in the words of its class.
type Activity = (u32, &'static str);

const OTHER: Activity = (99, "Other");
const CREATE: Activity = (1, "Create");
const UPDATE: Activity = (3, "Update");
const DELETE: Activity = (4, "Delete");
const REFUSE: Activity = (5, "Refuse");

/// `severity_id`.
const INFORMATIONAL: u32 = 1;
const MEDIUM: u32 = 3;
const HIGH: u32 = 4;
const CRITICAL: u32 = 5;

/// The host's name from each record on where it changed. It rarely does.
#[derive(Debug, Default)]
pub(super) struct Hosts(Vec<(u64, String)>);

impl Hosts {
    pub(super) fn of(source: &Source) -> Result<Self, Failure> {
        let mut hosts = Self::default();
        let filter = Filter {
            kind: Some("daemon_started".to_owned()),
            ..Filter::default()
        };
        source.each(filter, None, &mut |record, _| {
            if let Event::DaemonStarted { host, .. } = &record.event
                && hosts.0.last().is_none_or(|(_, last)| last != host)
            {
                hosts.0.push((record.seq, host.clone()));
            }
            Ok(())
        })?;
        Ok(hosts)
    }

    pub(super) fn at(&self, seq: u64) -> &str {
        let after = self.0.partition_point(|(from, _)| *from <= seq);
        let host = after.checked_sub(1).and_then(|at| self.0.get(at));
        host.map_or("unknown", |(_, host)| host)
    }
}

/// What the class of an event asks for besides what all have.
struct Mapped {
    class: Class,
    activity: Activity,
    severity: u32,
    is_success: bool,
    own: Value,
}

/// `record` as an event of the schema.
pub(super) fn event(record: &Record, host: &str) -> Value {
    let about = About::of(&record.event);
    let mapped = mapped(&record.event, &about, host);
    let (class, (activity, activity_name)) = (mapped.class, mapped.activity);
    let mut event = json!({
        "activity_id": activity,
        "activity_name": activity_name,
        "category_uid": class.uid / 1000,
        "category_name": class.category,
        "class_uid": class.uid,
        "class_name": class.name,
        "type_uid": class.uid * 100 + activity,
        "time": record.unix_ns / 1_000_000,
        "severity_id": mapped.severity,
        "status_id": if mapped.is_success { 1 } else { 2 },
        "message": sentence(&record.event),
        "metadata": {
            "version": VERSION,
            "product": {"name": "enforcer", "vendor_name": "enforcer", "version": env!("CARGO_PKG_VERSION")},
            "log_name": "enforcer",
            "event_code": record.event.kind(),
            "sequence": record.seq,
            "uid": record.hash,
            "original_time": utc(record.unix_ns),
        },
        "unmapped": {
            "boot_id": record.boot_id,
            "boot_ns": record.boot_ns,
            "event": record.event,
        },
    });
    if let Some(grant) = about.grant {
        event["metadata"]["correlation_uid"] = json!(grant);
    }
    if let Some(code) = about.code {
        event["status_code"] = json!(code);
    }
    if let (Some(event), Value::Object(own)) = (event.as_object_mut(), mapped.own) {
        event.extend(own);
    }
    if class.uid == NETWORK.uid {
        event["metadata"]["profiles"] = json!(["security_control"]);
    }
    event
}

#[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
fn mapped(event: &Event, about: &About<'_>, host: &str) -> Mapped {
    let new = |class, activity, severity, is_success, own| Mapped {
        class,
        activity,
        severity,
        is_success,
        own,
    };
    let entity = |name: &str, kind: &str| json!({"entity": {"name": name, "type": kind}, "actor": actor(about)});
    let told =
        |id: Option<String>, kind: &str| entity(&id.unwrap_or_else(|| kind.to_owned()), kind);
    let request = about.request.map(|id| id.to_string());
    let window = about.grant.map(|id| id.to_string());
    let user = json!({"name": about.agent, "type_id": 99, "type": "Agent"});
    let app = json!({"app": {"name": "enforcer", "vendor_name": "enforcer"}});
    match event {
        Event::DaemonStarted { version, .. } => {
            let app =
                json!({"app": {"name": "enforcer", "vendor_name": "enforcer", "version": version}});
            new(LIFECYCLE, (3, "Start"), INFORMATIONAL, true, app)
        }
        Event::DaemonStopped {} => new(LIFECYCLE, (4, "Stop"), INFORMATIONAL, true, app),
        Event::SnapshotTaken { .. }
        | Event::PolicyLoaded { .. }
        | Event::IssuerKeySigns { .. }
        | Event::NamespaceServed { .. }
        | Event::NamespaceLeft { .. }
        | Event::ContainerChanged { .. }
        | Event::WayExamined { .. } => new(LIFECYCLE, OTHER, INFORMATIONAL, true, app),
        Event::CredentialPresented {
            what, fingerprint, ..
        } => {
            let uid = format!(
                "credential_presented {}",
                fingerprint.as_deref().unwrap_or("-")
            );
            let own = json!({"finding_info": {"title": "An agent has a credential of its own", "uid": uid, "desc": what}});
            new(FINDING, CREATE, HIGH, true, own)
        }
        Event::PolicyRejected { .. } => new(LIFECYCLE, OTHER, MEDIUM, false, app),
        Event::ApprovalGiven { .. } => new(
            ENTITY,
            UPDATE,
            INFORMATIONAL,
            true,
            told(request, "request"),
        ),
        Event::AgentLocked { agent, .. } | Event::AgentUnlocked { agent, .. } => new(
            ENTITY,
            UPDATE,
            MEDIUM,
            true,
            told(Some(agent.to_string()), "agent"),
        ),
        Event::Reviewed { .. } => new(ENTITY, UPDATE, INFORMATIONAL, true, told(window, "window")),
        Event::TailRepaired { .. }
        | Event::NotificationFailed { .. }
        | Event::SegmentsRemoved { .. }
        | Event::SnapshotSetAside { .. }
        | Event::EventsLost { .. }
        | Event::TooLong { .. } => new(LIFECYCLE, OTHER, MEDIUM, true, app),
        Event::HealthChanged { faults } => {
            let activity = if faults.is_empty() {
                (3, "Close")
            } else {
                CREATE
            };
            let severity = if faults.is_empty() {
                INFORMATIONAL
            } else {
                HIGH
            };
            let own = json!({"finding_info": {"title": "The enforcement is not as it should be", "uid": "health", "desc": faults.join("; ")}});
            new(FINDING, activity, severity, true, own)
        }
        Event::Detached { reason, .. } => {
            let own = json!({"finding_info": {"title": "Nothing is enforced any more", "uid": "detached", "desc": reason}});
            new(FINDING, CREATE, CRITICAL, true, own)
        }
        Event::Requested { .. } => new(
            ENTITY,
            CREATE,
            INFORMATIONAL,
            true,
            told(request, "request"),
        ),
        Event::RequestRefused { .. } => new(ENTITY, CREATE, MEDIUM, false, told(None, "request")),
        Event::Denied { .. } | Event::RequestJoined { .. } => new(
            ENTITY,
            UPDATE,
            INFORMATIONAL,
            true,
            told(request, "request"),
        ),
        Event::RequestWithdrawn { .. } | Event::RequestExpired { .. } => new(
            ENTITY,
            DELETE,
            INFORMATIONAL,
            true,
            told(request, "request"),
        ),
        Event::DecisionRefused { .. } => new(
            ENTITY,
            UPDATE,
            MEDIUM,
            false,
            told(request.or(window), "decision"),
        ),
        Event::Opened { .. } => new(ENTITY, CREATE, INFORMATIONAL, true, told(window, "window")),
        Event::Approved {
            scope, break_glass, ..
        } => {
            let severity = if break_glass.is_some() {
                HIGH
            } else {
                INFORMATIONAL
            };
            let privileges: Vec<String> = scope
                .datasets()
                .map(|(dataset, access)| format!("{dataset}:{access}"))
                .chain(
                    scope
                        .buckets()
                        .map(|(bucket, access)| format!("{bucket}:{access}")),
                )
                .collect();
            let own = json!({"user": user, "privileges": privileges});
            new(ACCESS, (1, "Assign Privileges"), severity, true, own)
        }
        Event::Closed { .. } => {
            let own = json!({"user": user, "privileges": [format!("window {}", window.unwrap_or_default())]});
            new(ACCESS, (2, "Revoke Privileges"), INFORMATIONAL, true, own)
        }
        Event::ProcessJoined { agent, .. } => {
            let own = json!({"user": user, "privileges": [format!("workload of {agent}")], "actor": actor(about)});
            new(ACCESS, (1, "Assign Privileges"), INFORMATIONAL, true, own)
        }
        Event::QueryAsked { method, .. } | Event::EstimateAsked { method, .. } => new(
            API,
            activity_of(*method),
            INFORMATIONAL,
            true,
            api(method.as_str(), about, host),
        ),
        Event::QueryAdmitted { method, .. } => new(
            API,
            activity_of(*method),
            INFORMATIONAL,
            true,
            api(method.as_str(), about, host),
        ),
        Event::QueryRefused { request, .. } => {
            new(API, OTHER, MEDIUM, false, api(request, about, host))
        }
        Event::JobSeen { .. } => new(
            API,
            OTHER,
            INFORMATIONAL,
            true,
            api("job seen", about, host),
        ),
        Event::QueryFinished { status, .. } => {
            let is_success = status.is_some_and(|status| status < 400);
            let mut own = api("answer", about, host);
            own["api"]["response"] = json!({"code": status});
            new(API, OTHER, INFORMATIONAL, is_success, own)
        }
        Event::JobCancelled { outcome, .. } => new(
            API,
            DELETE,
            INFORMATIONAL,
            outcome == "cancelled",
            api("jobs.cancel", about, host),
        ),
        Event::KernelRefused {
            destination, count, ..
        } => new(
            NETWORK,
            REFUSE,
            MEDIUM,
            false,
            denied(about, host, endpoint(destination), *count),
        ),
        Event::NamespaceRefused { .. } => new(
            NETWORK,
            REFUSE,
            MEDIUM,
            false,
            denied(about, host, json!({"svc_name": "enforcer proxy"}), 1),
        ),
        Event::ConnectionRefused { count, .. } => new(
            NETWORK,
            REFUSE,
            MEDIUM,
            false,
            denied(about, host, json!({"svc_name": "enforcer proxy"}), *count),
        ),
        Event::FurtherRefused { by, count, .. } => new(
            NETWORK,
            REFUSE,
            MEDIUM,
            false,
            denied(about, host, json!({"svc_name": by.to_string()}), *count),
        ),
        Event::Forwarded { request, count, .. } => {
            let name = request
                .split(' ')
                .nth(1)
                .and_then(|rest| rest.split('/').next());
            let own = json!({
                "src_endpoint": {"hostname": host}, "dst_endpoint": {"hostname": name.unwrap_or("unknown")}, "actor": actor(about),
                "count": count, "action_id": 1, "disposition_id": 1,
            });
            new(NETWORK, (6, "Traffic"), INFORMATIONAL, true, own)
        }
    }
}

const fn activity_of(method: Method) -> Activity {
    match method {
        Method::Discovery
        | Method::ProjectsList
        | Method::DatasetsList
        | Method::DatasetsGet
        | Method::TablesList
        | Method::TablesGet
        | Method::TabledataList
        | Method::ModelsList
        | Method::ModelsGet
        | Method::RoutinesList
        | Method::RoutinesGet
        | Method::JobsList
        | Method::JobsGet
        | Method::GetQueryResults
        | Method::StorageReadRows
        | Method::StorageSplitReadStream => (2, "Read"),
        Method::TablesInsert
        | Method::InsertAll
        | Method::JobsInsert
        | Method::JobsUpload
        | Method::JobsQuery
        | Method::StorageCreateReadSession => CREATE,
        Method::TablesPatch | Method::TablesUpdate | Method::UploadPart => UPDATE,
        Method::TablesDelete | Method::JobsCancel | Method::JobsDelete => DELETE,
    }
}

fn api(operation: &str, about: &About<'_>, host: &str) -> Value {
    let resources: Vec<Value> = about
        .tables
        .iter()
        .map(|table| json!({"name": table, "type": "table"}))
        .collect();
    json!({
        "api": {"operation": operation, "service": {"name": "bigquery.googleapis.com"}},
        "actor": actor(about),
        "src_endpoint": {"hostname": host},
        "resources": resources,
    })
}

fn denied(about: &About<'_>, host: &str, to: Value, count: u64) -> Value {
    json!({
        "src_endpoint": {"hostname": host},
        "dst_endpoint": to,
        "actor": actor(about),
        "count": count,
        "action_id": 2,
        "disposition_id": 2,
    })
}

/// Where a socket operation was to lead.
fn endpoint(destination: &str) -> Value {
    destination.parse::<std::net::SocketAddr>().map_or_else(
        |_| json!({"name": destination}),
        |to| json!({"ip": to.ip(), "port": to.port()}),
    )
}

/// Who acted: the process and the agent, or the enforcer where the record names neither.
fn actor(about: &About<'_>) -> Value {
    let mut actor = Map::new();
    if let Some(process) = about.process {
        let mut process = of_process(process);
        if let Some(ContainerOrigin { name, image }) = about.container {
            let image = image.as_ref().map(|image| json!({"name": image}));
            process["container"] = json!({"name": name, "image": image});
        }
        actor.insert("process".to_owned(), process);
    }
    if let Some(agent) = about.agent {
        actor.insert(
            "user".to_owned(),
            json!({"name": agent, "type_id": 99, "type": "Agent"}),
        );
    }
    if actor.is_empty() {
        actor.insert("app_name".to_owned(), json!("enforcer"));
    }
    Value::Object(actor)
}

fn of_process(process: &Process) -> Value {
    json!({
        "pid": process.pid,
        "uid": format!("{}-{}", process.pid, process.start_boot_ns),
        "name": process.comm,
        "user": {"uid": process.uid.to_string()},
    })
}

#[cfg(test)]
mod tests;
