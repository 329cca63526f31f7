//! What a question showed of a request, and whether that is still so. Pure. What is no part of the digest changes as well: who has agreed, who must.

use enforcer_proto::wire::RequestView;

use super::Model;

/// A request as a question showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    request: RequestView,
    /// What its rule said.
    rule: Option<String>,
}

impl Asked {
    /// As it is shown now.
    pub(super) fn of(model: &Model, request: &RequestView) -> Self {
        Self {
            request: request.clone(),
            rule: rule_said(model, request.rule),
        }
    }

    /// Why it is no more what was shown, where that is so.
    pub(super) fn changed(&self, model: &Model, now: &RequestView) -> Option<String> {
        let shown = &self.request;
        let id = shown.request;
        if (&shown.agreed, &shown.wanting) != (&now.agreed, &now.wanting) {
            let wanting = now
                .wanting
                .as_deref()
                .unwrap_or("nobody can agree any more");
            return Some(format!(
                "who has agreed to {id} has changed since this was shown, or who must; now: {wanting}; esc, and look at it again"
            ));
        }
        // What moves with time alone is no change, nor is how often its agent tries again: it could keep anybody from answering.
        let then = RequestView {
            expires_in_ns: now.expires_in_ns,
            held_in_day_s: now.held_in_day_s,
            queries: now.queries,
            ..shown.clone()
        };
        let is_same = then == *now && self.rule == rule_said(model, now.rule);
        (!is_same)
            .then(|| format!("{id} has changed since this was shown: esc, and look at it again"))
    }
}

/// What a policy rule says, where that is told.
fn rule_said(model: &Model, number: u32) -> Option<String> {
    let rules = &model.status()?.rules;
    let rule = rules.iter().find(|rule| rule.rule == number)?;
    Some(rule.said.clone())
}
