//! Which container is an agent's, by what runtimes say, where the configuration knows it by name or label. Asks nobody and looks at nothing: answers in,
//! ids of containers out. In doubt it is none, and what may be it is closed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use enforcer_proto::principal::AgentName;

use crate::config::Workload;
use crate::runtimes::{ANSWER_BYTES_MAX, Answer, CONTAINERS_MAX, Container};

/// What an agent's container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meant {
    /// What it is, or may be.
    pub(super) containers: Vec<Seen>,
    /// Why it is none of these, if so.
    pub(super) doubt: Option<String>,
    /// Whether every runtime was asked.
    pub(super) is_whole: bool,
}

/// A container that a runtime told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: String,
    /// Where that was told.
    pub(super) socket: PathBuf,
    /// Whether its runtime was asked since and did not answer: it is then the container that it was, and no new one with its id.
    pub(super) is_remembered: bool,
}

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Of every agent that is found by what runtimes tell.
    meant: BTreeMap<AgentName, Meant>,
    /// The containers that run, by their ids, and at which socket that was told. Those of one that does not answer are what they were: whose cgroup is there
    /// still is told by its id.
    containers: BTreeMap<String, (PathBuf, Container)>,
    /// What is wrong with runtimes: one sentence each.
    problems: Vec<String>,
}

/// How many agents one sentence names.
const AGENTS_NAMED_MAX: usize = 16;

/// Where no runtime was asked yet.
static NOT_ASKED: Meant = Meant {
    containers: Vec::new(),
    doubt: None,
    is_whole: false,
};

impl Told {
    /// What is known once these answers came.
    pub(super) fn after<'a>(
        &self,
        answers: &[Answer],
        agents: impl Iterator<Item = (&'a AgentName, &'a Workload)>,
    ) -> Self {
        let agents: Vec<_> = agents.filter(|(_, workload)| workload.is_told()).collect();
        let meant = agents.iter().copied().map(|(agent, workload)| {
            let before = self.meant.get(agent).unwrap_or(&NOT_ASKED);
            (agent.clone(), meant(before, answers, workload))
        });
        let containers = answers.iter().flat_map(|answer| self.running(answer));
        let problems = answers.iter().filter_map(|answer| problem(answer, &agents));
        Self {
            meant: meant.collect(),
            containers: containers.collect(),
            problems: problems.collect(),
        }
    }

    /// What runs by this answer, or ran when there was one.
    fn running(&self, answer: &Answer) -> Vec<(String, (PathBuf, Container))> {
        let socket = &answer.socket;
        let is_untold = |container: &Container| {
            let mut unheard = answer.unheard.iter();
            answer.said.is_err() || unheard.any(|workload| means(workload, container))
        };
        let known = self.containers.iter();
        let known = known.filter(|(_, (of, container))| of == socket && is_untold(container));
        let known = known.map(|(id, known)| (id.clone(), known.clone()));
        let running = answer.said.iter().flatten();
        let running = running.map(|found| (found.id.clone(), (socket.clone(), found.clone())));
        known.chain(running).collect()
    }

    /// Whether each agent's container is what it is by the other.
    pub(super) fn means_the_same(&self, other: &Self) -> bool {
        self.meant == other.meant
    }

    pub(super) fn of(&self, agent: &AgentName) -> &Meant {
        self.meant.get(agent).unwrap_or(&NOT_ASKED)
    }

    pub(super) fn container(&self, id: &str) -> Option<&Container> {
        self.containers.get(id).map(|(_, container)| container)
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }
}

/// What is wrong with an answer, if anything is.
fn problem(answer: &Answer, agents: &[(&AgentName, &Workload)]) -> Option<String> {
    let socket = answer.socket.display();
    if let Err(why) = &answer.said {
        return Some(format!(
            "which containers run is not known at {socket}: {why}"
        ));
    }
    let concerned = agents.iter();
    let mut concerned = concerned.filter(|(_, workload)| answer.unheard.contains(workload));
    let shown: Vec<&str> = concerned
        .by_ref()
        .take(AGENTS_NAMED_MAX)
        .map(|(agent, _)| agent.as_str())
        .collect();
    let more = match concerned.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!shown.is_empty()).then(|| {
        format!(
            "which containers run is not wholly known at {socket}, so no new container becomes one of these agents: {}{more}; it answered more than {ANSWER_BYTES_MAX} bytes or {CONTAINERS_MAX} containers, also where it was asked for what these are known by alone, or there is more to ask for than it is asked: run images with fewer or shorter labels there, or give containers names and labels of their own",
            shown.join(", ")
        )
    })
}

/// Whether a workload means this container; of one that runtimes are not asked for, none is.
fn means(workload: &Workload, container: &Container) -> bool {
    match workload {
        Workload::ContainerName(name) => container.names.contains(name),
        Workload::ContainerLabel(label) => label.split_once('=').is_some_and(|(key, value)| {
            container.labels.get(key).is_some_and(|held| held == value)
        }),
        Workload::Cgroup(_)
        | Workload::CgroupLike(_)
        | Workload::Unit(_)
        | Workload::UnitLike(_)
        | Workload::User(_)
        | Workload::Container(_)
        | Workload::Pod(_) => false,
    }
}

/// What is meant now. What a runtime said last is held against a second container while it does not answer, and lets no new one in.
fn meant(before: &Meant, answers: &[Answer], workload: &Workload) -> Meant {
    let mut found: BTreeMap<String, Seen> = BTreeMap::new();
    let mut unheard: Option<&PathBuf> = None;
    for answer in answers {
        let socket = &answer.socket;
        match answer.of(workload) {
            Some(running) => {
                for container in running
                    .iter()
                    .filter(|container| means(workload, container))
                {
                    let seen = Seen {
                        id: container.id.clone(),
                        socket: socket.clone(),
                        is_remembered: false,
                    };
                    // The same one by two sockets is one.
                    found.insert(container.id.clone(), seen);
                }
            }
            None => {
                unheard.get_or_insert(socket);
                let known = before
                    .containers
                    .iter()
                    .filter(|seen| seen.socket == *socket);
                for seen in known {
                    let seen = Seen {
                        is_remembered: true,
                        ..seen.clone()
                    };
                    found.entry(seen.id.clone()).or_insert(seen);
                }
            }
        }
    }
    let containers: Vec<Seen> = found.into_values().collect();
    let doubt = match (containers.as_slice(), unheard) {
        ([one, other, ..], _) => Some(format!(
            "both container {} and container {} are called so: give one of them another name or label, or stop it",
            short(&one.id),
            short(&other.id)
        )),
        ([one], Some(_)) if before.is(&one.id) => None,
        ([_] | [], Some(socket)) => Some(format!(
            "whether its container runs, and is the only one that is called so, is not known while {} does not say which run",
            socket.display()
        )),
        ([_] | [], None) => None,
    };
    Meant {
        containers,
        doubt,
        is_whole: unheard.is_none(),
    }
}

impl Meant {
    /// Whether this container was the one, beyond doubt.
    fn is(&self, id: &str) -> bool {
        match (self.containers.as_slice(), &self.doubt) {
            ([one], None) => one.id == id,
            ([] | [_, ..], _) => false,
        }
    }
}

pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn bot() -> AgentName {
        "bot".parse().expect("a name")
    }

    fn container(digit: char, name: &str, role: &str) -> Container {
        Container {
            id: String::from(digit).repeat(64),
            names: vec![name.to_owned()],
            labels: [("role".to_owned(), role.to_owned())].into(),
            image: None,
        }
    }

    fn says(socket: &str, containers: &[&Container]) -> Answer {
        Answer {
            socket: socket.into(),
            said: Ok(containers.iter().copied().cloned().collect()),
            unheard: BTreeSet::new(),
        }
    }

    fn silent(socket: &str) -> Answer {
        Answer {
            socket: socket.into(),
            said: Err("it did not answer".to_owned()),
            unheard: BTreeSet::new(),
        }
    }

    /// What is meant after some rounds of answers: the digits of the ids, and why none is it.
    fn after(workload: &Workload, rounds: &[&[Answer]]) -> (String, Option<String>) {
        let name = bot();
        let mut told = Told::default();
        for answers in rounds {
            told = told.after(answers, std::iter::once((&name, workload)));
        }
        let meant = told.of(&name).clone();
        let ids = meant
            .containers
            .iter()
            .filter_map(|seen| seen.id.chars().next());
        (ids.collect(), meant.doubt)
    }

    #[test]
    fn what_a_runtime_that_does_not_answer_told_of_its_containers_is_known_until_it_tells_more() {
        let (one, other) = (container('a', "one", ""), container('b', "other", ""));
        let known = |rounds: &[&[Answer]]| {
            let told = rounds.iter().fold(Told::default(), |told, answers| {
                told.after(answers, std::iter::empty())
            });
            [&one, &other].map(|container| told.container(&container.id) == Some(container))
        };
        let both = [says("/p", &[&one]), says("/d", &[&other])];
        assert_eq!(known(&[&both]), [true, true]);
        let of_one = [silent("/p"), says("/d", &[])];
        assert_eq!(known(&[&both, &of_one, &of_one]), [true, false]);
        let none = [says("/p", &[]), silent("/d")];
        assert_eq!(known(&[&both, &of_one, &none]), [false, false]);
    }

    #[test]
    fn a_runtime_that_says_too_much_of_one_agents_container_is_silent_about_that_one_alone() {
        let [name, label] = [
            Workload::ContainerName("one".to_owned()),
            Workload::ContainerLabel("role=bot".to_owned()),
        ];
        let (one, other) = (container('a', "one", ""), container('b', "other", "bot"));
        let whole = [says("/p", &[&one, &other])];
        let mut part = [says("/p", &[&other])];
        part[0].unheard.insert(name.clone());
        let why = "whether its container runs, and is the only one that is called so, is not known while /p does not say which run";
        assert_eq!(
            after(&name, &[&part]),
            (String::new(), Some(why.to_owned()))
        );
        assert_eq!(after(&name, &[&whole, &part]), ("a".to_owned(), None));
        assert_eq!(after(&label, &[&part]), ("b".to_owned(), None));
        let agents = ["bot", "ops"].map(|name| name.parse().expect("a name"));
        let agents = || agents.iter().zip([&name, &label]);
        let told = Told::default().after(&whole, agents());
        assert_eq!(told.problems(), Vec::<String>::new());
        let told = told.after(&part, agents());
        assert_eq!(told.container(&one.id), Some(&one), "as it was");
        let said = told.problems().join("; ");
        assert!(
            said.contains("not wholly known at /p, so no new container becomes one of these agents: bot; it answered more than 1048576 bytes or 1024"),
            "{said}"
        );
    }

    #[test]
    fn a_container_is_the_agents_by_its_name_or_by_a_label_and_its_value() {
        let running = [
            container('a', "agentbox", "bot"),
            container('b', "other", "web"),
        ];
        for workload in [
            Workload::ContainerName("agentbox".to_owned()),
            Workload::ContainerLabel("role=bot".to_owned()),
        ] {
            let answers = [says("/p", &running.each_ref()), says("/d", &[])];
            assert_eq!(after(&workload, &[&answers]), ("a".to_owned(), None));
        }
        for nobody in ["role=bo", "role=", "rol=bot"] {
            let workload = Workload::ContainerLabel(nobody.to_owned());
            let answers = [says("/p", &running.each_ref())];
            assert_eq!(after(&workload, &[&answers]), (String::new(), None));
        }
    }

    #[test]
    fn a_container_started_anew_under_its_name_is_the_same_agent_and_one_with_its_id_alone_is_not()
    {
        let workload = Workload::ContainerName("agentbox".to_owned());
        let first = [says("/p", &[&container('a', "agentbox", "bot")])];
        let again = [says("/p", &[&container('b', "agentbox", "bot")])];
        assert_eq!(after(&workload, &[&first, &again]), ("b".to_owned(), None));
        let reused = [says("/p", &[&container('a', "other", "bot")])];
        assert_eq!(after(&workload, &[&first, &reused]), (String::new(), None));
    }

    #[test]
    fn of_two_that_are_called_so_neither_is_the_agents_in_one_runtime_or_in_two() {
        let workload = Workload::ContainerLabel("role=bot".to_owned());
        let [a, b] = [container('a', "x", "bot"), container('b', "y", "bot")];
        let one = says("/p", &[&a]);
        for answers in [
            vec![says("/p", &[&a, &b])],
            vec![one.clone(), says("/d", &[&b])],
        ] {
            let (ids, doubt) = after(&workload, &[&answers]);
            assert_eq!(ids, "ab");
            let doubt = doubt.expect("a doubt");
            assert!(doubt.contains("aaaaaaaaaaaa and container bbbbbbbbbbbb are called so"));
        }
        // The same one by two sockets is one, and it is it again once the other has gone.
        let twice = [one.clone(), says("/d", &[&a])];
        assert_eq!(after(&workload, &[&twice]), ("a".to_owned(), None));
        let both = [one.clone(), says("/d", &[&b])];
        let gone = [one, says("/d", &[])];
        assert_eq!(after(&workload, &[&both, &gone]), ("a".to_owned(), None));
    }

    #[test]
    fn while_a_runtime_does_not_answer_the_container_that_is_known_stays_and_no_new_one_is_taken() {
        let workload = Workload::ContainerName("agentbox".to_owned());
        let [a, b] = [
            container('a', "agentbox", "bot"),
            container('b', "agentbox", "bot"),
        ];
        let running = [says("/p", &[&a]), says("/d", &[])];
        let down = [silent("/p"), silent("/d")];
        assert_eq!(
            after(&workload, &[&running, &down, &down]),
            ("a".to_owned(), None)
        );
        // Nor where the other runtime alone is down: it is known to be the only one of its name that there was.
        let other_down = [says("/p", &[&a]), silent("/d")];
        assert_eq!(
            after(&workload, &[&running, &other_down]),
            ("a".to_owned(), None)
        );
        // A new one is none, whichever says so, and what was known is not forgotten for it.
        for (rounds, ids) in [
            (vec![&down[..]], ""),
            (vec![&other_down[..]], "a"),
            (vec![&down[..], &other_down[..]], "a"),
        ] {
            let (seen, doubt) = after(&workload, &rounds);
            assert_eq!(seen, ids);
            assert!(doubt.expect("a doubt").contains("is not known while"));
        }
        let new_elsewhere = [silent("/p"), says("/d", &[&b])];
        let (ids, doubt) = after(&workload, &[&running, &new_elsewhere]);
        assert_eq!(ids, "ab");
        assert!(doubt.expect("a doubt").contains("are called so"));
        let new_here = [says("/p", &[&b]), silent("/d")];
        let (ids, doubt) = after(&workload, &[&running, &new_here]);
        assert_eq!(ids, "b");
        assert!(doubt.expect("a doubt").contains("is not known while"));
    }

    #[test]
    fn a_runtime_that_is_silent_is_named_in_one_sentence() {
        let told = Told::default().after(&[silent("/p"), says("/d", &[])], std::iter::empty());
        assert_eq!(told.problems().len(), 1);
        let said = &told.problems()[0];
        assert_eq!(
            said,
            "which containers run is not known at /p: it did not answer"
        );
    }
}
