//! A first look at a record's line: whether it can be wanted at all. Most lines are not, and need not be read as JSON for that.

use enforcer_proto::search::Filter;
use memchr::memmem::Finder;

/// Texts of which a wanted line must have one of each group.
#[derive(Debug)]
pub struct Needles {
    groups: Vec<Vec<Finder<'static>>>,
    /// What a line may have instead: a search for an agent must see whose each window is.
    or_else: Option<Finder<'static>>,
}

impl Needles {
    /// What the lines that `filter` wants have in common.
    #[must_use]
    pub fn of(filter: &Filter) -> Self {
        let mut groups: Vec<Vec<String>> = Vec::new();
        if let Some(agent) = &filter.agent {
            // Some records name only the window of an agent's.
            groups.push(vec![
                format!("\"agent\":\"{agent}\""),
                "\"grant\":\"g-".to_owned(),
            ]);
        }
        // Some ids stand at the end of a text, such as that of a refused decision.
        groups.extend(filter.grant.map(|id| vec![format!("{id}\"")]));
        groups.extend(filter.request.map(|id| vec![format!("{id}\"")]));
        groups.extend(filter.query.map(|id| vec![format!("{id}\"")]));
        groups.extend(filter.session.map(|id| vec![format!("{id}\"")]));
        groups.extend(filter.code.map(|code| vec![format!("\"{code}\"")]));
        let kind = filter.kind.as_ref();
        groups.extend(kind.map(|kind| vec![format!("\"kind\":\"{kind}\"")]));
        let dataset = filter.dataset.as_ref();
        groups.extend(dataset.map(|dataset| vec![dataset.dataset().to_owned()]));
        if let Some(table) = &filter.table {
            let whole = table.table().split(['$', '@']).next().unwrap_or_default();
            groups.push(vec![whole.to_owned()]);
        }
        let finders = |group: Vec<String>| {
            let finder = |text: String| Finder::new(text.as_bytes()).into_owned();
            group.into_iter().map(finder).collect()
        };
        let or_else = filter
            .agent
            .as_ref()
            .map(|_| Finder::new(b"\"kind\":\"approved\""));
        Self {
            groups: groups.into_iter().map(finders).collect(),
            or_else,
        }
    }

    /// Whether `line` may be wanted. One that is not cannot be.
    #[must_use]
    pub fn may_be_in(&self, line: &[u8]) -> bool {
        let has_one = |group: &Vec<Finder<'_>>| group.iter().any(|text| text.find(line).is_some());
        let is_other = |text: &Finder<'_>| text.find(line).is_some();
        self.groups.iter().all(has_one) || self.or_else.as_ref().is_some_and(is_other)
    }
}
