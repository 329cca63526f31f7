//! What a runtime is asked: which containers run, or, where that is more than is read, which of those that agents are known by. Labels are whatever an
//! image's author wrote, so a single image can make the whole list too long, and may not keep agents from being found that it has nothing to do with.

use std::collections::{BTreeSet, VecDeque};

use serde_json::json;

use crate::config::{Agent, Workload};

/// What a container's state is while it has processes, as the API spells it.
pub(super) const STATES: [&str; 2] = ["running", "paused"];
/// The most questions that one runtime is asked at a time, after the first.
pub(super) const QUESTIONS_MAX: usize = 32;
/// The most names in one question.
const NAMES_MAX: usize = 256;

/// The names and labels that agents' containers are known by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub(super) names: BTreeSet<String>,
    pub(super) labels: BTreeSet<String>,
}

impl Wanted {
    /// Those of these agents.
    #[must_use]
    pub fn of(agents: &[Agent]) -> Self {
        let mut wanted = Self::default();
        for agent in agents {
            match &agent.workload {
                Workload::ContainerName(name) => {
                    wanted.names.insert(name.clone());
                }
                Workload::ContainerLabel(label) => {
                    wanted.labels.insert(label.clone());
                }
                Workload::Cgroup(_)
                | Workload::CgroupLike(_)
                | Workload::Unit(_)
                | Workload::UnitLike(_)
                | Workload::User(_)
                | Workload::Container(_)
                | Workload::Pod(_) => {}
            }
        }
        wanted
    }

    /// The questions after these, as few as there can be: names in one are alternatives, labels in one would all have to be there.
    pub(super) fn questions(&self) -> VecDeque<Question> {
        let names: Vec<String> = self.names.iter().cloned().collect();
        let named = names.chunks(NAMES_MAX);
        let named = named.map(|names| Question::Named(names.to_vec()));
        let labelled = self.labels.iter().cloned().map(Question::Labelled);
        named.chain(labelled).collect()
    }
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// After all that run.
    All,
    /// After those of them that are called so.
    Named(Vec<String>),
    /// After those that have this label and value.
    Labelled(String),
}

impl Question {
    /// The path and query that ask it. A runtime takes a name for an expression that matches a part: it is held to the whole, and what it answers is
    /// compared again.
    pub(super) fn path(&self) -> String {
        let filters = match self {
            Self::All => json!({"status": STATES}),
            Self::Named(names) => {
                // Of what a name may hold the dot alone means something else there.
                let whole = names.iter().map(|name| name.replace('.', r"\."));
                let whole: Vec<String> = whole.map(|name| format!("^/?{name}$")).collect();
                json!({"status": STATES, "name": whole})
            }
            Self::Labelled(label) => json!({"status": STATES, "label": [label]}),
        };
        format!("/containers/json?filters={}", escaped(&filters.to_string()))
    }

    /// The same in two questions; none where it is after one name or label alone.
    pub(super) fn halves(&self) -> Option<[Self; 2]> {
        match self {
            Self::Named(names) if names.len() > 1 => {
                let (one, other) = names.split_at(names.len() / 2);
                Some([one, other].map(|names| Self::Named(names.to_vec())))
            }
            Self::All | Self::Named(_) | Self::Labelled(_) => None,
        }
    }

    /// The workloads that it is after.
    pub(super) fn workloads(&self) -> Vec<Workload> {
        match self {
            Self::All => Vec::new(),
            Self::Named(names) => {
                let names = names.iter().cloned();
                names.map(Workload::ContainerName).collect()
            }
            Self::Labelled(label) => vec![Workload::ContainerLabel(label.clone())],
        }
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_as_a_whole_and_a_label_as_it_is() {
        assert_eq!(
            Question::All.path(),
            "/containers/json?filters=%7B%22status%22%3A%5B%22running%22%2C%22paused%22%5D%7D"
        );
        let named = Question::Named(vec!["a.b-1".to_owned(), "c".to_owned()]).path();
        // {"name":["^/?a\\.b-1$","^/?c$"],…
        let names = "%22name%22%3A%5B%22%5E%2F%3Fa%5C%5C.b-1%24%22%2C%22%5E%2F%3Fc%24%22%5D";
        assert!(named.contains(names) && named.contains("paused"), "{named}");
        let labelled = Question::Labelled("role=bot \"1\"&é".to_owned()).path();
        let label = "%22label%22%3A%5B%22role%3Dbot%20%5C%221%5C%22%26%C3%A9%22%5D";
        assert!(labelled.contains(label), "{labelled}");
    }

    #[test]
    fn names_are_asked_for_at_once_and_each_label_by_itself() {
        let text = |number: usize| format!("n{number}");
        let wanted = Wanted {
            names: (0..NAMES_MAX + 2).map(text).collect(),
            labels: ["a=1", "b=2"].map(str::to_owned).into(),
        };
        let questions = wanted.questions();
        assert_eq!(questions.len(), 4);
        let all: Vec<Workload> = questions.iter().flat_map(Question::workloads).collect();
        assert_eq!(all.len(), NAMES_MAX + 4);
        let halves = questions[1].halves().expect("two names");
        assert_eq!(halves.each_ref().map(Question::halves), [None, None]);
        assert_eq!(
            halves
                .iter()
                .flat_map(Question::workloads)
                .collect::<Vec<_>>(),
            questions[1].workloads()
        );
        assert_eq!(Wanted::default().questions().len(), 0);
    }
}
