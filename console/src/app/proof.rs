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
}

impl Proofs {
    /// A deed is asked for, `before` being the records that are here.
    pub(crate) fn begin<'a>(
        &mut self,
        said: String,
        windows: Vec<(GrantId, AgentName)>,
        before: impl Iterator<Item = &'a Entry>,
    ) {
        let mut fresh = Self::default();
        for (grant, agent) in &windows {
            if !self.proofs.contains_key(grant) {
                fresh.watch(*grant, agent);
            }
        }
        if !fresh.proofs.is_empty() {
            before.for_each(|entry| fresh.take(&entry.record));
        }
        self.proofs.append(&mut fresh.proofs);
        for (agent, mut grants) in fresh.of_agent {
            self.of_agent.entry(agent).or_default().append(&mut grants);
        }
        self.deeds.push(Ended {
            said,
            outcome: Outcome::Asked,
            windows,
        });
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
        let kept: BTreeSet<GrantId> = self
            .deeds
            .iter()
            .flat_map(|deed| deed.windows.iter().map(|(grant, _)| *grant))
            .collect();
        for (grant, agent) in &oldest.windows {
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

    /// The daemon has answered what was asked for. Gives whether that was one of these deeds.
    pub(crate) fn answered(&mut self, of: &str, is_done: bool, said: &str) -> bool {
        let mut deeds = self.deeds.iter_mut().rev();
        let deed = deeds.find(|deed| deed.said == of && deed.outcome == Outcome::Asked);
        let Some(deed) = deed else { return false };
        deed.outcome = if is_done {
            Outcome::Done(said.to_owned())
        } else {
            Outcome::NotDone(said.to_owned())
        };
        true
    }

    /// Takes in a record that has just come; each comes once, in their order.
    pub(crate) fn take(&mut self, record: &Record) {
        if self.proofs.is_empty() {
            return;
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

    /// Takes in what the daemon's log has of these windows. What is known already is not counted again: nothing becomes less by it.
    pub(crate) fn complete(&mut self, found: &[Entry]) {
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
                proof.merge(found);
            }
        }
    }

    /// The newest first.
    pub(crate) fn deeds(&self) -> impl Iterator<Item = &Ended> {
        self.deeds.iter().rev()
    }

    /// What shows that a window has ended.
    pub(crate) fn of(&self, grant: GrantId) -> Proof {
        self.proofs.get(&grant).cloned().unwrap_or_default()
    }

    /// The windows whose close is not on record here.
    pub(crate) fn unproven(&self) -> Vec<GrantId> {
        let open = self
            .proofs
            .iter()
            .filter(|(_, proof)| proof.closed.is_none());
        open.map(|(grant, _)| *grant).collect()
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
    /// How many requests were refused since it closed.
    pub(crate) refused: u64,
    /// When the last of them was.
    pub(crate) last_refused: Option<u64>,
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
            None => "  nothing was asked since".to_owned(),
        };
        let first = format!("{grant} of {agent}: {closed}");
        let below = std::iter::once(last_byte).chain(jobs).chain([refused]);
        std::iter::once(first).chain(below).collect()
    }

    fn take_own(&mut self, record: &Record) {
        if let Event::Closed { reason, .. } = &record.event {
            self.closed = Some((record.unix_ns, reason.to_string()));
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
        if let Event::QueryRefused { .. } = &record.event
            && self.closed.is_some()
            && !self.is_over
        {
            self.refused = self.refused.saturating_add(1);
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
        proofs.complete(&all);
        proofs.complete(&all);
        let proof = proofs.of(grant);
        assert_eq!((proof.cut, proof.last_byte), (2, Some(20_000)));
        assert!(proof.closed.is_some() && proofs.unproven().is_empty());
        // Fewer records take nothing back.
        proofs.complete(&all[..1]);
        assert_eq!(proofs.of(grant), proof);
    }

    #[test]
    fn each_of_a_thousand_windows_has_its_own_proof() {
        let mut proofs = begun(1..=1_000);
        for grant in 1..=999 {
            proofs.take(&closed(grant, grant).record);
        }
        assert_eq!(proofs.unproven(), ["g-1000".parse().expect("an id")]);
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
