//! How long the texts of an event may be. Whoever is refused chose most of them, so they are cut before they are recorded: a record that does
//! not fit a line of the log must not be possible to ask for.

use std::collections::BTreeSet;

use super::{Event, SqlCut, kind_named};
use crate::asking::FromQuery;
use crate::audit::sha256_hex;
use crate::principal::{CGROUP_BYTES_MAX, Caller, ContainerOrigin, Process, ProcessOrigin};
use crate::query::JobRef;
use crate::refusal::Refusal;
use crate::text::{keep, keep_end, shorten};

/// The longest text in a record but for those named below, bytes: reasons, outcomes, troubles, what was refused. Longer ones are shortened.
/// It holds the longest sentence of a refusal, each of its characters made visible.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;
/// The longest method and path in the record of a request, bytes; a longer one is shortened.
pub const REQUEST_LINE_BYTES_MAX: usize = 1024;
/// The most SQL that the record of a refusal holds, bytes. Of a longer text it holds the beginning, the length and the SHA-256. The SQL of a
/// query that BigQuery is asked about is always recorded whole: an agent's pace bounds it.
pub const REFUSED_SQL_BYTES_MAX: usize = 2 * 1024;
/// The longest process name in a record, bytes; the kernel gives at most 64 of them for its own threads and 15 for others.
pub const COMM_BYTES_MAX: usize = 64;
/// The most groups of a caller that a record names; the lowest.
pub const GIDS_RECORDED_MAX: usize = 64;

/// The most faults that one record names; those past it are counted in the place of the last.
pub const FAULTS_RECORDED_MAX: usize = 32;
/// The longest sentence about one of them, bytes. It holds the paths of two cgroups as Kubernetes makes them, and what to do, which stands at its end.
pub const FAULT_BYTES_MAX: usize = 1024;

impl Event {
    /// The event with every text that somebody else chose within its bound. What was shortened says so.
    ///
    /// All but [`Event::QueryAsked`], [`Event::EstimateAsked`] and [`Event::QueryAdmitted`] then fit a line of the log: those are recorded whole or refused.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
    pub fn bounded(mut self) -> Self {
        match &mut self {
            Self::DaemonStarted {
                host,
                version,
                policy_digest,
            } => [host, version, policy_digest]
                .into_iter()
                .for_each(bound_text),
            Self::Requested {
                process,
                ask,
                digest,
                from_query,
                origin,
                ..
            } => {
                bound_process(process);
                bound_text(&mut ask.reason);
                bound_text(digest);
                from_query.iter_mut().for_each(FromQuery::bound);
                origin.iter_mut().for_each(ProcessOrigin::bound);
            }
            Self::RequestRefused {
                caller,
                ask,
                refusal,
            } => {
                bound_caller(caller);
                ask.iter_mut().for_each(|ask| bound_text(&mut ask.reason));
                bound_refusal(refusal);
            }
            Self::ApprovalGiven {
                digest,
                next_digest,
                signer,
                gids,
                ..
            } => {
                bound_text(digest);
                bound_text(next_digest);
                signer.iter_mut().for_each(bound_text);
                bound_gids(gids);
            }
            Self::Approved {
                digest,
                signer,
                break_glass,
                ..
            } => {
                bound_text(digest);
                signer.iter_mut().chain(break_glass).for_each(bound_text);
            }
            Self::Reviewed { note, .. } => bound_text(note),
            Self::PolicyLoaded { digest, .. } => bound_text(digest),
            Self::PolicyRejected { digest, why } => {
                digest.iter_mut().for_each(bound_text);
                bound_text(why);
            }
            Self::Denied { reason, .. } | Self::AgentLocked { reason, .. } => bound_text(reason),
            Self::DecisionRefused {
                caller,
                action,
                refusal,
            } => {
                bound_caller(caller);
                bound_text(action);
                bound_refusal(refusal);
            }
            Self::Closed { by, .. } | Self::RequestWithdrawn { by, .. } => {
                by.iter_mut().for_each(bound_process)
            }
            Self::JobSeen {
                job, read_outside, ..
            } => {
                bound_job(job);
                read_outside.iter_mut().for_each(bound_text);
            }
            Self::QueryFinished { job, trouble, .. } => {
                job.iter_mut().for_each(bound_job);
                trouble.iter_mut().for_each(bound_text);
            }
            Self::QueryRefused {
                process,
                container,
                request,
                sql,
                sql_cut,
                refusal,
                ..
            } => {
                bound_process(process);
                bound_container(container);
                shorten(request, REQUEST_LINE_BYTES_MAX);
                if let Some(cut) = sql.as_mut().and_then(cut_sql) {
                    *sql_cut = Some(cut);
                }
                bound_refusal(refusal);
            }
            Self::ConnectionRefused {
                process, refusal, ..
            } => {
                process.iter_mut().for_each(bound_process);
                bound_refusal(refusal);
            }
            Self::JobCancelled { job, outcome, .. } => {
                bound_job(job);
                bound_text(outcome);
            }
            Self::KernelRefused {
                process,
                verdict,
                destination,
                ..
            } => {
                bound_process(process);
                bound_text(verdict);
                bound_text(destination);
            }
            Self::HealthChanged { faults } => {
                keep(faults, FAULTS_RECORDED_MAX);
                faults
                    .iter_mut()
                    .for_each(|fault| shorten(fault, FAULT_BYTES_MAX));
            }
            Self::TooLong { event, .. } => bound_text(event),
            // No more than there are kinds: whoever makes it names them.
            Self::EventsLost { kinds } => kinds.retain(|kind, _| kind_named(kind).is_ok()),
            Self::SnapshotSetAside { why } => bound_text(why),
            Self::SegmentsRemoved { head, .. } => bound_text(head),
            Self::SnapshotTaken { sha256, .. } => bound_text(sha256),
            Self::ProcessJoined { process, .. } | Self::RequestJoined { process, .. } => {
                bound_process(process)
            }
            Self::Detached { reason, .. } => bound_text(reason),
            Self::WayExamined { process, of } => {
                bound_process(process);
                of.iter_mut().for_each(bound_text);
            }
            Self::IssuerKeySigns { kid } => bound_text(kid),
            Self::NamespaceServed {
                process,
                container,
                image,
                ..
            } => {
                bound_process(process);
                container.iter_mut().for_each(bound_text);
                image.iter_mut().for_each(bound_text);
            }
            Self::NamespaceLeft { .. } => {}
            Self::ContainerChanged {
                container, cgroup, ..
            } => {
                container.iter_mut().for_each(ContainerOrigin::bound);
                cgroup
                    .iter_mut()
                    .for_each(|cgroup| keep_end(cgroup, CGROUP_BYTES_MAX));
            }
            Self::NamespaceRefused { process, why, .. } => {
                bound_process(process);
                bound_text(why);
            }
            Self::CredentialPresented {
                process,
                what,
                fingerprint,
                ..
            } => {
                process.iter_mut().for_each(bound_process);
                bound_text(what);
                fingerprint.iter_mut().for_each(bound_text);
            }
            Self::Forwarded {
                process, request, ..
            } => {
                process.iter_mut().for_each(bound_process);
                shorten(request, REQUEST_LINE_BYTES_MAX);
            }
            Self::NotificationFailed { hook, why, .. } => {
                bound_text(hook);
                bound_text(why);
            }
            Self::DaemonStopped {}
            | Self::TailRepaired { .. }
            | Self::AgentUnlocked { .. }
            | Self::Opened { .. }
            | Self::RequestExpired { .. }
            | Self::QueryAsked { .. }
            | Self::EstimateAsked { .. }
            | Self::QueryAdmitted { .. }
            | Self::FurtherRefused { .. } => {}
        }
        self
    }

    /// What is recorded in place of this event when its own record would be `bytes` long.
    #[must_use]
    pub fn stand_in(&self, bytes: usize) -> Self {
        let kind = serde_json::to_value(self)
            .ok()
            .and_then(|value| Some(value.get("kind")?.as_str()?.to_owned()));
        Self::TooLong {
            event: kind.unwrap_or_default(),
            bytes: bytes as u64,
        }
    }
}

fn bound_text(text: &mut String) {
    shorten(text, TEXT_BYTES_MAX);
}

fn bound_refusal(refusal: &mut Refusal) {
    bound_text(&mut refusal.what);
}

fn bound_process(process: &mut Process) {
    shorten(&mut process.comm, COMM_BYTES_MAX);
}

fn bound_container(container: &mut Option<Box<ContainerOrigin>>) {
    container.iter_mut().for_each(|container| container.bound());
}

fn bound_caller(caller: &mut Caller) {
    bound_process(&mut caller.process);
    bound_gids(&mut caller.gids);
}

fn bound_gids(gids: &mut BTreeSet<u32>) {
    if gids.len() > GIDS_RECORDED_MAX {
        *gids = gids.iter().copied().take(GIDS_RECORDED_MAX).collect();
    }
}

fn bound_job(job: &mut JobRef) {
    bound_text(&mut job.project);
    bound_text(&mut job.job);
    job.location.iter_mut().for_each(bound_text);
}

/// Cuts SQL that is too long, without a mark: its beginning stays a beginning. Gives what is needed to recognise the whole.
fn cut_sql(sql: &mut String) -> Option<SqlCut> {
    if sql.len() <= REFUSED_SQL_BYTES_MAX {
        return None;
    }
    let cut = SqlCut {
        bytes: sql.len() as u64,
        sha256: sha256_hex(sql.as_bytes()),
    };
    sql.truncate(sql.floor_char_boundary(REFUSED_SQL_BYTES_MAX));
    Some(cut)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::asking::{Estimate, Named};
    use crate::audit::{Chain, fits};
    use crate::event::{CloseReason, Refuser};
    use crate::id::{GrantId, QueryId, RequestId, SessionId};
    use crate::policy::{Ask, QUORUM_MAX};
    use crate::principal::{AgentName, Approver, ContainerOrigin};
    use crate::query::Method;
    use crate::refusal::Code;
    use crate::scope::{Access, DatasetRef, Scope, TableRef};
    use crate::time::Now;

    fn widest_scope() -> Scope {
        let dataset = |n| DatasetRef::new("p", &format!("{n:a>1024}")).expect("a dataset");
        let bucket = |n| {
            format!("gs://{n:a>222}")
                .parse::<crate::bucket::BucketRef>()
                .expect("a bucket")
        };
        let datasets = (10..26).map(|at| (dataset(at), Access::Write)).collect();
        let buckets = (10..18).map(|at| (bucket(at), Access::Write)).collect();
        Scope::new(datasets, buckets).expect("sixteen and eight")
    }

    fn widest_table() -> TableRef {
        let dataset = DatasetRef::new("p", &"d".repeat(1024)).expect("a dataset");
        TableRef::new(dataset, &"t".repeat(1024)).expect("a table")
    }

    /// One event of each kind, every text in it being `text`.
    #[expect(clippy::too_many_lines, reason = "one of each kind")]
    fn every_event(text: &str) -> Vec<Event> {
        let text = || text.to_owned();
        let agent: AgentName = "a".repeat(31).parse().expect("a name");
        let process = Process {
            pid: u32::MAX,
            start_boot_ns: u64::MAX,
            uid: u32::MAX,
            comm: text(),
        };
        let caller = Caller {
            process: process.clone(),
            gids: (u32::MAX - 65_536..u32::MAX).collect(),
            agent: Some(agent.clone()),
        };
        let ask = Ask {
            scope: widest_scope(),
            ttl: "1h".parse().expect("a ttl"),
            reason: text(),
            bytes_max: Some(u64::MAX),
            queries_max: Some(u64::MAX),
        };
        let job = JobRef {
            project: text(),
            job: text(),
            location: Some(text()),
        };
        let refusal = Refusal {
            code: Code::WindowNone,
            what: text(),
        };
        let (request, grant) = (RequestId(u64::MAX), GrantId(u64::MAX));
        let (session, query) = (SessionId(u64::MAX), QueryId(u64::MAX));
        let approver = Approver::Person { uid: u32::MAX };
        vec![
            Event::DaemonStarted {
                host: text(),
                version: text(),
                policy_digest: text(),
            },
            Event::DaemonStopped {},
            Event::TailRepaired { bytes: u64::MAX },
            Event::Requested {
                request,
                agent: agent.clone(),
                process: process.clone(),
                ask: ask.clone(),
                rule: u32::MAX,
                digest: text(),
                expires_boot_ns: u64::MAX,
                from_query: Some(FromQuery {
                    method: Method::JobsQuery,
                    sql: Some(text()),
                    sql_cut: None,
                    is_verified: true,
                    estimate: Some(Estimate {
                        bytes: Some(u64::MAX),
                        tables: vec![widest_table(); 50],
                        routines: vec![widest_table(); 50],
                        left_out: 0,
                        failed: Some(text()),
                    }),
                    named: Some(Named {
                        scope: widest_scope(),
                        ttl: ask.ttl,
                        rule: u32::MAX,
                    }),
                }),
                ends_with_process: false,
                budget: Some(crate::policy::Budget::UNBOUNDED),
                origin: Some(ProcessOrigin {
                    ancestors: vec![process.clone(); 20],
                    cgroup: text(),
                    container: Some(Box::new(ContainerOrigin {
                        name: text(),
                        image: Some(text()),
                    })),
                }),
            },
            Event::RequestRefused {
                caller: caller.clone(),
                ask: Some(ask.clone()),
                refusal: refusal.clone(),
            },
            Event::Approved {
                request,
                grant,
                agent: agent.clone(),
                approver: approver.clone(),
                digest: text(),
                scope: widest_scope(),
                ttl: ask.ttl,
                bytes_max: u64::MAX,
                queries_max: u64::MAX,
                query_bytes_max: Some(u64::MAX),
                returned_bytes_max: Some(u64::MAX),
                jobs_at_once_max: Some(u64::MAX),
                opens_boot_ns: u64::MAX,
                closes_boot_ns: u64::MAX,
                closes_unix_ns: u64::MAX,
                agreed: vec![approver.clone(); QUORUM_MAX as usize],
                signer: Some(text()),
                break_glass: Some(text()),
                rule: Some(u32::MAX),
            },
            Event::ApprovalGiven {
                request,
                agent: agent.clone(),
                approver: approver.clone(),
                gids: caller.gids.clone(),
                digest: text(),
                scope: widest_scope(),
                ttl: ask.ttl,
                next_digest: text(),
                signer: Some(text()),
                budget: Some(crate::policy::Budget::UNBOUNDED),
                rule: Some(u32::MAX),
            },
            Event::Reviewed {
                grant,
                agent: agent.clone(),
                reviewer: approver.clone(),
                note: text(),
            },
            Event::AgentLocked {
                agent: agent.clone(),
                by: approver.clone(),
                reason: text(),
            },
            Event::AgentUnlocked {
                agent: agent.clone(),
                by: approver.clone(),
            },
            Event::PolicyLoaded {
                digest: text(),
                rules: u32::MAX,
                is_same_text: true,
            },
            Event::PolicyRejected {
                digest: Some(text()),
                why: text(),
            },
            Event::Opened {
                grant,
                agent: agent.clone(),
            },
            Event::Denied {
                request,
                agent: agent.clone(),
                approver,
                reason: text(),
            },
            Event::RequestExpired {
                request,
                agent: agent.clone(),
            },
            Event::RequestWithdrawn {
                request,
                agent: agent.clone(),
                by: Some(process.clone()),
            },
            Event::DecisionRefused {
                caller,
                action: text(),
                refusal: refusal.clone(),
            },
            Event::Closed {
                grant,
                agent: agent.clone(),
                reason: CloseReason::KernelMissing,
                by: Some(process.clone()),
                queries: u64::MAX,
                bytes: u64::MAX,
            },
            Event::QueryFinished {
                query,
                grant,
                status: Some(u16::MAX),
                job: Some(job.clone()),
                destination: Some(widest_table()),
                bytes: u64::MAX,
                body_bytes: u64::MAX,
                duration_us: u64::MAX,
                trouble: Some(text()),
                is_void: true,
            },
            Event::JobSeen {
                query,
                grant,
                job: job.clone(),
                destination: Some(widest_table()),
                is_done: true,
                billed: Some(u64::MAX),
                processed: Some(u64::MAX),
                is_compared: false,
                names_no_table: true,
                read_outside: Some(text()),
            },
            Event::QueryRefused {
                grant: Some(grant),
                agent: agent.clone(),
                session,
                process: process.clone(),
                container: Some(Box::new(ContainerOrigin {
                    name: text(),
                    image: Some(text()),
                })),
                request: text(),
                sql: Some(text()),
                sql_cut: None,
                refusal: refusal.clone(),
            },
            Event::ConnectionRefused {
                agent: Some(agent.clone()),
                process: Some(process.clone()),
                refusal,
                count: u64::MAX,
            },
            Event::JobCancelled {
                grant,
                job,
                outcome: text(),
                is_settled: Some(false),
            },
            Event::KernelRefused {
                agent: Some(agent.clone()),
                process: process.clone(),
                verdict: text(),
                destination: text(),
                count: u64::MAX,
            },
            Event::FurtherRefused {
                by: Refuser::Kernel,
                agent: Some(agent.clone()),
                uid: Some(u32::MAX),
                code: Some(Code::CallerForbidden),
                count: u64::MAX,
            },
            Event::TooLong {
                event: text(),
                bytes: u64::MAX,
            },
            Event::RequestJoined {
                request,
                agent: agent.clone(),
                process: process.clone(),
            },
            Event::EventsLost {
                kinds: crate::event::KINDS
                    .iter()
                    .map(|kind| (*kind).to_owned())
                    .chain([text()])
                    .map(|kind| (kind, u64::MAX))
                    .collect(),
            },
            Event::ProcessJoined {
                agent: agent.clone(),
                process: process.clone(),
            },
            Event::WayExamined {
                process: process.clone(),
                of: Some(text()),
            },
            Event::IssuerKeySigns { kid: text() },
            Event::NamespaceServed {
                agent: agent.clone(),
                process: process.clone(),
                netns: u64::MAX,
                container: Some(text()),
                image: Some(text()),
            },
            Event::NamespaceLeft {
                agent: agent.clone(),
                netns: u64::MAX,
            },
            Event::ContainerChanged {
                agent: agent.clone(),
                container: Some(ContainerOrigin {
                    name: text(),
                    image: Some(text()),
                }),
                cgroup: Some(text()),
            },
            Event::NamespaceRefused {
                agent: agent.clone(),
                process: process.clone(),
                netns: u64::MAX,
                why: text(),
            },
            Event::CredentialPresented {
                agent: agent.clone(),
                process: Some(process.clone()),
                what: text(),
                fingerprint: Some(text()),
                count: u64::MAX,
            },
            Event::Forwarded {
                agent,
                process: Some(process),
                request: text(),
                count: u64::MAX,
            },
            Event::NotificationFailed {
                hook: text(),
                count: u64::MAX,
                why: text(),
            },
        ]
    }

    fn seals(event: &Event) -> bool {
        let now = Now {
            boot_ns: u64::MAX,
            unix_ns: u64::MAX,
        };
        let boot_id = "00000000-0000-0000-0000-000000000000";
        Chain::default().seal(now, boot_id, event).is_ok()
    }

    fn admitted(sql: String, tables: usize) -> Event {
        Event::QueryAdmitted {
            query: QueryId(u64::MAX),
            grant: GrantId(u64::MAX),
            agent: "bot".parse().expect("a name"),
            session: SessionId(u64::MAX),
            process: Process {
                pid: 1,
                start_boot_ns: 1,
                uid: 1,
                comm: String::new(),
            },
            container: None,
            method: Method::JobsInsert,
            sql: Some(sql),
            tables: vec![widest_table(); tables],
            writes: vec![widest_table()],
            imports: Vec::new(),
            exports: Vec::new(),
            resource: None,
            bytes: u64::MAX,
            ceiling: Some(u64::MAX),
            returned_ceiling: Some(u64::MAX),
            is_dry_run: false,
            dry_run_us: Some(u64::MAX),
            job: None,
            in_parts: false,
            asked: None,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn no_event_is_too_long_for_the_log_whatever_its_texts(c in prop_oneof![Just('\u{1}'), Just('"'), Just('\u{1f600}'), any::<char>()], count in 0_usize..800_000) {
            let text: String = std::iter::repeat_n(c, count).collect();
            for event in every_event(&text) {
                let bounded = event.bounded();
                prop_assert!(fits(&bounded) && seals(&bounded), "{}", serde_json::to_string(&bounded).expect("JSON").len());
                prop_assert_eq!(bounded.clone().bounded(), bounded, "what is within the bounds stays as it is");
            }
        }

        #[test]
        fn an_admission_that_fits_can_be_sealed(c in prop_oneof![Just('\u{1}'), Just('x')], count in 0_usize..600_000, tables in 0_usize..1200) {
            let event = admitted(std::iter::repeat_n(c, count).collect(), tables);
            prop_assert!(!fits(&event) || seals(&event));
        }
    }

    #[test]
    fn refused_sql_is_cut_with_its_length_and_hash_and_short_sql_stays_whole() {
        let refused = |sql: &str| {
            let event = every_event(sql)
                .into_iter()
                .find(|event| matches!(event, Event::QueryRefused { .. }));
            let Some(Event::QueryRefused { sql, sql_cut, .. }) = event.map(Event::bounded) else {
                panic!("there is one")
            };
            (sql.expect("has SQL"), sql_cut)
        };
        assert_eq!(refused("SELECT 1"), ("SELECT 1".to_owned(), None));
        let long = format!("x{}", "é".repeat(REFUSED_SQL_BYTES_MAX));
        let (sql, cut) = refused(&long);
        assert!(long.starts_with(&sql) && sql.len() == REFUSED_SQL_BYTES_MAX - 1);
        let cut = cut.expect("is cut");
        assert_eq!(
            (cut.bytes, cut.sha256),
            (long.len() as u64, sha256_hex(long.as_bytes()))
        );
    }

    #[test]
    fn a_stand_in_names_what_it_stands_for() {
        let event = admitted("x".repeat(3_000_000), 0);
        assert!(!fits(&event));
        assert_eq!(
            event.stand_in(7),
            Event::TooLong {
                event: "query_admitted".into(),
                bytes: 7
            }
        );
    }
}
