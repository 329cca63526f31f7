//! After a window closed: no query gets its token any more, its running jobs are cancelled, then token and connections are dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enforcer_proto::event::Event;
use enforcer_proto::id::GrantId;
use enforcer_proto::ledger::{JobState, UnsettledJob};
use enforcer_proto::query::JobRef;
use futures_util::{FutureExt, StreamExt};
use http::{Request, header};
use http_body_util::{BodyExt, Limited};
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::apis::Apis;
use super::{Tokens, coded, forward};
use crate::bigquery::answer::{JobFacts, is_marked, job_facts};
use crate::causes::Causes;
use crate::engine::{ClosedWindow, Engine, OpenWindow};
use crate::upstream::{Upstream, full};

/// How many jobs are cancelled at once.
const AT_ONCE: usize = 8;
/// How long one cancellation may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a closed window's token and connections are kept once nothing is left to cancel, so that a job whose start was under way can
/// still be.
const GRACE: Duration = Duration::from_secs(30);
/// How long is waited before what could not be settled is tried again: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How long a job that is not there is looked for before it is believed never to have been started: from the close, or from when nobody waits
/// any more for an answer to what was sent before it. Nothing is sent later; what was may be on its way, or being worked on.
const UNDER_WAY: Duration = Duration::from_secs(15);
/// What is recorded of a job that was never started.
const NOT_THERE: &str = "BigQuery knows no such job";
/// What is recorded of one that had ended.
const HAD_ENDED: &str = "it had ended by itself";
/// The largest answer to a cancellation that is read, bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Connections of closed windows, on which nothing is sent but what ends their jobs, have keys of their own: those of the window send nothing
/// after it. Grants and sessions are numbered far below.
const CLOSING_KEYS: u64 = 1 << 62;
/// How long a name may take to answer before it is the next one's turn; a job is looked at, and cancelled.
const ANSWER: Duration = Duration::from_secs(4);

/// The closed windows that are worked on, and how to say that there is more to do.
type Working = Arc<Mutex<BTreeMap<GrantId, Arc<Notify>>>>;

/// Cancels jobs of closed windows.
#[derive(Clone)]
pub struct Closer {
    engine: Engine,
    upstream: Arc<Upstream>,
    tokens: Arc<dyn Tokens>,
    /// This host's name, as jobs are labelled with it.
    host: String,
    /// Where jobs are cancelled.
    apis: Arc<Apis>,
    working: Working,
}

/// What came of one attempt at a job.
enum Attempt {
    /// It does not run on, for this reason.
    Settled(&'static str),
    /// It may, and what it has read stands in the ledger already or is of no interest.
    Compared,
    /// Nothing is known yet; it is tried again.
    Later,
}

impl std::fmt::Debug for Closer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Closer").finish_non_exhaustive()
    }
}

impl Closer {
    /// A closer over these.
    #[must_use]
    pub fn new(
        engine: Engine,
        upstream: Arc<Upstream>,
        tokens: Arc<dyn Tokens>,
        host: String,
        apis: Arc<Apis>,
    ) -> Self {
        Self {
            engine,
            upstream,
            tokens,
            host,
            apis,
            working: Working::default(),
        }
    }

    /// Works until `stop`.
    pub async fn run(
        self,
        mut closings: broadcast::Receiver<Arc<ClosedWindow>>,
        stop: CancellationToken,
    ) {
        while let Some(closing) = stop.run_until_cancelled(closings.recv()).await {
            match closing {
                Ok(closed) => self.take(closed),
                // Their tokens end by themselves soon after; their jobs have a timeout of their own at BigQuery.
                Err(RecvError::Lagged(missed)) => tracing::error!(
                    missed,
                    "closed windows were missed: their jobs may run on to their timeout"
                ),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Begins to settle a closed window; one that is being settled has more to do.
    fn take(&self, closed: Arc<ClosedWindow>) {
        let grant = closed.window.grant;
        let more = Arc::new(Notify::new());
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = working.get(&grant) {
            return more.notify_one();
        }
        working.insert(grant, Arc::clone(&more));
        drop(working);
        let closer = self.clone();
        tokio::spawn(async move {
            let mut left = closed.jobs.clone();
            loop {
                closer.close(&closed.window, left, &more).await;
                if closer.is_through(grant, &more) {
                    return;
                }
                left = closer.engine.unsettled(grant).await.unwrap_or_default();
            }
        });
    }

    /// Whether nothing came while the last of it was let go. From here on what comes begins anew.
    fn is_through(&self, grant: GrantId, more: &Notify) -> bool {
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        let has_come = more.notified().now_or_never().is_some();
        if !has_come {
            working.remove(&grant);
        }
        !has_come
    }

    /// Works until nothing of the window's jobs is left that the ledger does not know as settled, or BigQuery cannot run them any more, and
    /// then for a while.
    async fn close(&self, window: &OpenWindow, mut left: Vec<UnsettledJob>, more: &Notify) {
        let grant = window.grant;
        // First of all: a request that was admitted just before must not start its job after the close.
        self.tokens.close(window);
        let mut quiet = Instant::now();
        let (mut said, mut pause) = (BTreeMap::new(), PAUSES[0]);
        loop {
            let is_nothing_left = left.is_empty();
            if self.upstream.waits(grant.0) {
                // What was sent whole before the close, and is not answered yet, may still start its job.
                quiet = Instant::now();
            }
            self.round(window, left, quiet, &mut said).await;
            let wait = if is_nothing_left { GRACE } else { pause };
            pause = (pause * 2).min(PAUSES[1]);
            if tokio::time::timeout(wait, more.notified()).await.is_ok() {
                pause = PAUSES[0];
            }
            left = match self.engine.unsettled(grant).await {
                Some(left) if !(left.is_empty() && is_nothing_left) => left,
                // The daemon stops, and its next start finds what is left.
                Some(_) | None => break,
            };
        }
        self.tokens.forget(grant).await;
        self.upstream.forget(grant.0);
        self.upstream.forget(CLOSING_KEYS | grant.0);
    }

    /// Tries every job once, those first that are known to run; records what has come of it, and a failure once.
    async fn round(
        &self,
        window: &OpenWindow,
        jobs: Vec<UnsettledJob>,
        quiet: Instant,
        said: &mut BTreeMap<JobRef, String>,
    ) {
        let tried = futures_util::stream::iter(jobs).map(|job| async move {
            let tried = patiently(self.settle(window, &job, quiet)).await;
            (job.job, tried)
        });
        let mut tried = tried.buffer_unordered(AT_ONCE);
        while let Some((job, tried)) = tried.next().await {
            let (outcome, is_settled) = match tried {
                Ok(Attempt::Settled(outcome)) => (outcome.to_owned(), true),
                Ok(Attempt::Compared | Attempt::Later) => continue,
                Err(why) => (format!("not cancelled: {why}"), false),
            };
            if !is_settled && said.get(&job) == Some(&outcome) {
                continue;
            }
            said.insert(job.clone(), outcome.clone());
            let event = Event::JobCancelled {
                grant: window.grant,
                job,
                outcome,
                is_settled: Some(is_settled),
            };
            self.engine.note(event).await;
        }
    }

    /// Tries to settle one job: it is cancelled, or has ended and what it has read is compared. One that is only known by its name is cancelled if
    /// it carries this window's labels: it may be somebody else's. Its start may be under way still, so what is not there is looked for again.
    async fn settle(
        &self,
        window: &OpenWindow,
        job: &UnsettledJob,
        quiet: Instant,
    ) -> Result<Attempt, String> {
        match job.state {
            JobState::Running => self.cancel(window, job).await,
            JobState::Ended => self.compare(window, job).await,
            JobState::Unanswered | JobState::Doubtful => {
                match self.describe(window, &job.job).await? {
                    Some(read) if !is_marked(&read, window.grant, &self.host) => {
                        Ok(Attempt::Settled("left alone: it is not this window's"))
                    }
                    Some(read) => {
                        // From here on it is on record as the window's own.
                        let facts = JobFacts {
                            is_compared: false,
                            ..job_facts(&read)
                        };
                        let _ = forward::seen(&self.engine, window, job.query, facts).await;
                        self.cancel(window, job).await
                    }
                    None if quiet.elapsed() >= UNDER_WAY => Ok(Attempt::Settled(NOT_THERE)),
                    None => Ok(Attempt::Later),
                }
            }
        }
    }

    /// Asks BigQuery to cancel a job. It answers before the job has ended, and then it is asked again.
    async fn cancel(&self, window: &OpenWindow, job: &UnsettledJob) -> Result<Attempt, String> {
        let post = Request::post("/").header(header::CONTENT_LENGTH, 0);
        let read = match self.ask(window, &job.job, (post, "/cancel")).await? {
            (200, read) => read,
            (404, _) => return Ok(Attempt::Settled(NOT_THERE)),
            (status, _) => return Err(format!("BigQuery answered {status}")),
        };
        let status = &read["job"]["status"];
        if status["state"] != "DONE" {
            return Ok(Attempt::Later);
        }
        if status["errorResult"]["reason"] == "stopped" {
            return Ok(Attempt::Settled("cancelled"));
        }
        self.compare(window, job).await?;
        Ok(Attempt::Settled(HAD_ENDED))
    }

    /// Puts on record what a job that has ended has read: its table may stand there for others.
    async fn compare(&self, window: &OpenWindow, job: &UnsettledJob) -> Result<Attempt, String> {
        let Some(read) = self.describe(window, &job.job).await? else {
            return Ok(Attempt::Settled(NOT_THERE));
        };
        let facts = job_facts(&read);
        if !facts.is_compared || (facts.names_no_table && job.reads) {
            return Ok(Attempt::Settled(
                "it had ended, and BigQuery does not say what it has read",
            ));
        }
        // What it says of the scope is in the record; the window has closed.
        let _ = forward::seen(&self.engine, window, job.query, facts).await;
        Ok(Attempt::Compared)
    }

    /// BigQuery's own description of a job; `None` where there is no such job.
    async fn describe(
        &self,
        window: &OpenWindow,
        job: &JobRef,
    ) -> Result<Option<serde_json::Value>, String> {
        match self.ask(window, job, (Request::get("/"), "")).await? {
            (200, read) => Ok(Some(read)),
            (404, _) => Ok(None),
            (status, _) => Err(format!("BigQuery answered {status}")),
        }
    }

    /// Asks about a job. Where no answer comes, the next attempt asks under another name.
    async fn ask(
        &self,
        window: &OpenWindow,
        job: &JobRef,
        (request, what): (http::request::Builder, &str),
    ) -> Result<(u16, serde_json::Value), String> {
        let credential = self
            .tokens
            .for_cancel(window)
            .await
            .map_err(|refusal| refusal.to_string())?;
        let turn = self.apis.turn(job.location.as_deref());
        let mut request = request
            .uri(uri(&turn.name, job, what))
            .body(full(""))
            .map_err(|error| error.to_string())?;
        credential.put(request.headers_mut());
        coded::ask(request.headers_mut());
        let sent = self.upstream.send(CLOSING_KEYS | window.grant.0, request);
        let sent = tokio::time::timeout(ANSWER, sent).await;
        let sent = sent.map_err(|_| format!("{} took too long", turn.name));
        let answer = sent
            .and_then(|sent| sent.map_err(|error| Causes(&error).to_string()))
            .inspect_err(|_| self.apis.unreachable(&turn))?;
        let status = answer.status().as_u16();
        if status == 401 {
            self.tokens.refused(window, &credential).await;
        }
        let answer = coded::decoded(answer).map_err(|refusal| refusal.to_string())?;
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| Causes(error.as_ref()).to_string())?;
        let read = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        Ok((status, read))
    }
}

fn uri(host: &str, job: &JobRef, what: &str) -> String {
    let location = job
        .location
        .as_ref()
        .map_or_else(String::new, |location| format!("?location={location}"));
    format!(
        "https://{host}/bigquery/v2/projects/{}/jobs/{}{what}{location}",
        job.project, job.job
    )
}

async fn patiently(work: impl Future<Output = Result<Attempt, String>>) -> Result<Attempt, String> {
    let tried = tokio::time::timeout(PATIENCE, work).await;
    tried.unwrap_or_else(|_| Err("BigQuery took too long".to_owned()))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use enforcer_proto::event::CloseReason;
    use enforcer_proto::id::QueryId;
    use enforcer_proto::principal::Approver;
    use enforcer_proto::refusal::{Code, Refusal};

    use super::*;
    use crate::dns::protected::Universe;
    use crate::token::Credential;
    use crate::upstream::tests::unused;

    /// Notes what it is asked for; holds nothing.
    #[derive(Default)]
    struct Noted(Mutex<Vec<String>>);

    impl Noted {
        fn note(&self, what: &str, grant: GrantId) {
            self.0.lock().unwrap().push(format!("{what} {grant}"));
        }
    }

    #[async_trait]
    impl Tokens for Noted {
        async fn for_query(&self, window: &OpenWindow) -> Result<Credential, Refusal> {
            self.note("query", window.grant);
            Err(Refusal::new(Code::TokenUnavailable, "none"))
        }

        fn begin(&self, window: &OpenWindow) {
            self.note("begin", window.grant);
        }

        async fn for_cancel(&self, window: &OpenWindow) -> Result<Credential, Refusal> {
            self.note("cancel", window.grant);
            tokio::time::sleep(PATIENCE / 2).await;
            Err(Refusal::new(Code::TokenUnavailable, "none"))
        }

        async fn refused(&self, window: &OpenWindow, _: &Credential) {
            self.note("refused", window.grant);
        }

        fn close(&self, window: &OpenWindow) {
            self.note("close", window.grant);
        }

        async fn forget(&self, grant: GrantId) {
            self.note("forget", grant);
        }
    }

    fn job(name: &str) -> UnsettledJob {
        UnsettledJob {
            query: QueryId(1),
            job: JobRef {
                project: "p".to_owned(),
                job: name.to_owned(),
                location: Some("US".to_owned()),
            },
            state: JobState::Running,
            reads: true,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_first_ends_queries_then_cancels_what_runs_and_at_last_forgets_the_token() {
        let tokens = Arc::new(Noted::default());
        let closer = Closer::new(
            Engine::ended(),
            Arc::new(unused()),
            Arc::clone(&tokens) as _,
            "host-a".to_owned(),
            Arc::new(Apis::of(&[], &Universe::default())),
        );
        let grant = GrantId(7);
        let window = OpenWindow {
            reason_digest: None,
            is_of_text: false,
            grant,
            agent: "bot".parse().unwrap(),
            scope: "p.finance:read".parse().unwrap(),
            approver: Approver::Policy { rule: 1 },
            closes_boot_ns: 1,
        };
        let closed = ClosedWindow {
            window: Arc::new(window),
            reason: CloseReason::Revoked,
            jobs: vec![job("running")],
        };
        closer
            .close(&closed.window, closed.jobs.clone(), &Notify::new())
            .await;
        assert_eq!(
            *tokens.0.lock().unwrap(),
            ["close g-7", "cancel g-7", "forget g-7"]
        );
    }
}
