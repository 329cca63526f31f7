//! What is asked of the daemon: which question comes up, what is filled in, and which key says yes. Nothing is asked for but by a popup that holds it.

use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;

use super::form::{Field, Reason, Terms};
use super::key::{Cmd, Key};
use super::popup::{Approval, CLOSE_ALL_WORD, Confirm, Deed, Popup, grant_lines, request_lines};
use super::rows::Row;
use super::{Effect, Mode, Model};

/// The most windows whose proof is kept.
const ENDED_MAX: usize = 64;

impl Model {
    pub(super) fn decide(&mut self, cmd: Cmd) {
        let Some(Row::Request(id)) = self.chosen() else {
            self.notice("no request is selected", true);
            return;
        };
        if let Some(why) = self.hindered() {
            self.notice(why, true);
            return;
        }
        let Some(request) = self.waiting().find(|request| request.request == id) else {
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
            Popup::Confirm(confirm(format!("approve {id}?"), lines, deed))
        };
        self.popup = Some(popup);
    }

    pub(super) fn revoke(&mut self) {
        let Some(id) = self.chosen_grant() else {
            self.notice("no window is selected", true);
            return;
        };
        if let Some(why) = self.hindered() {
            self.notice(why, true);
            return;
        }
        match self.grant(id) {
            Some(grant) if grant.open => {
                let lines = grant_lines(self, grant);
                self.popup = Some(Popup::Confirm(confirm(
                    format!("revoke {id}?"),
                    lines,
                    Deed::Revoke(id),
                )));
            }
            Some(_) | None => self.notice(format!("{id} is not open"), true),
        }
    }

    pub(super) fn lock(&mut self) {
        let Some(agent) = self.chosen_agent() else {
            self.notice("no agent is selected", true);
            return;
        };
        if let Some(why) = self.hindered() {
            self.notice(why, true);
            return;
        }
        let lock = self.agent(&agent).and_then(|known| known.locked.as_ref());
        self.popup = Some(match lock {
            Some(lock) => {
                let lines = vec![
                    format!("agent    {agent}"),
                    format!("locked   by {}: {}", lock.by, lock.reason),
                    "from here on it may ask for windows again".to_owned(),
                ];
                let title = format!("unlock {agent}?");
                Popup::Confirm(confirm(title, lines, Deed::Unlock(agent)))
            }
            None => Popup::Reason(Reason {
                title: format!("lock {agent}: its window ends, and it gets no other"),
                deed: Deed::Lock {
                    agent,
                    reason: String::new(),
                },
                field: Field::default(),
            }),
        });
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
        if open.is_empty() {
            self.notice("no window is open", false);
            return;
        }
        let mut lines = vec![format!("{} windows end now:", open.len())];
        lines.extend(open);
        let mut all = confirm("close every window?".to_owned(), lines, Deed::CloseAll);
        all.word = Some((CLOSE_ALL_WORD, String::new()));
        self.popup = Some(Popup::Confirm(all));
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
        match popup {
            Popup::Help(from) => self.popup = scrolled(key, from, self.page).map(Popup::Help),
            Popup::Proof(from) => self.popup = scrolled(key, from, self.page).map(Popup::Proof),
            Popup::Story { title, found, from } => {
                self.popup =
                    scrolled(key, from, self.page).map(|from| Popup::Story { title, found, from });
            }
            Popup::Why { title, lines, from } => {
                self.popup =
                    scrolled(key, from, self.page).map(|from| Popup::Why { title, lines, from });
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
                self.popup = Some(Popup::Confirm(confirm(title, lines, deed)));
                return;
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
                lines
            }
            Deed::Approve(_) | Deed::Revoke(_) | Deed::Unlock(_) | Deed::CloseAll => Vec::new(),
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
                    self.popup = Some(Popup::Confirm(confirm(title, lines, deed)));
                    return;
                }
                Err(wrong) => terms.wrong = Some(wrong),
            }
        }
        self.popup = Some(Popup::Terms(terms));
    }

    fn lines_of_terms(&self, terms: &Terms) -> Vec<String> {
        let [ttl, scope, bytes, queries] = terms.fields.each_ref().map(|field| field.text.trim());
        let mut lines = vec![
            format!("for      {ttl}"),
            format!("scope    {scope}"),
            format!("bytes    {bytes} at most"),
            format!("queries  {queries} at most"),
            "of what was asked for:".to_owned(),
        ];
        lines.extend(request_lines(self, &terms.request));
        lines.push(format!("digest   {}", terms.request.digest));
        lines
    }

    fn confirm_key(&mut self, key: Key, mut confirm: Confirm) -> Vec<Effect> {
        let is_agreed = match (&mut confirm.word, key) {
            (None, Key::Char('y')) => true,
            (None, Key::Char('n')) => return Vec::new(),
            (Some((word, typed)), Key::Enter) => typed == word,
            (Some((_, typed)), Key::Char(c)) if typed.len() < 64 => {
                typed.push(c);
                false
            }
            (Some((_, typed)), Key::Backspace) => {
                typed.pop();
                false
            }
            (None | Some(_), _) => {
                confirm.from = scroll(key, confirm.from, self.page).unwrap_or(confirm.from);
                false
            }
        };
        if !is_agreed {
            self.popup = Some(Popup::Confirm(confirm));
            return Vec::new();
        }
        // What a recording shows was agreed to on a screen of its own.
        let is_read = !confirm.must_be_read() || self.mode == Mode::Replay;
        let unread = (!is_read).then(|| {
            "not all of it has been on screen yet: space shows the rest, then you can agree"
                .to_owned()
        });
        let hinders = self.hindered().or_else(|| self.outdated(&confirm.deed));
        if let Some(why) = hinders.or(unread) {
            self.notice(why, true);
            self.popup = Some(Popup::Confirm(confirm));
            return Vec::new();
        }
        self.asks(confirm.deed)
    }

    /// Takes in that a question is about to be drawn to its end, where it is.
    pub(crate) fn look(&mut self) {
        let is_shown = crate::view::hidden_below(self) == 0;
        if let Some(Popup::Confirm(confirm)) = &mut self.popup {
            confirm.is_read |= is_shown;
        }
    }

    /// Asks for a deed; what ends windows shows the proof of it.
    fn asks(&mut self, deed: Deed) -> Vec<Effect> {
        let ends: Vec<(GrantId, AgentName)> = self
            .open()
            .filter(|grant| match &deed {
                Deed::Revoke(id) => grant.grant == *id,
                Deed::Lock { agent, .. } => grant.agent == *agent,
                Deed::CloseAll => true,
                Deed::Approve(_) | Deed::Deny { .. } | Deed::Unlock(_) => false,
            })
            .map(|grant| (grant.grant, grant.agent.clone()))
            .collect();
        if !ends.is_empty() {
            self.popup = Some(Popup::Proof(0));
            self.ended.extend(ends);
            let over = self.ended.len().saturating_sub(ENDED_MAX);
            self.ended.drain(..over);
        }
        self.notice(format!("asked to {} …", deed.said()), false);
        vec![Effect::Do(deed)]
    }
}

fn confirm(title: String, lines: Vec<String>, deed: Deed) -> Confirm {
    Confirm {
        title,
        lines,
        deed,
        word: None,
        from: 0,
        is_read: false,
    }
}

/// Where a text is scrolled to; `None` for a key that scrolls nothing.
fn scroll(key: Key, from: usize, page: usize) -> Option<usize> {
    match key {
        Key::Up | Key::Char('k') => Some(from.saturating_sub(1)),
        Key::Down | Key::Char('j') => Some(from.saturating_add(1)),
        Key::PageUp => Some(from.saturating_sub(page)),
        Key::PageDown | Key::Char(' ') => Some(from.saturating_add(page)),
        Key::Home => Some(0),
        Key::End => Some(usize::MAX / 2),
        Key::Char(_)
        | Key::Ctrl(_)
        | Key::Enter
        | Key::Esc
        | Key::Tab
        | Key::BackTab
        | Key::Left
        | Key::Right
        | Key::Backspace
        | Key::Delete => None,
    }
}

/// The same of what only shows: `q` and enter put it away too.
fn scrolled(key: Key, from: usize, page: usize) -> Option<usize> {
    if matches!(key, Key::Char('q' | '?') | Key::Enter) {
        return None;
    }
    Some(scroll(key, from, page).unwrap_or(from))
}
