//! After a window closed: its running jobs are cancelled, then its token and connections are dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enforcer_proto::event::Event;
use enforcer_proto::id::GrantId;
use enforcer_proto::query::JobRef;
use futures_util::StreamExt;
use http::{Request, header};
use http_body_util::{BodyExt, Limited};
use tokio::sync::broadcast::error::RecvError;
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
    /// Jobs that are known to be done: nothing to cancel. Kept only while their window lives.
    done: Arc<Mutex<BTreeMap<GrantId, BTreeSet<JobRef>>>>,
}

impl std::fmt::Debug for Closer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Closer").finish_non_exhaustive()
    }
}

impl Closer {
    /// A closer over these.
    #[must_use]
    pub fn new(engine: Engine, upstream: Arc<Upstream>, tokens: Arc<dyn Tokens>) -> Self {
        Self {
            engine,
            upstream,
            tokens,
            done: Arc::default(),
        }
    }

    /// Notes that a job needs no cancelling.
    pub fn job_done(&self, grant: GrantId, job: JobRef) {
        self.done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(grant)
            .or_default()
            .insert(job);
    }

    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut closings = self.engine.closings();
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
        let grant = closed.window.grant;
        let done = self
            .done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&grant)
            .unwrap_or_default();
        let running = closed
            .jobs
            .iter()
            .filter(|job| !done.iter().any(|done| done.is_same_job(job)));
        futures_util::stream::iter(running.cloned().collect::<Vec<_>>())
            .for_each_concurrent(AT_ONCE, |job| self.cancel(&closed.window, job))
            .await;
        tokio::time::sleep(GRACE).await;
        self.tokens.forget(grant);
        self.upstream.forget(grant.0);
    }

    /// Cancels one job, and records what came of it.
    pub async fn cancel(&self, window: &OpenWindow, job: JobRef) {
        let outcome = match tokio::time::timeout(PATIENCE, self.try_cancel(window, &job)).await {
            Ok(Ok(said)) => said,
            Ok(Err(why)) => format!("not cancelled: {why}"),
            Err(_) => "not cancelled: BigQuery took too long".to_owned(),
        };
        self.engine
            .note(Event::JobCancelled {
                grant: window.grant,
                job,
                outcome,
            })
            .await;
    }

    async fn try_cancel(&self, window: &OpenWindow, job: &JobRef) -> Result<String, String> {
        let authorization = self
            .tokens
            .for_cancel(window)
            .await
            .map_err(|refusal| refusal.to_string())?;
        let location = job
            .location
            .as_ref()
            .map_or_else(String::new, |location| format!("?location={location}"));
        let uri = format!(
            "https://{HOST}/bigquery/v2/projects/{}/jobs/{}/cancel{location}",
            job.project, job.job
        );
        let request = Request::post(uri)
            .header(header::AUTHORIZATION, authorization)
            .header(header::CONTENT_LENGTH, 0)
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
        if status != 200 {
            return Err(format!("BigQuery answered {status}"));
        }
        let read: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        let state = &read["job"]["status"];
        let had_ended = state["state"] == "DONE" && state["errorResult"]["reason"] != "stopped";
        Ok(if had_ended {
            "it had ended by itself".to_owned()
        } else {
            "cancelled".to_owned()
        })
    }
}
