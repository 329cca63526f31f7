//! Looking at jobs: before anything of a job's results is passed on, BigQuery's own description of it says what it has read.

use std::sync::Arc;
use std::time::Duration;

use enforcer_proto::event::Event;
use enforcer_proto::id::QueryId;
use enforcer_proto::ledger::{JobState, UnsettledJob};
use enforcer_proto::query::{JobRef, Uncompared};
use enforcer_proto::refusal::{Code, Refusal};

use super::apis::Turn;
use super::forward::{self, Answer, Finish};
use super::request::within;
use super::verdicts::Writing;
use super::{Proxy, Session};
use crate::bigquery::answer::{JobFacts, is_marked, job_facts};
use crate::dns::protected::api_beside;
use crate::engine::OpenWindow;

/// Looks at what the window's own jobs have read whose results are about to be read: a view may have become another since the dry run. What they
/// cost is known then, too.
pub(super) async fn compare_all(
    proxy: &Arc<Proxy>,
    session: &Session,
    window: &Arc<OpenWindow>,
    finish: &mut Finish,
) -> Result<(), Refusal> {
    for job in finish.uncompared() {
        compare(proxy, session, window, finish, &job).await?;
    }
    Ok(())
}

/// The same, of one of them.
pub(super) async fn compare(
    proxy: &Arc<Proxy>,
    session: &Session,
    window: &Arc<OpenWindow>,
    finish: &mut Finish,
    job: &Uncompared,
) -> Result<(), Refusal> {
    let compared = within(proxy, window, async {
        let host = api_beside(&session.name);
        let answer = forward::describe(proxy, &host, window, &job.job).await?;
        let facts = ended(&answer, job)?;
        let facts = facts.ok_or_else(|| {
            Refusal::new(
                Code::NotVouched,
                format!("Job {} has not ended, so it is not known what it has read, and nothing of its results is passed on yet", job.job),
            )
        })?;
        finish.looked_at(job.query, facts).await
    });
    compared
        .await
        .inspect_err(|refusal| finish.trouble(&refusal.what))
}

/// What BigQuery's own description says of a job of the window's; none while that has not ended.
fn ended(answer: &Answer, job: &Uncompared) -> Result<Option<JobFacts>, Refusal> {
    let facts = job_facts(&answer.json());
    let is_it = facts
        .job
        .as_ref()
        .is_some_and(|named| named.is_same_job(&job.job));
    let says_what = facts.is_compared && !(facts.names_no_table && job.reads);
    if answer.status != 200 || !is_it || (facts.is_done && !says_what) {
        return Err(Refusal::new(
            Code::UpstreamFailed,
            format!(
                "BigQuery does not say what job {} has read, so nothing of its results is passed on",
                job.job
            ),
        ));
    }
    Ok(facts.is_compared.then_some(facts))
}

/// How long after one look at a job the next comes: the first, and the longest.
const LOOKS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// A job that is looked at until it has ended or its window has closed.
struct Followed {
    /// What it started with, and its name.
    job: Uncompared,
    /// It is known to be the window's own; otherwise it is looked for under its name.
    is_own: bool,
    /// Its start is not finished until it is known what came of it; none where that is on record.
    finish: Option<Finish>,
    /// That it writes, where it does.
    writing: Option<Writing>,
}

/// Where BigQuery is asked about a job.
enum Asked {
    /// Where it was started.
    At(String),
    /// It is not known where that was.
    InTurn,
}

impl Asked {
    async fn describe(
        &self,
        proxy: &Proxy,
        window: &OpenWindow,
        job: &JobRef,
    ) -> Result<Answer, Refusal> {
        let turn: Turn = match self {
            Self::At(host) => return forward::describe(proxy, host, window, job).await,
            Self::InTurn => proxy.apis.turn(job.location.as_deref()),
        };
        let described = forward::describe(proxy, &turn.name, window, job).await;
        described.inspect_err(|_| proxy.apis.unreachable(&turn))
    }
}

/// How a job that is being started is followed, where its answer does not end it.
pub(super) struct Trail {
    proxy: Arc<Proxy>,
    window: Arc<OpenWindow>,
    /// Where BigQuery is asked.
    host: String,
    /// The name under which it goes out.
    name: Option<JobRef>,
    /// It reads tables.
    pub(super) reads: bool,
    /// It writes one.
    writing: Option<Writing>,
}

impl Trail {
    pub(super) fn new(
        (proxy, session, window): (&Arc<Proxy>, &Session, &Arc<OpenWindow>),
        name: Option<JobRef>,
        reads: bool,
        writing: Option<Writing>,
    ) -> Self {
        Self {
            proxy: Arc::clone(proxy),
            window: Arc::clone(window),
            host: api_beside(&session.name),
            name,
            reads,
            writing,
        }
    }

    /// Whether it can be looked for.
    pub(super) const fn is_named(&self) -> bool {
        self.name.is_some()
    }

    /// What BigQuery says of the job of its name.
    pub(super) async fn described(&self) -> Result<Answer, Refusal> {
        let name = self.name.as_ref();
        let name = name.ok_or_else(|| Refusal::new(Code::UpstreamFailed, "It has no name"))?;
        let asked = forward::describe(&self.proxy, &self.host, &self.window, name);
        within(&self.proxy, &self.window, asked).await
    }

    /// Its start was not plainly answered. What cannot be looked for is finished with that.
    pub(super) fn lost(mut self, mut finish: Finish, refusal: Option<&Refusal>) {
        if refusal.is_some_and(|refusal| refusal.code.is_without_token()) {
            // It was not sent, or not taken.
            finish.void();
        } else if let Some((job, query)) = self.name.take().zip(finish.query()) {
            self.follow(query, job, Some(finish));
        }
    }

    /// It runs.
    pub(super) fn runs(self, query: QueryId, job: JobRef) {
        self.follow(query, job, None);
    }

    fn follow(self, query: QueryId, job: JobRef, finish: Option<Finish>) {
        let followed = Followed {
            job: Uncompared {
                query,
                job,
                reads: self.reads,
            },
            is_own: finish.is_none(),
            finish,
            writing: self.writing,
        };
        let asked = Asked::At(self.host);
        tokio::spawn(follow(self.proxy, asked, self.window, followed));
    }
}

/// Takes up a job that the daemon before left behind.
pub(super) fn take_up(proxy: &Arc<Proxy>, window: &Arc<OpenWindow>, job: UnsettledJob) {
    let UnsettledJob {
        query,
        job,
        state,
        reads,
    } = job;
    let is_own = match state {
        JobState::Running | JobState::Ended => true,
        JobState::Unanswered => false,
        // That BigQuery has none is on record.
        JobState::Doubtful => return,
    };
    let followed = Followed {
        job: Uncompared { query, job, reads },
        is_own,
        finish: None,
        // It may.
        writing: Some(proxy.verdicts.writing()),
    };
    let (proxy, window) = (Arc::clone(proxy), Arc::clone(window));
    tokio::spawn(follow(proxy, Asked::InTurn, window, followed));
}

/// Looks at a job until it has ended or its window has closed, whoever asks for it: what it has read stands in the table that it writes, for
/// others, too; and its place among those that run at once is free then. One whose start was not plainly answered is BigQuery's of that name
/// with our labels, or it is none and the start took nothing; until that is known what was held for it stays held. Without a location nothing is told
/// of a name.
async fn follow(proxy: Arc<Proxy>, asked: Asked, window: Arc<OpenWindow>, mut followed: Followed) {
    if followed.job.job.location.is_none() {
        return;
    }
    let mut pause = LOOKS[0];
    let looking = async {
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOKS[1]);
            let described = asked.describe(&proxy, &window, &followed.job.job);
            if let Ok(answer) = described.await
                && followed.is_settled_by(&proxy, &window, &answer).await
            {
                return Ok(());
            }
        }
    };
    let _: Result<(), Refusal> = within(&proxy, &window, looking).await;
    // What was known of the table that it writes may not be true any more.
    drop(followed.writing);
}

impl Followed {
    /// Takes in what BigQuery says of the job, and whether nothing more is to be learnt of it.
    async fn is_settled_by(
        &mut self,
        proxy: &Proxy,
        window: &Arc<OpenWindow>,
        answer: &Answer,
    ) -> bool {
        if !self.is_own {
            match answer.status {
                // Whether an answer came before or not: the close looks for the name once more.
                404 => {
                    self.nothing_came(proxy, window, 404).await;
                    return true;
                }
                200 if !is_marked(&answer.json(), window.grant, &proxy.host) => {
                    self.nothing_came(proxy, window, 200).await;
                    return true;
                }
                200 => {}
                _ => return false,
            }
            let facts = JobFacts {
                // Looked at below.
                is_compared: false,
                ..job_facts(&answer.json())
            };
            // What is wrong with it is on record by that, and closes the window.
            let _ = match &mut self.finish {
                Some(finish) => finish.seen(facts).await,
                None => forward::seen(&proxy.engine, window, self.job.query, facts).await,
            };
            self.is_own = true;
        }
        // From here on it is on record as the window's own.
        drop(self.finish.take());
        match ended(answer, &self.job) {
            Ok(Some(facts)) => {
                let _ = forward::seen(&proxy.engine, window, self.job.query, facts).await;
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// There is no such job of ours: the start took nothing.
    async fn nothing_came(&mut self, proxy: &Proxy, window: &OpenWindow, status: u16) {
        if let Some(mut finish) = self.finish.take() {
            if status == 404 {
                finish.status(status);
            }
            return finish.void();
        }
        let finished = Event::QueryFinished {
            query: self.job.query,
            grant: window.grant,
            status: Some(status),
            job: None,
            destination: None,
            bytes: 0,
            body_bytes: 0,
            duration_us: 0,
            trouble: Some("the daemon ended before the answer did".to_owned()),
            is_void: true,
        };
        proxy.engine.note(finished).await;
    }
}
