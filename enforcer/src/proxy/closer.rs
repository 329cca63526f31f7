//! After a window closed: no query gets its token any more, its running jobs are cancelled, then token and connections are dropped.

use std::sync::Arc;
use std::time::Duration;

use enforcer_proto::event::Event;
use enforcer_proto::query::JobRef;
use futures_util::StreamExt;
use http::{Request, header};
use http_body_util::{BodyExt, Limited};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::Tokens;
use crate::causes::Causes;
use crate::engine::{ClosedWindow, Engine, OpenWindow};
use crate::upstream::{Upstream, full};

/// How many jobs are cancelled at once.
const AT_ONCE: usize = 8;
/// How long one cancellation may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a closed window's token and connections are kept, so that a job whose start was under way can still be cancelled.
const GRACE: Duration = Duration::from_secs(30);
/// How long is waited before each look for a job whose start was never answered.
const LOOKS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(3),
    Duration::from_secs(12),
];
/// What is recorded of a job that was never started.
const NOT_THERE: &str = "BigQuery knows no such job";
/// The largest answer to a cancellation that is read, bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Where jobs are cancelled: any name of the API serves, this is the global one.
const HOST: &str = "bigquery.googleapis.com";

/// Cancels jobs of closed windows.
#[derive(Clone)]
pub struct Closer {
    engine: Engine,
    upstream: Arc<Upstream>,
    tokens: Arc<dyn Tokens>,
    /// This host's name, as jobs are labelled with it.
    host: String,
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
    ) -> Self {
        Self {
            engine,
            upstream,
            tokens,
            host,
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
                Ok(closed) => {
                    let closer = self.clone();
                    tokio::spawn(async move { closer.close(&closed).await });
                }
                // Their tokens end by themselves soon after; their jobs have a timeout of their own at BigQuery.
                Err(RecvError::Lagged(missed)) => tracing::error!(
                    missed,
                    "closed windows were missed: their jobs may run on to their timeout"
                ),
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn close(&self, closed: &ClosedWindow) {
        let window: &OpenWindow = &closed.window;
        let grant = window.grant;
        // First of all: a request that was admitted just before must not start its job after the close.
        self.tokens.close(window);
        let own = closed.jobs.iter().map(|job| (job.clone(), true));
        let lost = closed.unanswered.iter().map(|job| (job.clone(), false));
        let jobs: Vec<(JobRef, bool)> = own.chain(lost).collect();
        futures_util::stream::iter(jobs)
            .for_each_concurrent(AT_ONCE, |(job, is_own)| async move {
                if is_own {
                    self.cancel(window, job).await;
                } else {
                    self.cancel_if_ours(window, job).await;
                }
            })
            .await;
        tokio::time::sleep(GRACE).await;
        self.tokens.forget(grant).await;
        self.upstream.forget(grant.0);
    }

    /// Cancels one job of the window's own, and records what came of it.
    async fn cancel(&self, window: &OpenWindow, job: JobRef) {
        let outcome = patiently(self.try_cancel(window, &job)).await;
        self.record(window, job, outcome).await;
    }

    /// Looks for a job whose start was never answered, and cancels it if it carries this window's labels: its name may be somebody
    /// else's job's. Its start may be under way still, so what is not there is looked for again.
    async fn cancel_if_ours(&self, window: &OpenWindow, job: JobRef) {
        let mut outcome = String::new();
        for wait in LOOKS {
            tokio::time::sleep(wait).await;
            let looked = patiently(async {
                Ok(match self.is_ours(window, &job).await? {
                    None => NOT_THERE.to_owned(),
                    Some(false) => "left alone: it is not this window's".to_owned(),
                    Some(true) => self.try_cancel(window, &job).await?,
                })
            });
            outcome = looked.await;
            if outcome != NOT_THERE {
                break;
            }
        }
        self.record(window, job, outcome).await;
    }

    async fn record(&self, window: &OpenWindow, job: JobRef, outcome: String) {
        let event = Event::JobCancelled {
            grant: window.grant,
            job,
            outcome,
        };
        self.engine.note(event).await;
    }

    /// Whether a job carries the labels that this window's jobs were sent with; `None` where there is no such job.
    async fn is_ours(&self, window: &OpenWindow, job: &JobRef) -> Result<Option<bool>, String> {
        match self.ask(window, Request::get(uri(job, ""))).await? {
            (200, read) => {
                let labels = &read["configuration"]["labels"];
                let grant = window.grant.to_string();
                Ok(Some(
                    labels["enforcer_grant"] == grant && labels["enforcer_host"] == self.host,
                ))
            }
            (404, _) => Ok(None),
            (status, _) => Err(format!("BigQuery answered {status}")),
        }
    }

    async fn try_cancel(&self, window: &OpenWindow, job: &JobRef) -> Result<String, String> {
        let request = Request::post(uri(job, "/cancel")).header(header::CONTENT_LENGTH, 0);
        let (status, read) = self.ask(window, request).await?;
        if status != 200 {
            return Err(format!("BigQuery answered {status}"));
        }
        let state = &read["job"]["status"];
        let had_ended = state["state"] == "DONE" && state["errorResult"]["reason"] != "stopped";
        Ok(if had_ended {
            "it had ended by itself".to_owned()
        } else {
            "cancelled".to_owned()
        })
    }

    async fn ask(
        &self,
        window: &OpenWindow,
        request: http::request::Builder,
    ) -> Result<(u16, serde_json::Value), String> {
        let authorization = self
            .tokens
            .for_cancel(window)
            .await
            .map_err(|refusal| refusal.to_string())?;
        let request = request
            .header(header::AUTHORIZATION, authorization)
            .body(full(""))
            .map_err(|error| error.to_string())?;
        let answer = self
            .upstream
            .send(window.grant.0, request)
            .await
            .map_err(|error| Causes(&error).to_string())?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| Causes(error.as_ref()).to_string())?;
        let read = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        Ok((status, read))
    }
}

fn uri(job: &JobRef, what: &str) -> String {
    let location = job
        .location
        .as_ref()
        .map_or_else(String::new, |location| format!("?location={location}"));
    format!(
        "https://{HOST}/bigquery/v2/projects/{}/jobs/{}{what}{location}",
        job.project, job.job
    )
}

async fn patiently(work: impl Future<Output = Result<String, String>>) -> String {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(said)) => said,
        Ok(Err(why)) => format!("not cancelled: {why}"),
        Err(_) => "not cancelled: BigQuery took too long".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use std::sync::Mutex;

    use enforcer_proto::event::CloseReason;
    use enforcer_proto::id::GrantId;
    use enforcer_proto::principal::Approver;
    use enforcer_proto::refusal::{Code, Refusal};
    use http::HeaderValue;

    use super::*;
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
        async fn for_query(&self, window: &OpenWindow) -> Result<HeaderValue, Refusal> {
            self.note("query", window.grant);
            Err(Refusal::new(Code::TokenUnavailable, "none"))
        }

        async fn for_cancel(&self, window: &OpenWindow) -> Result<HeaderValue, Refusal> {
            self.note("cancel", window.grant);
            tokio::time::sleep(PATIENCE / 2).await;
            Err(Refusal::new(Code::TokenUnavailable, "none"))
        }

        fn close(&self, window: &OpenWindow) {
            self.note("close", window.grant);
        }

        async fn forget(&self, grant: GrantId) {
            self.note("forget", grant);
        }
    }

    fn job(name: &str) -> JobRef {
        JobRef {
            project: "p".to_owned(),
            job: name.to_owned(),
            location: Some("US".to_owned()),
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
        );
        let grant = GrantId(7);
        let window = OpenWindow {
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
            unanswered: Vec::new(),
        };
        closer.close(&closed).await;
        assert_eq!(
            *tokens.0.lock().unwrap(),
            ["close g-7", "cancel g-7", "forget g-7"]
        );
    }
}
