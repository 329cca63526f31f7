//! What is asked of the daemon: which question comes up, what is filled in, and which key says yes. Nothing is asked for but by a popup that holds it.

use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use enforcer_proto::size;
use enforcer_proto::wire::{GrantView, LockView};

use super::asked::Asked;
use super::form::{Field, Reason, Terms};
use super::key::{Cmd, Key, pressed};
use super::popup::{
    Approval, CLOSE_ALL_WORD, Confirm, Deed, Popup, UNLOCK_WORD, clock, grant_lines, request_lines,
};
use super::reading::{Reading, Shown, scroll, scrolled};
use super::rows::Row;
use super::standing::{Standing, WORD_MS_MIN};
use super::{Effect, Model};

impl Model {
    pub(super) fn decide(&mut self, cmd: Cmd) {
        if let Some(why) = self.hindered() {
            self.notice(why, true);
            return;
        }
        let Some(Row::Request(id)) = self.chosen() else {
            self.notice(self.nothing(), true);
            return;
        };
        let Some(request) = self.waiting().find(|request| request.request == id) else {
            self.notice(format!("{id} does not wait any more"), true);
            return;
        };
        let popup = if cmd == Cmd::Deny {
            Popup::Reason(Reason {
                title: format!("deny {id} of {}", request.agent),
                deed: Deed::Deny {
                    request: id,
                    reason: String::new(),
                },
                field: Field::default(),
            })
        } else if request.digest.is_empty() {
            self.notice("the daemon does not let you decide on this request", true);
            return;
        } else if cmd == Cmd::ApproveLess {
            Popup::Terms(Box::new(Terms::of(request)))
        } else {
            let deed = Deed::Approve(Approval {
                request: id,
                seen: request.digest.clone(),
                ttl: None,
                scope: None,
                bytes_max: None,
                queries_max: None,
            });
            let mut lines = request_lines(self, request);
            lines.push(format!("digest   {}", request.digest));
            let asked = Asked::of(self, request);
            return self.put(format!("approve {id}?"), lines, deed, None, Some(asked));
        };
        self.popup = Some(popup);
    }

    pub(super) fn revoke(&mut self) {
        if let Some(why) = self.hindered() {
            self.notice(why, true);
            return;
        }
        let Some(id) = self.chosen_grant() else {
            self.notice(self.no_window(), true);
            return;
        };
        match self.grant(id) {
            Some(grant) if grant.open => {
                let lines = grant_lines(self, grant);
                self.put(format!("revoke {id}?"), lines, Deed::Revoke(id), None, None);
            }
            Some(_) | None => self.notice(self.not_open(id), true),
        }
    }

    /// The agent of what is selected, where it can be asked for anything about it; what hinders is said.
    fn agent_to_decide_on(&mut self) -> Option<AgentName> {
        if let Some(why) = self.hindered() {
            self.notice(why, true);
            return None;
        }
        let agent = self.chosen_agent();
        if agent.is_none() {
            self.notice(self.nothing(), true);
        }
        agent
    }

    /// Locks, and never unlocks: whoever is sure to lock is not made to let an agent go by somebody who was faster.
    pub(super) fn lock(&mut self) {
        let Some(agent) = self.agent_to_decide_on() else {
            return;
        };
        if let Some(lock) = self.lock_of(&agent) {
            let said = format!("{agent} is locked already, {}", lock_said(lock));
            self.notice(said, true);
            return;
        }
        self.popup = Some(Popup::Reason(Reason {
            title: format!("lock {agent}: its window ends, and it gets no other"),
            deed: Deed::Lock {
                agent,
                reason: String::new(),
            },
            field: Field::default(),
        }));
    }

    pub(super) fn unlock(&mut self) {
        let Some(agent) = self.agent_to_decide_on() else {
            return;
        };
        let Some(lock) = self.lock_of(&agent).cloned() else {
            self.notice(format!("{agent} is not locked"), true);
            return;
        };
        let lines = vec![
            format!("agent    {agent}"),
            format!("locked   {}", lock_said(&lock)),
            "from here on it may ask for windows again".to_owned(),
        ];
        let title = format!("unlock {agent}?");
        let shown = Some(lock);
        let deed = Deed::Unlock { agent, shown };
        self.put(title, lines, deed, Some(UNLOCK_WORD), None);
    }

    pub(super) fn close_all(&mut self) {
        if let Some(why) = self.hindered() {
            self.notice(why, true);
            return;
        }
        let open: Vec<String> = self
            .open()
            .map(|grant| format!("{}  {}  {}", grant.grant, grant.agent, grant.scope))
            .collect();
        let more = self.open_left_out_max();
        let doubt = self.doubt_since_unix_ns();
        if open.is_empty() && more == 0 && doubt.is_none() {
            self.notice("no window is open", false);
            return;
        }
        // That there are more is read first, however long the list is.
        let more = if more > 0 {
            format!(", these and {more} more that may be open (no room here)")
        } else {
            String::new()
        };
        // What is old is no reason to leave open what may be.
        let known = doubt.map_or_else(String::new, |since| {
            format!(
                " known of at {}, and whatever was opened since",
                super::popup::clock(since)
            )
        });
        let mut lines = vec![format!("{} windows{known} end now{more}:", open.len())];
        lines.extend(open);
        let title = "close every window?".to_owned();
        self.put(title, lines, Deed::CloseAll, Some(CLOSE_ALL_WORD), None);
    }

    pub(super) fn popup_key(&mut self, key: Key) -> Vec<Effect> {
        if key == Key::Ctrl('c') {
            return vec![Effect::Quit];
        }
        let Some(popup) = self.popup.take() else {
            return Vec::new();
        };
        if key == Key::Esc {
            return Vec::new();
        }
        if popup.only_shows()
            && let Some(cmd) = pressed(self.view, key).filter(|cmd| ends_windows(*cmd))
        {
            // Who looks at what has ended must not be kept from ending more; where that cannot be, what is looked at stays.
            let effects = self.perform(cmd);
            self.popup = self.popup.take().or(Some(popup));
            return effects;
        }
        match popup {
            Popup::Help(from) => self.popup = scrolled(key, from, self.room).map(Popup::Help),
            Popup::Proof(from) => self.popup = scrolled(key, from, self.room).map(Popup::Proof),
            Popup::Story {
                title,
                all,
                found,
                from,
            } => {
                self.popup = scrolled(key, from, self.room).map(|from| Popup::Story {
                    title,
                    all,
                    found,
                    from,
                });
            }
            Popup::Why { title, lines, from } => {
                self.popup =
                    scrolled(key, from, self.room).map(|from| Popup::Why { title, lines, from });
            }
            Popup::Reason(reason) => self.reason_key(key, reason),
            Popup::Terms(terms) => self.terms_key(key, terms),
            Popup::Confirm(confirm) => return self.confirm_key(key, confirm),
        }
        Vec::new()
    }

    fn reason_key(&mut self, key: Key, mut reason: Reason) {
        if let Some(edit) = key.edit() {
            reason.field.edit(edit);
        } else if key == Key::Enter {
            if let Some(deed) = reason.filled() {
                let lines = self.lines_of(&deed);
                let title = format!("{}?", deed.said());
                return self.put(title, lines, deed, None, None);
            }
            self.notice(
                "a reason is needed: it is what the agent and the log are told",
                true,
            );
        }
        self.popup = Some(Popup::Reason(reason));
    }

    /// What is shown of a deed with a reason.
    fn lines_of(&self, deed: &Deed) -> Vec<String> {
        match deed {
            Deed::Deny { request, reason } => {
                let found = self.waiting().find(|waiting| waiting.request == *request);
                let mut lines = vec![format!("because  {reason}")];
                lines.extend(
                    found
                        .into_iter()
                        .flat_map(|found| request_lines(self, found)),
                );
                lines
            }
            Deed::Lock { agent, reason } => {
                let mut lines = vec![
                    format!("agent    {agent}"),
                    format!("because  {reason}"),
                    "it gets no window until it is unlocked".to_owned(),
                ];
                let open = self.open().filter(|grant| grant.agent == *agent);
                lines
                    .extend(open.map(|grant| format!("ends now {}  {}", grant.grant, grant.scope)));
                let more = self.open_left_out_max();
                if more > 0 {
                    lines.push(format!(
                        "ends now any window of it among {more} more, which find no room here"
                    ));
                }
                lines
            }
            Deed::Approve(_) | Deed::Revoke(_) | Deed::Unlock { .. } | Deed::CloseAll => Vec::new(),
        }
    }

    fn terms_key(&mut self, key: Key, mut terms: Box<Terms>) {
        let fields = terms.fields.len();
        if let Some(edit) = key.edit() {
            terms.fields[terms.at].edit(edit);
        } else if matches!(key, Key::Tab | Key::Down) {
            terms.at = (terms.at + 1) % fields;
        } else if matches!(key, Key::BackTab | Key::Up) {
            terms.at = (terms.at + fields - 1) % fields;
        } else if key == Key::Enter {
            match terms.filled() {
                Ok(deed) => {
                    let title = format!("approve {}, with these terms?", terms.request.request);
                    let lines = self.lines_of_terms(&terms);
                    let asked = Asked::of(self, &terms.request);
                    return self.put(title, lines, deed, None, Some(asked));
                }
                Err(wrong) => terms.wrong = Some(wrong),
            }
        }
        self.popup = Some(Popup::Terms(terms));
    }

    fn lines_of_terms(&self, terms: &Terms) -> Vec<String> {
        let [ttl, scope, bytes, queries] = terms.fields.each_ref().map(|field| field.text.trim());
        let said = bytes.parse().map_or_else(|_| bytes.to_owned(), size::whole);
        let mut lines = vec![
            format!("for      {ttl}"),
            format!("scope    {scope}"),
            format!("bytes    {said} at most"),
            format!("queries  {queries} at most"),
            "of what was asked for:".to_owned(),
        ];
        lines.extend(request_lines(self, &terms.request));
        lines.push(format!("digest   {}", terms.request.digest));
        lines
    }

    /// Puts a question: nothing is asked for but by one, and only once it has stood on screen.
    fn put(
        &mut self,
        title: String,
        lines: Vec<String>,
        deed: Deed,
        word: Option<&'static str>,
        asked: Option<Asked>,
    ) {
        self.questions = self.questions.saturating_add(1);
        self.popup = Some(Popup::Confirm(Confirm {
            number: self.questions,
            title,
            lines,
            deed,
            asked: asked.map(Box::new),
            word: word.map(|word| (word, String::new())),
            typed_from_ms: None,
            from: 0,
            reading: Reading::default(),
            standing: Standing::default(),
        }));
    }

    fn confirm_key(&mut self, key: Key, mut confirm: Confirm) -> Vec<Effect> {
        if confirm.word.is_none() && key == Key::Char('n') {
            return Vec::new();
        }
        let at_ms = self.at_ms;
        if confirm.scrolls(key) {
            confirm.standing.scrolled(at_ms);
            let is_on = matches!(key, Key::PageDown | Key::Char(' '));
            confirm.from = if is_on && confirm.must_be_read() {
                // To what was not on screen yet, wherever that is.
                confirm.reading.next().unwrap_or(confirm.from)
            } else {
                scroll(key, confirm.from, self.room).unwrap_or(confirm.from)
            };
        } else if !confirm.is_answer(key) {
            confirm.standing.pressed(at_ms);
        } else if confirm.typed_from_ms.is_none() && !confirm.standing.takes(at_ms) {
            let why = self.not_taken(&confirm);
            self.notice(why, true);
            confirm.standing.pressed(at_ms);
        } else if confirm.answer(at_ms, key) {
            match self.refused(&confirm) {
                None => return self.asks(confirm.deed),
                Some(why) => self.notice(why, true),
            }
            confirm.forget_typed();
            confirm.standing.pressed(at_ms);
        }
        self.popup = Some(Popup::Confirm(confirm));
        Vec::new()
    }

    /// Why a question takes no answer yet.
    fn not_taken(&self, confirm: &Confirm) -> String {
        if !confirm.reading.has_begun() {
            return "this was not on screen yet: look at it, and press the key again".to_owned();
        }
        self.hinders(confirm)
            .or_else(|| confirm.unread())
            .unwrap_or_else(|| {
                "that came too soon: look at it, and press the key once it is named above"
                    .to_owned()
            })
    }

    /// Why an answer is not taken, all of it being there.
    fn refused(&self, confirm: &Confirm) -> Option<String> {
        let took_ms = confirm
            .typed_from_ms
            .map(|from_ms| self.at_ms.saturating_sub(from_ms));
        let is_pasted = took_ms.is_some_and(|took_ms| took_ms < WORD_MS_MIN);
        let hinders = self.hinders(confirm).or_else(|| confirm.unread());
        hinders.or_else(|| {
            is_pasted.then(|| "that came faster than anybody types: type it by hand".to_owned())
        })
    }

    /// What stands against asking for what a question is about.
    pub(crate) fn hinders(&self, confirm: &Confirm) -> Option<String> {
        self.hindered().or_else(|| self.outdated(confirm))
    }

    /// The question that is on screen.
    pub(crate) const fn question(&self) -> Option<&Confirm> {
        if let Some(Popup::Confirm(confirm)) = &self.popup {
            Some(confirm)
        } else {
            None
        }
    }

    /// The same, changed by what was seen or pressed.
    pub(super) const fn question_mut(&mut self) -> Option<&mut Confirm> {
        if let Some(Popup::Confirm(confirm)) = &mut self.popup {
            Some(confirm)
        } else {
            None
        }
    }

    /// What a question becomes by what a screen showed of it; `None` where that changes nothing.
    fn looked_at(&self, shown: &Shown) -> Option<Confirm> {
        let before = self.question()?;
        if before.number != shown.question {
            return None;
        }
        let mut after = before.clone();
        after.drawn(self.at_ms, shown, self.hinders(before).is_some());
        (after != *before).then_some(after)
    }

    /// Takes in what a screen showed of a question, all keys pressed before it having been taken in.
    pub(super) fn look(&mut self, shown: &Shown) {
        if let Some(after) = self.looked_at(shown) {
            self.is_dirty = true;
            self.popup = Some(Popup::Confirm(after));
        }
    }

    /// Whether it matters that a screen showed this.
    pub(crate) fn learns(&self, shown: &Shown) -> bool {
        self.looked_at(shown).is_some()
    }

    /// Asks for a deed; what ends windows shows the proof of it.
    fn asks(&mut self, deed: Deed) -> Vec<Effect> {
        let is_of = |grant: &GrantView| match &deed {
            Deed::Revoke(id) => grant.grant == *id,
            Deed::Lock { agent, .. } => grant.agent == *agent,
            Deed::CloseAll => true,
            Deed::Approve(_) | Deed::Deny { .. } | Deed::Unlock { .. } => false,
        };
        let windows = self.open().filter(|grant| is_of(grant));
        let windows: Vec<(GrantId, AgentName)> = windows
            .map(|grant| (grant.grant, grant.agent.clone()))
            .collect();
        let ends = match deed {
            Deed::Revoke(_) | Deed::Lock { .. } | Deed::CloseAll => true,
            Deed::Approve(_) | Deed::Deny { .. } | Deed::Unlock { .. } => false,
        };
        if ends {
            self.popup = Some(Popup::Proof(0));
            self.proofs.begin(deed.said(), windows, self.tail.iter());
        }
        self.notice(format!("asked to {} …", deed.said()), false);
        vec![Effect::Do(deed)]
    }
}

/// Whether it asks for something that ends windows.
pub(super) const fn ends_windows(cmd: Cmd) -> bool {
    matches!(cmd, Cmd::Revoke | Cmd::Lock | Cmd::CloseAll)
}

/// Who locked, when and why.
fn lock_said(lock: &LockView) -> String {
    format!(
        "by {} since {} UTC: {}",
        lock.by,
        clock(lock.since_unix_ns),
        lock.reason
    )
}
