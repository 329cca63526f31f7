//! What shows that windows ended which were ended from here. It is kept with the deed and only ever grows: what was shown once is not taken back when
//! the records that showed it are no longer kept here. Pure; bounded in deeds, windows and jobs.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_proto::audit::Record;
use enforcer_proto::event::{About, Event};
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;

use super::popup::clock_ms;
use super::tail::Entry;

/// The most deeds that are kept: the newest.
const DEEDS_MAX: usize = 64;
/// The most windows whose proof is kept, of all deeds but the newest.
const WINDOWS_MAX: usize = 4_096;
/// For how long after its close an answer of a window may still end, nanoseconds: it is cut at once, and then on record.
const SETTLES_NS: u64 = 60_000_000_000;
/// The most jobs of a window that are named.
const JOBS_MAX: usize = 32;

/// What the daemon said to a deed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing yet.
    Asked,
    /// That it is done, in its words.
    Done(String),
    /// No, or nothing that could be read.
    NotDone(String),
}

/// A deed that ends windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// What was asked for.
    pub(crate) said: String,
    pub(crate) outcome: Outcome,
    /// Those that it was to end: which were open when it was asked for.
    pub(crate) windows: Vec<(GrantId, AgentName)>,
}

/// The deeds that ended windows, and what shows it.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    deeds: Vec<Ended>,
    proofs: BTreeMap<GrantId, Proof>,
    /// The windows of an agent about which what happens to the agent still says something.
    of_agent: BTreeMap<AgentName, BTreeSet<GrantId>>,
    /// How many deeds are not kept any more.
    pub(crate) forgotten: u64,
    /// The number of the newest record that was taken in; 0 where there was none.
    last_seq: u64,
}

impl Proofs {
    /// The log is another one, whose windows may have the numbers of those before: nothing of it is taken for what shows that those have ended.
    pub(crate) fn begin_anew(&mut self) {
        let deeds = u64::try_from(self.deeds.len()).unwrap_or(u64::MAX);
        *self = Self {
            forgotten: self.forgotten.saturating_add(deeds),
            ..Self::default()
        };
    }

    /// A deed is asked for, `before` being the records that are here.
    pub(crate) fn begin<'a>(
        &mut self,
        said: String,
        windows: Vec<(GrantId, AgentName)>,
        before: impl Iterator<Item = &'a Entry>,
    ) {
        self.watch_all(&windows, before);
        self.deeds.push(Ended {
            said,
            outcome: Outcome::Asked,
            windows,
        });
        self.keep_bounds();
    }

    /// From here on what shows the end of these windows is kept; `before` are the records that are here already.
    fn watch_all<'a>(
        &mut self,
        windows: &[(GrantId, AgentName)],
        before: impl Iterator<Item = &'a Entry>,
    ) {
        let mut fresh = Self::default();
        for (grant, agent) in windows {
            if !self.proofs.contains_key(grant) {
                fresh.watch(*grant, agent);
            }
        }
        if !fresh.proofs.is_empty() {
            before.for_each(|entry| fresh.take(&entry.record));
        }
        // What was let go while a window was open says nothing of what was refused after its end.
        let open = fresh.proofs.values_mut();
        open.filter(|proof| proof.closed.is_none())
            .for_each(|proof| proof.let_go = 0);
        self.proofs.append(&mut fresh.proofs);
        for (agent, mut grants) in fresh.of_agent {
            self.of_agent.entry(agent).or_default().append(&mut grants);
        }
        self.last_seq = self.last_seq.max(fresh.last_seq);
    }

    fn keep_bounds(&mut self) {
        while self.deeds.len() > 1
            && (self.deeds.len() > DEEDS_MAX || self.proofs.len() > WINDOWS_MAX)
        {
            self.forget_oldest();
        }
    }

    fn watch(&mut self, grant: GrantId, agent: &AgentName) {
        self.proofs.insert(grant, Proof::default());
        self.of_agent
            .entry(agent.clone())
            .or_default()
            .insert(grant);
    }

    fn forget_oldest(&mut self) {
        let oldest = self.deeds.remove(0);
        self.forgotten = self.forgotten.saturating_add(1);
        self.let_go(&oldest.windows);
    }

    /// Lets go the proof of those windows that are of no deed any more.
    fn let_go(&mut self, windows: &[(GrantId, AgentName)]) {
        let kept: BTreeSet<GrantId> = self
            .deeds
            .iter()
            .flat_map(|deed| deed.windows.iter().map(|(grant, _)| *grant))
            .collect();
        for (grant, agent) in windows {
            if !kept.contains(grant) {
                self.proofs.remove(grant);
                self.pass_over(*grant, agent);
            }
        }
    }

    fn pass_over(&mut self, grant: GrantId, agent: &AgentName) {
        if let Some(grants) = self.of_agent.get_mut(agent) {
            grants.remove(&grant);
            if grants.is_empty() {
                self.of_agent.remove(agent);
            }
        }
    }

    /// The daemon has answered what was asked for, and named the windows that it ended where it names them: the deed is of those from here on,
    /// whichever were known to be open when it was asked for. `before` are the records that are here. Gives whether that was one of these deeds.
    pub(crate) fn answered<'a>(
        &mut self,
        (of, is_done, said): (&str, bool, &str),
        ended: Option<Vec<(GrantId, AgentName)>>,
        before: impl Iterator<Item = &'a Entry>,
    ) -> bool {
        // Of several like ones the first: they are answered in the order in which they were asked for.
        let mut deeds = self.deeds.iter_mut();
        let deed = deeds.find(|deed| deed.said == of && deed.outcome == Outcome::Asked);
        let Some(deed) = deed else { return false };
        deed.outcome = if is_done {
            Outcome::Done(said.to_owned())
        } else {
            Outcome::NotDone(said.to_owned())
        };
        if let Some(ended) = ended {
            let thought = std::mem::replace(&mut deed.windows, ended.clone());
            self.watch_all(&ended, before);
            self.let_go(&thought);
            self.keep_bounds();
        }
        true
    }

    /// What was just to be asked for was not: of several like deeds the last.
    pub(crate) fn not_asked(&mut self, of: &str, why: &str) {
        let mut deeds = self.deeds.iter_mut().rev();
        let deed = deeds.find(|deed| deed.said == of && deed.outcome == Outcome::Asked);
        if let Some(deed) = deed {
            deed.outcome = Outcome::NotDone(why.to_owned());
        }
    }

    /// Takes in a record that has just come; each comes once, in their order.
    pub(crate) fn take(&mut self, record: &Record) {
        let between = record.seq.saturating_sub(self.last_seq).saturating_sub(1);
        let is_after_gap = self.last_seq > 0 && between > 0;
        self.last_seq = self.last_seq.max(record.seq);
        if self.proofs.is_empty() {
            return;
        }
        if is_after_gap {
            let all = self.proofs.values_mut().filter(|proof| !proof.is_over);
            all.for_each(|proof| {
                proof.let_go = proof.let_go.saturating_add(between);
                // An answer that was cut may be among them.
                let closed = proof.closed.as_ref();
                proof.is_of_log &=
                    closed.is_some_and(|(at, _)| record.unix_ns.saturating_sub(*at) >= SETTLES_NS);
            });
        }
        let about = About::of(&record.event);
        if let Some(proof) = about.grant.and_then(|grant| self.proofs.get_mut(&grant)) {
            proof.take_own(record);
        }
        let Some(agent) = about.agent else { return };
        let others: Vec<GrantId> = self
            .of_agent
            .get(agent)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for grant in others {
            let Some(proof) = self.proofs.get_mut(&grant) else {
                continue;
            };
            if about.grant != Some(grant) {
                proof.take_other(record);
            }
            if proof.is_over {
                self.pass_over(grant, agent);
            }
        }
    }

    /// Takes in what the daemon's log has of these windows, in its order. What is known already is not counted again: nothing becomes less by it.
    pub(crate) fn complete<'a>(&mut self, found: impl Iterator<Item = &'a Entry>) {
        let mut fresh: BTreeMap<GrantId, Proof> = BTreeMap::new();
        for entry in found {
            let grant = entry
                .grant()
                .filter(|grant| self.proofs.contains_key(grant));
            if let Some(grant) = grant {
                fresh.entry(grant).or_default().take_own(&entry.record);
            }
        }
        for (grant, found) in fresh {
            if let Some(proof) = self.proofs.get_mut(&grant) {
                proof.is_of_log |= found.closed.is_some();
                proof.merge(found);
            }
        }
    }

    /// Takes in what the log has of a window's agent since the window was closed; before the first of it are so many records that were not looked at.
    pub(crate) fn refused_since(&mut self, grant: GrantId, since: &[Entry], unseen: u64) {
        let Some(proof) = self.proofs.get_mut(&grant) else {
            return;
        };
        let others = since.iter().filter(|entry| entry.grant() != Some(grant));
        others.for_each(|entry| proof.take_other(&entry.record));
        proof.let_go = proof.let_go.max(unseen);
    }

    /// The newest first.
    pub(crate) fn deeds(&self) -> impl Iterator<Item = &Ended> {
        self.deeds.iter().rev()
    }

    /// What shows that a window has ended.
    pub(crate) fn of(&self, grant: GrantId) -> Proof {
        self.proofs.get(&grant).cloned().unwrap_or_default()
    }

    /// The windows of which the daemon's log was not asked since it has their close: what came here may lack their last answer, or the close itself.
    pub(crate) fn unproven(&self) -> Vec<GrantId> {
        let unproven = self.proofs.iter().filter(|(_, proof)| !proof.is_of_log);
        unproven.map(|(grant, _)| *grant).collect()
    }
}

/// What shows that a window has ended. Times are unix time, nanoseconds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Proof {
    /// When it was closed, and why.
    pub(crate) closed: Option<(u64, String)>,
    /// When the last answer of it was through, or cut.
    pub(crate) last_byte: Option<u64>,
    /// How many answers were cut short.
    pub(crate) cut: u64,
    /// Jobs that were cancelled, or could not be.
    pub(crate) cancelled: Vec<String>,
    /// How many queries, connections and socket operations were refused to its agent since it closed, those that share a record counted each.
    pub(crate) refused: u64,
    /// When the last of them was.
    pub(crate) last_refused: Option<u64>,
    /// How many records were let go here since: more may be refused than is counted.
    pub(crate) let_go: u64,
    /// What the daemon's log has of it, its close included, was taken in.
    is_of_log: bool,
    /// The agent has got another window since: what is refused to it now says nothing of this one.
    is_over: bool,
}

impl Proof {
    /// In words, the first of which say whether the window's close is on record.
    pub(crate) fn lines(&self, grant: GrantId, agent: &AgentName) -> Vec<String> {
        let closed = match &self.closed {
            Some((at, why)) => format!("closed at {} UTC: {why}", clock_ms(*at)),
            None => "no record of its close has come yet".to_owned(),
        };
        let last_byte = match self.last_byte {
            Some(at) => format!(
                "  the last answer ended at {} UTC, {} were cut short",
                clock_ms(at),
                self.cut
            ),
            None => "  no answer of it is among the records here".to_owned(),
        };
        let jobs = self.cancelled.iter().map(|job| format!("  job {job}"));
        let refused = match self.last_refused {
            Some(at) => format!(
                "  refused since: {}, the last at {} UTC",
                self.refused,
                clock_ms(at)
            ),
            None => "  no refusal since is among the records here".to_owned(),
        };
        let let_go = (self.let_go > 0).then(|| {
            format!(
                "  {} records were let go here meanwhile (the log has them): more may be refused than is counted",
                self.let_go
            )
        });
        let first = format!("{grant} of {agent}: {closed}");
        let below = std::iter::once(last_byte)
            .chain(jobs)
            .chain([refused])
            .chain(let_go);
        std::iter::once(first).chain(below).collect()
    }

    fn take_own(&mut self, record: &Record) {
        if let Event::Closed { reason, .. } = &record.event {
            self.closed = Some((record.unix_ns, reason.to_string()));
            // What was let go before says nothing of what was refused from here on.
            self.let_go = 0;
        } else if let Event::QueryFinished { trouble, .. } = &record.event {
            self.last_byte = Some(record.unix_ns);
            let is_cut = trouble.as_deref().is_some_and(|why| why.starts_with("cut"));
            self.cut = self.cut.saturating_add(u64::from(is_cut));
        } else if let Event::JobCancelled { job, outcome, .. } = &record.event {
            self.name(format!("{job}: {outcome}"));
        } else {
            self.take_other(record);
        }
    }

    /// What was refused to the agent once the window was closed, until it has another.
    fn take_other(&mut self, record: &Record) {
        let refused = refused(&record.event);
        if refused > 0 && self.closed.is_some() && !self.is_over {
            self.refused = self.refused.saturating_add(refused);
            self.last_refused = Some(record.unix_ns);
        } else if let Event::Opened { .. } = &record.event
            && self.closed.is_some()
        {
            self.is_over = true;
        }
    }

    fn name(&mut self, job: String) {
        if self.cancelled.len() < JOBS_MAX && !self.cancelled.contains(&job) {
            self.cancelled.push(job);
        }
    }

    fn merge(&mut self, found: Self) {
        self.closed = self.closed.take().or(found.closed);
        self.last_byte = self.last_byte.max(found.last_byte);
        self.cut = self.cut.max(found.cut);
        found.cancelled.into_iter().for_each(|job| self.name(job));
        self.refused = self.refused.max(found.refused);
        self.last_refused = self.last_refused.max(found.last_refused);
        self.is_over |= found.is_over;
    }
}

/// How many queries, connections and socket operations a record is the refusal of: as the daemon's own stories count them. What is tried past the
/// proxy is refused by the kernel, and what is refused too often shares a record.
const fn refused(event: &Event) -> u64 {
    if let Event::QueryRefused { .. } = event {
        1
    } else if let Event::ConnectionRefused { count, .. }
    | Event::KernelRefused { count, .. }
    | Event::FurtherRefused { count, .. } = event
    {
        *count
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(seq: u64, event: &Value) -> Entry {
        let record = json!({"seq": seq, "boot_id": "b", "boot_ns": 1, "unix_ns": seq * 1000, "event": event, "prev": "x"});
        Entry::read(&record.to_string()).expect("a record")
    }

    fn closed(seq: u64, grant: u64) -> Entry {
        entry(
            seq,
            &json!({"kind": "closed", "grant": format!("g-{grant}"), "agent": "finance-bot", "reason": "revoked", "by": null, "queries": 1, "bytes": 1}),
        )
    }

    fn finished(seq: u64, grant: u64, trouble: Option<&str>) -> Entry {
        entry(
            seq,
            &json!({"kind": "query_finished", "query": format!("q-{seq}"), "grant": format!("g-{grant}"), "status": 200, "job": null,
            "destination": null, "bytes": 1, "body_bytes": 1, "duration_us": 1, "trouble": trouble}),
        )
    }

    fn begun(grants: std::ops::RangeInclusive<u64>) -> Proofs {
        let mut proofs = Proofs::default();
        let window = |grant: u64| {
            let grant = format!("g-{grant}").parse().expect("an id");
            (grant, "finance-bot".parse().expect("a name"))
        };
        proofs.begin(
            "close every window".to_owned(),
            grants.map(window).collect(),
            std::iter::empty(),
        );
        proofs
    }

    fn kernel_refused(seq: u64, agent: &str, count: u64) -> Entry {
        entry(
            seq,
            &json!({"kind": "kernel_refused", "agent": agent, "process": {"pid": 1, "start_boot_ns": 1, "uid": 1, "comm": "x"},
            "verdict": "udp", "destination": "192.0.2.1:443", "count": count}),
        )
    }

    #[test]
    fn every_kind_of_refusal_after_the_close_counts_and_those_that_share_a_record_each() {
        let process = json!({"pid": 1, "start_boot_ns": 1, "uid": 1, "comm": "x"});
        let refusal = json!({"code": "window.none", "what": "no window", "retry_after_s": null});
        let mut proofs = begun(5..=5);
        proofs.take(&kernel_refused(1, "finance-bot", 9).record);
        proofs.take(&closed(2, 5).record);
        let after = [
            kernel_refused(3, "finance-bot", 3),
            entry(
                4,
                &json!({"kind": "connection_refused", "agent": "finance-bot", "process": process, "refusal": refusal, "count": 2}),
            ),
            entry(
                5,
                &json!({"kind": "query_refused", "agent": "finance-bot", "grant": null, "session": "s-1", "process": process,
                "request": "POST /", "sql": null, "refusal": refusal}),
            ),
            entry(
                6,
                &json!({"kind": "further_refused", "by": "proxy", "agent": "finance-bot", "code": null, "count": 238}),
            ),
            kernel_refused(7, "another-bot", 1_000),
        ];
        after.iter().for_each(|entry| proofs.take(&entry.record));
        let proof = proofs.of("g-5".parse().expect("an id"));
        assert_eq!((proof.refused, proof.last_refused), (244, Some(6_000)));
    }

    #[test]
    fn that_there_is_no_refusal_is_said_of_the_records_that_came_and_a_gap_in_them_is_said() {
        let grant = "g-5".parse().expect("an id");
        let agent = "finance-bot".parse().expect("a name");
        let mut proofs = begun(5..=5);
        proofs.take(&closed(20, 5).record);
        let said = |proofs: &Proofs| proofs.of(grant).lines(grant, &agent).join("\n");
        let lines = said(&proofs);
        assert!(lines.contains("no refusal since is among the records here"));
        assert!(!lines.contains("let go"), "{lines}");
        proofs.take(&finished(31, 6, None).record);
        let lines = said(&proofs);
        assert!(
            lines.contains("10 records were let go here meanwhile"),
            "{lines}"
        );
    }

    #[test]
    fn a_deed_is_of_the_windows_that_the_daemon_says_it_ended() {
        let window = |grant: u64| {
            let grant: GrantId = format!("g-{grant}").parse().expect("an id");
            (grant, "finance-bot".parse::<AgentName>().expect("a name"))
        };
        let mut proofs = begun(1..=2);
        let closes = [closed(1, 2), closed(2, 3), closed(3, 4)];
        let answer = ("close every window", true, "3 windows have ended");
        let ended = vec![window(2), window(3), window(4)];
        assert!(proofs.answered(answer, Some(ended.clone()), closes.iter()));
        let deed = proofs.deeds().next().expect("one was done");
        assert_eq!(deed.windows, ended);
        // What came before the answer counts for those that nobody knew of.
        assert_eq!(proofs.of(window(2).0).closed, None);
        assert!(proofs.of(window(4).0).closed.is_some());
        assert_eq!(proofs.of(window(1).0), Proof::default());
    }

    #[test]
    fn of_like_deeds_each_answer_is_of_the_one_that_waits_longest() {
        let mut proofs = begun(1..=1);
        let window = (
            "g-2".parse().expect("an id"),
            "loader".parse().expect("a name"),
        );
        proofs.begin(
            "close every window".to_owned(),
            vec![window],
            std::iter::empty(),
        );
        let answer = ("close every window", true, "one window has ended");
        assert!(proofs.answered(answer, None, std::iter::empty()));
        let third = (
            "g-3".parse().expect("an id"),
            "loader".parse().expect("a name"),
        );
        proofs.begin(
            "close every window".to_owned(),
            vec![third],
            std::iter::empty(),
        );
        // What had no room to be asked for is the last of them, which is said at once.
        proofs.not_asked("close every window", "not asked");
        let outcomes: Vec<_> = proofs.deeds().map(|deed| deed.outcome.clone()).collect();
        let newest_first = [
            Outcome::NotDone("not asked".to_owned()),
            Outcome::Asked,
            Outcome::Done("one window has ended".to_owned()),
        ];
        assert_eq!(outcomes, newest_first);
        let second = ("close every window", true, "again");
        assert!(proofs.answered(second, None, std::iter::empty()));
        assert!(!proofs.answered(second, None, std::iter::empty()));
    }

    #[test]
    fn what_the_log_has_completes_it_and_nothing_is_counted_twice() {
        let mut proofs = begun(5..=5);
        let grant = "g-5".parse().expect("an id");
        proofs.take(&finished(20, 5, Some("cut: revoked")).record);
        let all = [
            finished(19, 5, Some("cut: revoked")),
            finished(20, 5, Some("cut: revoked")),
            closed(21, 5),
        ];
        proofs.complete(all.iter());
        proofs.complete(all.iter());
        let proof = proofs.of(grant);
        assert_eq!((proof.cut, proof.last_byte), (2, Some(20_000)));
        assert!(proof.closed.is_some() && proofs.unproven().is_empty());
        // Fewer records take nothing back.
        proofs.complete(all[..1].iter());
        assert_eq!(proofs.of(grant), proof);
    }

    #[test]
    fn each_of_a_thousand_windows_has_its_own_proof() {
        let mut proofs = begun(1..=1_000);
        let closes: Vec<Entry> = (1..=999).map(|grant| closed(grant, grant)).collect();
        proofs.complete(closes.iter());
        assert_eq!(proofs.unproven(), ["g-1000".parse().expect("an id")]);
    }

    #[test]
    fn the_log_is_asked_of_each_deed_for_what_came_before_it_and_again_where_some_of_it_did_not_come()
     {
        let grant: GrantId = "g-5".parse().expect("an id");
        let mut proofs = begun(5..=5);
        // That its close came says nothing of its last answer, which may have come long ago.
        proofs.take(&closed(9_000, 5).record);
        assert_eq!(
            (proofs.unproven(), proofs.of(grant).last_byte),
            (vec![grant], None)
        );
        proofs.complete([finished(40, 5, None), closed(9_000, 5)].iter());
        assert_eq!(
            (proofs.unproven(), proofs.of(grant).last_byte),
            (vec![], Some(40_000))
        );
        proofs.take(&finished(9_001, 6, None).record);
        assert_eq!(proofs.unproven(), []);
        proofs.take(&finished(9_009, 6, None).record);
        assert_eq!(proofs.unproven(), [grant]);
        // Long after its close none of its answers can be among what did not come.
        proofs.complete([closed(9_000, 5)].iter());
        proofs.take(&finished(90_000_000, 6, None).record);
        assert_eq!(proofs.unproven(), []);
    }

    #[test]
    fn what_the_log_has_of_an_agent_since_is_counted_and_what_was_not_looked_at_is_said() {
        let grant: GrantId = "g-5".parse().expect("an id");
        let mut proofs = begun(5..=5);
        proofs.complete([closed(2, 5)].iter());
        let since = [kernel_refused(9, "finance-bot", 3)];
        proofs.refused_since(grant, &since, 6);
        let proof = proofs.of(grant);
        assert_eq!((proof.refused, proof.let_go), (3, 6));
    }

    #[test]
    fn the_oldest_deeds_are_let_go_and_counted() {
        let mut proofs = begun(1..=1);
        for nth in 2..200_u64 {
            let window = (
                format!("g-{nth}").parse().expect("an id"),
                "finance-bot".parse().expect("a name"),
            );
            proofs.begin(format!("revoke g-{nth}"), vec![window], std::iter::empty());
        }
        assert_eq!((proofs.deeds().count(), proofs.forgotten), (DEEDS_MAX, 135));
        assert_eq!(proofs.unproven().len(), DEEDS_MAX);
    }
}
