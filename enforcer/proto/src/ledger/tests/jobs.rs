//! Jobs as BigQuery has them and as the ledger knows them: whatever is lost, asked for again, refused or forgotten in between, no byte is uncounted
//! and no job that may run is out of sight.

use super::*;
use crate::admission;
use crate::ledger::{JobState, UnsettledJob};

const MIB: u64 = 1024 * 1024;
const BYTES_MAX: u64 = 200 * MIB;
const AT_ONCE_MAX: u64 = 3;

/// How a start goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// It is answered, and runs.
    Answered,
    /// It runs, and the answer is lost.
    Lost,
    /// BigQuery gives no plain answer, and begins nothing.
    NotBegun,
    /// The same, and it begins after BigQuery has said that there is no such job.
    BegunLate,
    /// BigQuery refuses it.
    Refused,
    /// It has no name, runs, and the answer is lost.
    Nameless,
}

#[derive(Debug, Clone)]
enum Move {
    /// A client chooses one of a few ids, as often as it likes.
    Start(usize, u64, Start),
    /// One of the jobs ends, having cost this share of its ceiling, which is told or not.
    End(usize, u64, bool),
    /// A client has one deleted, as far as that is let through.
    Delete(usize),
    /// The daemon looks at what is not settled.
    Look,
    /// The daemon ends and begins anew.
    Restart,
    /// One that was begun late begins.
    Begin,
}

/// A job at BigQuery.
#[derive(Debug, Clone)]
struct Far {
    name: JobRef,
    ceiling: u64,
    /// What it cost, once it has ended.
    cost: Option<u64>,
    says_cost: bool,
    is_late: bool,
}

struct World {
    host: Host,
    grant: GrantId,
    /// The ledger as it was before, and all that has happened since.
    before: Ledger,
    log: Vec<Event>,
    far: Vec<Far>,
    /// Jobs that BigQuery was told to forget, and those that nobody can name: only what they cost is left of them.
    gone: u64,
    /// The ceilings of those among them that began after BigQuery had said that there is none.
    gone_late: u64,
    /// Those that have not begun yet.
    late: Vec<Far>,
}

fn name(id: usize) -> JobRef {
    JobRef {
        project: "p".into(),
        job: format!("j-{id}"),
        location: Some("US".into()),
    }
}

impl World {
    fn new() -> Self {
        let mut host = Host::default();
        let grant = host.open(at(100), "10m");
        host.ledger.grants.get_mut(&grant).expect("open").budget = Budget {
            bytes_max: BYTES_MAX,
            query_bytes_max: u64::MAX,
            returned_bytes_max: u64::MAX,
            queries_max: u64::MAX,
            jobs_at_once_max: AT_ONCE_MAX,
        };
        Self {
            before: host.ledger.clone(),
            host,
            grant,
            log: Vec::new(),
            far: Vec::new(),
            gone: 0,
            gone_late: 0,
            late: Vec::new(),
        }
    }

    fn held(&self) -> &Grant {
        self.host.ledger.grant(self.grant).expect("held")
    }

    fn record(&mut self, event: Event) {
        self.host.ledger.apply(at(101), &event);
        self.log.push(event);
    }

    fn start(&mut self, id: usize, bytes: u64, how: Start) {
        let facts = select("p.finance.daily", bytes);
        let chosen = (how != Start::Nameless).then(|| name(id));
        let held = self.held();
        let named = chosen.as_ref();
        let named = named.map(|name| admission::Start { name, asked: None });
        let judged = admit(at(101), held, &facts, named);
        let Ok(ceiling) = judged.and_then(|_| held.ceiling(&facts, None)) else {
            return;
        };
        let query = self.host.ledger.next_query();
        let mut event = starting(query, self.grant, ceiling);
        if let Event::QueryAdmitted { job, .. } = &mut event {
            job.clone_from(&chosen);
        }
        self.record(event);
        let far = Far {
            name: name(id),
            ceiling: ceiling.expect("a job is started"),
            cost: None,
            says_cost: true,
            is_late: false,
        };
        let is_there = self.far.iter().any(|other| other.name == far.name);
        match how {
            Start::Refused => self.finish(query, Some(400), true),
            // BigQuery has another of that name.
            Start::Answered | Start::Lost if is_there => self.finish(query, Some(409), true),
            Start::Answered => {
                self.record(seen(query, self.grant, far.name.clone()));
                self.far.push(far);
                self.finish(query, Some(200), false);
            }
            Start::Lost => self.far.push(far),
            Start::NotBegun => {}
            Start::BegunLate => self.late.push(Far {
                is_late: true,
                ..far
            }),
            Start::Nameless => {
                self.gone += far.ceiling;
                self.finish(query, None, false);
            }
        }
    }

    fn finish(&mut self, query: QueryId, code: Option<u16>, void: bool) {
        let mut event = finishing(query, self.grant);
        if let Event::QueryFinished {
            status, is_void, ..
        } = &mut event
        {
            (*status, *is_void) = (code, void);
        }
        self.record(event);
    }

    /// Looks at one job, as its follower and the close do.
    fn look(&mut self, job: &UnsettledJob) {
        let far = self.far.iter().find(|far| far.name == job.job).cloned();
        match far {
            Some(far) => {
                let mut event = seen(job.query, self.grant, far.name.clone());
                if let Event::JobSeen {
                    is_done,
                    is_compared,
                    billed,
                    ..
                } = &mut event
                {
                    *is_done = far.cost.is_some();
                    *is_compared = *is_done;
                    *billed = far.cost.filter(|_| far.says_cost);
                }
                self.record(event);
            }
            None if job.state == JobState::Unanswered => {
                self.finish(job.query, Some(404), true);
            }
            None => {}
        }
    }

    fn take(&mut self, step: Move) {
        match step {
            Move::Start(id, bytes, how) => self.start(id, bytes, how),
            Move::End(which, thousandths, says_cost) => {
                if let Some(far) = self.far.get_mut(which).filter(|far| far.cost.is_none()) {
                    far.cost = Some(far.ceiling / 1000 * thousandths);
                    far.says_cost = says_cost;
                }
            }
            Move::Delete(which) => {
                let Some(far) = self.far.get(which).cloned() else {
                    return;
                };
                let held = self.held();
                // As admission does: only one's own, and only once it is known what it has read.
                if held.own_job(&far.name).is_some() && held.uncompared(&far.name).is_none() {
                    self.far.remove(which);
                    self.gone += far.cost.unwrap_or(0);
                    if far.is_late {
                        self.gone_late += far.ceiling;
                    }
                }
            }
            Move::Look => {
                for job in self.held().unsettled_jobs() {
                    self.look(&job);
                }
            }
            Move::Begin => {
                // Only once BigQuery has said that there is none: before that it is but a start that takes long.
                let doubtful = self.held().unsettled_jobs();
                let is_doubtful = |far: &Far| {
                    let mut names = doubtful.iter();
                    names.any(|job| job.state == JobState::Doubtful && job.job == far.name)
                };
                if let Some(place) = self.late.iter().position(is_doubtful) {
                    let far = self.late.remove(place);
                    self.far.push(far);
                }
            }
            Move::Restart => {
                let mut again = self.before.clone();
                for event in &self.log {
                    again.apply(at(101), event);
                }
                self.host.ledger = again;
            }
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let held = self.held();
        // What BigQuery said was not there counts from when it is seen.
        let is_seen = |far: &&Far| !far.is_late || held.own_job(&far.name).is_some();
        let known = self.far.iter().filter(is_seen);
        let ran: u64 = known
            .clone()
            .map(|far| far.cost.unwrap_or(far.ceiling))
            .sum();
        let counted = held.usage.bytes + held.usage.held_bytes();
        prop_assert!(
            counted >= ran + self.gone,
            "{counted} of {ran} and {}",
            self.gone
        );
        let late = self.far.iter().filter(|far| far.is_late);
        let late: u64 = late.map(|far| far.ceiling).sum();
        prop_assert!(counted <= BYTES_MAX + late + self.gone_late);
        let unsettled = held.unsettled_jobs();
        for far in self.far.iter().filter(|far| far.cost.is_none()) {
            let is_known = unsettled.iter().any(|job| job.job == far.name);
            prop_assert!(is_known, "{far:?} is out of sight");
        }
        let running = known.filter(|far| far.cost.is_none());
        let (late, running): (Vec<_>, Vec<_>) = running.partition(|far| far.is_late);
        prop_assert!((late.len() + running.len()) as u64 <= held.usage.jobs_at_once());
        prop_assert!(running.len() as u64 <= AT_ONCE_MAX);
        Ok(())
    }

    /// The close: BigQuery fails at first, and is well then.
    fn close(&mut self, failures: usize) {
        for attempt in 0..=failures {
            for job in self.held().unsettled_jobs() {
                let is_well = attempt == failures;
                if is_well {
                    for far in self.far.iter_mut().filter(|far| far.name == job.job) {
                        far.cost = far.cost.or(Some(far.ceiling));
                    }
                }
                self.record(Event::JobCancelled {
                    grant: self.grant,
                    job: job.job,
                    outcome: "as it came".into(),
                    is_settled: Some(is_well),
                });
            }
            self.take(Move::Restart);
        }
    }
}

fn one_move() -> impl Strategy<Value = Move> {
    let how = prop_oneof![
        Just(Start::Answered),
        Just(Start::Lost),
        Just(Start::NotBegun),
        Just(Start::BegunLate),
        Just(Start::Refused),
        Just(Start::Nameless),
    ];
    prop_oneof![
        4 => (0..4_usize, 0..60 * MIB, how).prop_map(|(id, bytes, how)| Move::Start(id, bytes, how)),
        3 => (0..6_usize, 0..=1000_u64, any::<bool>()).prop_map(|(which, share, told)| Move::End(which, share, told)),
        2 => (0..6_usize).prop_map(Move::Delete),
        3 => Just(Move::Look),
        1 => Just(Move::Restart),
        1 => Just(Move::Begin),
    ]
}

proptest! {
    #[test]
    fn what_ran_is_charged_or_held_and_what_may_run_is_in_sight_until_the_close_has_settled_it(
        moves in prop::collection::vec(one_move(), 0..60),
        failures in 0..4_usize,
    ) {
        let mut world = World::new();
        for step in moves {
            world.take(step);
            world.check()?;
        }
        world.close(failures);
        prop_assert!(world.far.iter().all(|far| far.cost.is_some()), "{:?} runs on", world.far);
        prop_assert!(world.held().unsettled_jobs().is_empty());
    }
}
