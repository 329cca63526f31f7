//! What is filled in: a reason, or how much of what was asked for is granted.

use enforcer_proto::scope::Scope;
use enforcer_proto::time::Ttl;
use enforcer_proto::wire::RequestView;

use super::key::Edit;
use super::popup::{Approval, Deed};

/// The longest text of a field, characters.
pub(crate) const FIELD_CHARS_MAX: usize = 2_000;

/// A line of text that is being typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) text: String,
}

impl Field {
    pub(crate) fn of(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// Adds a character, as long as there is room. Line ends and other control characters become blanks: a paste presses no key.
    fn push(&mut self, c: char) {
        if self.text.chars().count() < FIELD_CHARS_MAX {
            self.text.push(if c.is_control() { ' ' } else { c });
        }
    }

    pub(crate) fn paste(&mut self, text: &str) {
        text.chars()
            .take(FIELD_CHARS_MAX)
            .for_each(|c| self.push(c));
    }

    pub(crate) fn edit(&mut self, edit: Edit) {
        match edit {
            Edit::Put(c) => self.push(c),
            Edit::Erase => drop(self.text.pop()),
            Edit::Clear => self.text.clear(),
        }
    }
}

/// For what reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// What the reason is for.
    pub(crate) title: String,
    /// What is to be done, without its reason.
    pub(crate) deed: Deed,
    pub(crate) field: Field,
}

impl Reason {
    /// What is to be done, with its reason; `None` while there is none.
    pub(crate) fn filled(&self) -> Option<Deed> {
        let given = self.field.text.trim();
        if given.is_empty() {
            return None;
        }
        let mut deed = self.deed.clone();
        match &mut deed {
            Deed::Deny { reason, .. } | Deed::Lock { reason, .. } => given.clone_into(reason),
            Deed::Approve(_) | Deed::Revoke(_) | Deed::Unlock { .. } | Deed::CloseAll => {}
        }
        Some(deed)
    }
}

/// How much of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    /// What was asked for, as it was shown.
    pub(crate) request: RequestView,
    /// For how long, which scope, how many bytes and queries.
    pub(crate) fields: [Field; 4],
    /// Which of them is being typed.
    pub(crate) at: usize,
    /// What is wrong with them.
    pub(crate) wrong: Option<String>,
}

impl Terms {
    /// What each field is for.
    pub(crate) const NAMES: [&'static str; 4] = ["for", "scope", "bytes", "queries"];

    pub(crate) fn of(request: &RequestView) -> Self {
        Self {
            fields: [
                Field::of(request.ttl.to_string()),
                Field::of(request.scope.to_string()),
                Field::of(request.budget.bytes_max.to_string()),
                Field::of(request.budget.queries_max.to_string()),
            ],
            request: request.clone(),
            at: 0,
            wrong: None,
        }
    }

    /// What is to be agreed to.
    ///
    /// # Errors
    /// What is wrong with a field, in a sentence. That it is not more than was asked for is the daemon's to say too.
    pub(crate) fn filled(&self) -> Result<Deed, String> {
        let [ttl, scope, bytes, queries] = &self.fields;
        let ttl: Ttl = ttl
            .text
            .trim()
            .parse()
            .map_err(|why| format!("for: {why}"))?;
        let scope: Scope = scope
            .text
            .trim()
            .parse()
            .map_err(|why| format!("scope: {why}"))?;
        let number = |name: &str, field: &Field| {
            let text = field.text.trim();
            text.parse::<u64>()
                .map_err(|_| format!("{name}: `{text}` is no number"))
        };
        let (bytes, queries) = (number("bytes", bytes)?, number("queries", queries)?);
        let offered = &self.request;
        if ttl > offered.ttl {
            return Err(format!(
                "for: {ttl} is longer than the {} on offer",
                offered.ttl
            ));
        }
        if bytes > offered.budget.bytes_max || queries > offered.budget.queries_max {
            return Err("bytes and queries: more than is on offer".to_owned());
        }
        Ok(Deed::Approve(Approval {
            request: offered.request,
            seen: offered.digest.clone(),
            ttl: (ttl != offered.ttl).then_some(ttl),
            scope: (scope != offered.scope).then_some(scope),
            bytes_max: (bytes != offered.budget.bytes_max).then_some(bytes),
            queries_max: (queries != offered.budget.queries_max).then_some(queries),
        }))
    }
}
