//! What each message makes of the model.

use std::collections::BTreeSet;

use enforcer_proto::audit::Record;
use enforcer_proto::event::{About, Event};
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use enforcer_proto::search::{Filter, Search};
use enforcer_proto::why::verdict;
use enforcer_proto::wire::{LOG_LIMIT_MAX, Status};
use ratatui::layout::Rect;

use super::find::{Found, filter_of};
use super::form::Field;
use super::key::{Cmd, Key, pressed, typed};
use super::popup::Popup;
use super::rows::Row;
use super::tail::Entry;
use super::{Effect, Known, Link, Mode, Model, Msg, Notice, Of, RATES_MAX, Typing, View};

/// How long a notice stands, milliseconds.
const NOTICE_MS: u64 = 8_000;
/// How often what a window used is looked at for its sparkline, milliseconds.
const RATE_MS: u64 = 1_000;

impl Model {
    /// Takes in what happened at `at_ms`, and gives what is to be done about it.
    pub(crate) fn update(&mut self, at_ms: u64, msg: Msg) -> Vec<Effect> {
        self.at_ms = self.at_ms.max(at_ms);
        let may_move = matches!(msg, Msg::Key(_) | Msg::Status(_));
        let effects = self.take(msg);
        if may_move {
            self.pin();
        }
        self.move_on();
        effects
    }

    fn take(&mut self, msg: Msg) -> Vec<Effect> {
        match msg {
            Msg::Key(key) => return self.take_key(key),
            Msg::Paste(text) => {
                self.is_dirty = true;
                self.paste(&text);
            }
            Msg::Click(column, row) => {
                self.is_dirty = true;
                self.click(column, row);
            }
            Msg::Resize | Msg::Signal(_) => {
                self.is_dirty = true;
                if let Some(question) = self.question_mut() {
                    question.standing.hidden();
                }
            }
            Msg::Tick => self.tick(),
            Msg::Drawn(columns, rows) => {
                self.is_dirty |= self.mode.is_replay();
                crate::view::fit(self, Rect::new(0, 0, columns, rows));
            }
            Msg::Unrecorded(why) => {
                self.is_dirty = true;
                self.unrecorded = Some(why);
            }
            Msg::Recorded(at_ms, msg) => return self.update(at_ms, *msg),
            Msg::Status(status) => self.take_status(*status),
            Msg::Records(entries, unreadable) => return self.take_records(entries, unreadable),
            Msg::Lost {
                why,
                retry_ms,
                tries,
            } => {
                self.is_dirty = true;
                self.link = Link::Down {
                    why,
                    retry_at_ms: self.at_ms.saturating_add(retry_ms),
                    tries,
                };
            }
            Msg::Answered {
                of,
                is_done,
                said,
                ended,
            } => {
                let answer = (&of[..], is_done, &said[..]);
                let is_deed = self.proofs.answered(answer, ended, self.tail.iter());
                let (said, is_bad) = self.beside_key(said, !is_done);
                self.notice(said, is_bad);
                if is_deed {
                    return self.prove();
                }
            }
            Msg::NotAsked { of } => {
                const WHY: &str = "not asked: what was asked for before is not answered yet";
                self.proofs.not_asked(&of, WHY);
                let (said, is_bad) = self.beside_key(WHY.to_owned(), true);
                self.notice(said, is_bad);
            }
            Msg::Replaced { had, has } => self.begin_anew(had, has),
            Msg::Dropped(count) => {
                self.is_dirty = true;
                self.tail.missing = count;
            }
            Msg::Proven(found) => {
                self.is_dirty = true;
                self.proofs.complete(found.iter());
            }
            Msg::Found { title, found } => self.found(title, found),
            Msg::Explained { title, found } => self.explained(title, found),
            Msg::Shown(shown) => self.look(&shown),
        }
        Vec::new()
    }

    pub(crate) fn notice(&mut self, text: impl Into<String>, is_bad: bool) {
        self.is_dirty = true;
        self.notices = self.notices.wrapping_add(1);
        self.notice = Some(Notice {
            text: text.into(),
            is_bad,
            at_ms: self.at_ms,
            of: Of::Deed,
        });
    }

    fn tick(&mut self) {
        let is_old = |notice: &Notice| self.at_ms.saturating_sub(notice.at_ms) > NOTICE_MS;
        if self.notice.as_ref().is_some_and(is_old) {
            self.notice = None;
            self.is_dirty = true;
        }
    }

    fn take_status(&mut self, status: Status) {
        let is_first = self.known.is_none();
        self.is_dirty |= self.link != Link::Up || is_first || !self.is_as_before(&status);
        self.link = Link::Up;
        self.signer.take(self.at_ms, status.log.checkpoint.as_ref());
        let newest = self.tail.heard();
        self.lag.status(self.at_ms, status.log.records, newest);
        self.statuses = self.statuses.wrapping_add(1);
        self.known = Some(Known {
            status,
            at_ms: self.at_ms,
        });
        self.check_signed();
        self.take_rates();
    }

    /// Whether nothing that is shown has changed but the time.
    fn is_as_before(&self, status: &Status) -> bool {
        let Some(before) = self.status() else {
            return false;
        };
        let without_time = |status: &Status| {
            let mut status = status.clone();
            status.now = before.now;
            // Some say how long ago something was: elsewhere than in their view that is nothing that is shown.
            if self.view != View::Health {
                status.checks.clear();
            }
            status
                .grants
                .iter_mut()
                .for_each(|grant| grant.closes_in_ns = 0);
            status
                .requests
                .iter_mut()
                .for_each(|request| request.expires_in_ns = 0);
            status
        };
        without_time(status) == without_time(before)
    }

    fn take_rates(&mut self) {
        let Some(known) = &self.known else { return };
        let at_ms = self.at_ms;
        let grants = &known.status.grants;
        let open: BTreeSet<GrantId> = grants
            .iter()
            .filter(|grant| grant.open)
            .map(|grant| grant.grant)
            .collect();
        self.rates.retain(|id, _| open.contains(id));
        for grant in grants.iter().filter(|grant| grant.open) {
            let rate = self.rates.entry(grant.grant).or_default();
            let used = grant.queries;
            match rate.last {
                Some((at, _)) if at_ms.saturating_sub(at) < RATE_MS => continue,
                // Seen over a longer time, as after a gap, it is the mean of that: nobody knows in which second they were.
                Some((at, before)) => {
                    let seconds = (at_ms.saturating_sub(at) / RATE_MS).max(1);
                    let mean = used.saturating_sub(before).div_ceil(seconds);
                    let times = usize::try_from(seconds).unwrap_or(usize::MAX);
                    rate.each
                        .extend(std::iter::repeat_n(mean, times.min(RATES_MAX)));
                }
                None => {}
            }
            rate.last = Some((at_ms, used));
            let over = rate.each.len().saturating_sub(RATES_MAX);
            rate.each.drain(..over);
        }
    }

    fn take_records(&mut self, entries: Vec<Entry>, unreadable: Vec<u64>) -> Vec<Effect> {
        self.is_dirty |= !unreadable.is_empty();
        let skipped = self.tail.skipped;
        if !entries.is_empty() || !unreadable.is_empty() {
            let newest = entries.last().map_or(0, |entry| entry.record.seq);
            let newest = unreadable.iter().copied().fold(newest, u64::max);
            let told = self.status().map_or(0, |status| status.log.records);
            self.lag.records(self.at_ms, newest >= told);
            self.is_dirty |= self.tail.missing > 0;
            self.tail.missing = 0;
        }
        let mut unreadable = unreadable.into_iter().peekable();
        for entry in entries {
            let seq = entry.record.seq;
            // In the order in which they came.
            while let Some(before) = unreadable.next_if(|before| *before < seq) {
                self.tail.pass_over(before);
            }
            if let Some(entry) = self.tail.take(entry) {
                self.chain.take(entry);
                self.queries.take(&entry.record);
                self.refusals.take(&entry.record, &entry.sentence);
                self.proofs.take(&entry.record);
                self.is_dirty = true;
                self.records = self.records.wrapping_add(1);
            }
        }
        unreadable.for_each(|seq| self.tail.pass_over(seq));
        self.check_signed();
        // What was let go may be what shows that a window has ended.
        if self.tail.skipped > skipped {
            return self.prove();
        }
        Vec::new()
    }

    /// The log is another one: nothing that came of the one before is shown as if it were of this one.
    fn begin_anew(&mut self, had: u64, has: u64) {
        self.is_dirty = true;
        self.replaced = Some((had, has));
        self.tail = super::Tail::default();
        self.chain = super::Checked::default();
        self.queries = super::Queries::default();
        self.refusals = super::Refusals::default();
        self.lag = super::Lag::default();
        self.proofs.begin_anew();
        self.records = self.records.wrapping_add(1);
    }

    /// Has the daemon's log asked for what has not come of the windows that were ended from here.
    fn prove(&self) -> Vec<Effect> {
        let unproven = self.proofs.unproven();
        if unproven.is_empty() {
            return Vec::new();
        }
        vec![Effect::Prove(unproven)]
    }

    fn found(&mut self, wanted: String, result: Result<Found, String>) {
        // One that was put away meanwhile is not brought back.
        if let Some(Popup::Story { title, found, .. }) = &mut self.popup
            && *title == wanted
        {
            *found = Some(result);
            self.is_dirty = true;
        }
    }

    fn paste(&mut self, text: &str) {
        let at_ms = self.at_ms;
        if let Some(question) = self.question_mut() {
            question.standing.pressed(at_ms);
        }
        if let Some(field) = self.field() {
            field.paste(text);
            self.apply_search();
        } else {
            self.notice("pasted text is not taken for keys", true);
        }
    }

    /// The field that is being typed, in a popup or at the foot of the screen.
    fn field(&mut self) -> Option<&mut Field> {
        let at_foot = self.typing.as_mut().map(|typing| match typing {
            Typing::Search(field) | Typing::Command(field) => field,
        });
        match &mut self.popup {
            Some(Popup::Reason(reason)) => Some(&mut reason.field),
            Some(Popup::Terms(terms)) => terms.fields.get_mut(terms.at),
            Some(
                Popup::Help(_)
                | Popup::Confirm(_)
                | Popup::Story { .. }
                | Popup::Why { .. }
                | Popup::Proof(_),
            ) => None,
            None => at_foot,
        }
    }

    /// A click selects the row under it: `row` counts from the top of the list. Where something lies over the list, there is none under it.
    fn click(&mut self, column: u16, row: u16) {
        if self.popup.is_some() || column >= crate::view::list_columns(self) {
            return;
        }
        let rows = self.rows();
        let first = crate::view::first_shown(self, &rows);
        let at = first + usize::from(row);
        if at < rows.len() {
            self.select(&rows, at);
        }
    }

    pub(super) fn key(&mut self, key: Key) -> Vec<Effect> {
        if self.popup.is_some() {
            return self.popup_key(key);
        }
        if self.typing.is_some() {
            return self.typing_key(key);
        }
        match pressed(self.view, key) {
            Some(cmd) => self.perform(cmd),
            None => Vec::new(),
        }
    }

    fn typing_key(&mut self, key: Key) -> Vec<Effect> {
        if key == Key::Ctrl('c') {
            return vec![Effect::Quit];
        }
        if let (Some(edit), Some(field)) = (key.edit(), self.field()) {
            field.edit(edit);
            self.apply_search();
            return Vec::new();
        }
        match (key, self.typing.take()) {
            (Key::Esc, Some(Typing::Search(_))) => self.place_mut().search.clear(),
            (Key::Enter, Some(Typing::Command(line))) => return self.command(line.text.trim()),
            (Key::Esc | Key::Enter, _) => {}
            (_, typing) => self.typing = typing,
        }
        Vec::new()
    }

    fn apply_search(&mut self) {
        if let Some(Typing::Search(field)) = &self.typing {
            let text = field.text.clone();
            self.place_mut().search = text;
        }
    }

    /// A command of the command line: a word, and for some what it is about.
    fn command(&mut self, line: &str) -> Vec<Effect> {
        let (word, about) = line.split_once(' ').unwrap_or((line, ""));
        if word.is_empty() {
            return Vec::new();
        }
        let about = about.trim();
        if typed(self.view, word) == Ok(Cmd::Find) && !about.is_empty() {
            return match filter_of(about) {
                Ok(filter) => {
                    let all = format!(
                        "more of them: enforcer-console tail --no-follow --limit {LOG_LIMIT_MAX} {about}"
                    );
                    self.find((format!("records with {about}"), all), filter)
                }
                Err(why) => {
                    // It names all that may be asked, and so is longer than a line.
                    self.popup = Some(Popup::Why {
                        title: "find".to_owned(),
                        lines: vec![why],
                        from: 0,
                    });
                    Vec::new()
                }
            };
        }
        if !about.is_empty()
            && let Err(why) = self.go_to(about)
        {
            self.notice(why, true);
            return Vec::new();
        }
        match typed(self.view, word) {
            Ok(cmd) => self.perform(cmd),
            Err(why) => {
                self.notice(why, true);
                Vec::new()
            }
        }
    }

    /// Selects what is named: a window, a request, a query, an agent.
    fn go_to(&mut self, name: &str) -> Result<(), String> {
        let (view, row) = if let Ok(grant) = name.parse() {
            (View::Windows, Row::Grant(grant))
        } else if let Ok(request) = name.parse() {
            (View::Requests, Row::Request(request))
        } else if let Ok(query) = name.parse() {
            (View::Sessions, Row::Query(query))
        } else if let Ok(agent) = name.parse::<AgentName>() {
            (View::Agents, Row::Agent(agent))
        } else {
            return Err(format!("`{name}` is no window, request, query or agent"));
        };
        self.view = view;
        self.places[view.place()].search.clear();
        let rows = self.rows();
        let at = rows.iter().position(|known| *known == row);
        let at = at.ok_or_else(|| format!("there is no {name} here"))?;
        self.select(&rows, at);
        Ok(())
    }

    /// Keeps what stands selected selected, by what it is: rows that come or go do not make another one of it.
    fn pin(&mut self) {
        let rows = self.rows();
        let is_there = |row: &Row| rows.contains(row);
        let place = self.place();
        if place.follows || place.selected.as_ref().is_some_and(is_there) {
            return;
        }
        if let Some((at, _)) = self.selected(&rows) {
            self.select(&rows, at);
        }
    }

    fn select(&mut self, rows: &[Row], at: usize) {
        let is_newest = match self.view {
            View::Log | View::Sessions => at + 1 == rows.len(),
            View::Refusals => at == 0,
            View::Windows | View::Requests | View::Agents | View::Health => false,
        };
        let place = self.place_mut();
        place.selected = rows.get(at).cloned();
        place.row = at;
        place.follows &= is_newest;
    }

    fn step(&mut self, by: isize) {
        if let Some(from) = &mut self.detail {
            *from = from.saturating_add_signed(by);
            return;
        }
        let rows = self.rows();
        if let Some((at, _)) = self.selected(&rows) {
            let to = at.saturating_add_signed(by).min(rows.len() - 1);
            self.select(&rows, to);
        }
    }

    pub(super) fn perform(&mut self, cmd: Cmd) -> Vec<Effect> {
        let page = match self.detail {
            Some(_) => self.room,
            None => self.page,
        };
        let page = isize::try_from(page.max(1)).unwrap_or(10);
        match cmd {
            Cmd::Go(view) => self.go(view),
            Cmd::NextView => self.go(self.view.beside(1)),
            Cmd::PreviousView => self.go(self.view.beside(View::ALL.len() - 1)),
            Cmd::Up => self.step(-1),
            Cmd::Down => self.step(1),
            Cmd::PageUp => self.step(-page),
            Cmd::PageDown => self.step(page),
            Cmd::First => self.step(isize::MIN / 2),
            Cmd::Last => self.last(),
            Cmd::Detail => self.toggle_detail(),
            Cmd::Back => self.back(),
            Cmd::Follow => self.follow(),
            Cmd::Search => {
                self.typing = Some(Typing::Search(Field::of(self.place().search.clone())))
            }
            Cmd::Find => self.typing = Some(Typing::Command(Field::of("find "))),
            Cmd::CommandLine => self.typing = Some(Typing::Command(Field::default())),
            Cmd::Help => self.popup = Some(Popup::Help(0)),
            Cmd::Proof => {
                self.popup = Some(Popup::Proof(0));
                return self.prove();
            }
            Cmd::Story => return self.story(),
            Cmd::Why => return self.why(),
            Cmd::Approve | Cmd::ApproveLess | Cmd::Deny => self.decide(cmd),
            Cmd::Revoke => self.revoke(),
            Cmd::Lock => self.lock(),
            Cmd::Unlock => self.unlock(),
            Cmd::CloseAll => self.close_all(),
            Cmd::Quit => return vec![Effect::Quit],
        }
        Vec::new()
    }

    fn go(&mut self, view: View) {
        self.view = view;
        self.detail = None;
    }

    /// It is said as well as shown: what is shown of it may lie under a detail, or not fit.
    fn follow(&mut self) {
        if !self.place().follows {
            self.place_mut().follows = true;
            return self.notice("follows what comes", false);
        }
        // It stays on what was the newest.
        let rows = self.rows();
        let newest = self.selected(&rows);
        self.place_mut().follows = false;
        if let Some((at, _)) = newest {
            self.select(&rows, at);
        }
        self.notice("stays where it is", false);
    }

    fn toggle_detail(&mut self) {
        if self.detail.take().is_none() {
            if self.chosen().is_some() {
                self.detail = Some(0);
            } else {
                self.notice(self.nothing(), true);
            }
        }
    }

    fn last(&mut self) {
        if let Some(from) = &mut self.detail {
            *from = usize::MAX;
            return;
        }
        let rows = self.rows();
        if let Some(last) = rows.len().checked_sub(1) {
            self.select(&rows, last);
        }
        if matches!(self.view, View::Log | View::Sessions) {
            self.place_mut().follows = true;
        }
    }

    fn back(&mut self) {
        if self.detail.take().is_none() {
            self.place_mut().search.clear();
        }
    }

    /// What is selected.
    pub(crate) fn chosen(&self) -> Option<Row> {
        let rows = self.rows();
        self.selected(&rows).map(|(_, row)| row)
    }

    /// The window of what is selected, where it is of one.
    pub(super) fn chosen_grant(&self) -> Option<GrantId> {
        match self.chosen()? {
            Row::Grant(grant) => Some(grant),
            Row::Query(query) => self.queries.get(query).map(|query| query.grant),
            Row::Record(seq) => self.tail.get(seq)?.grant(),
            Row::Request(_) | Row::Refusal(_) | Row::Agent(_) | Row::Health(..) => None,
        }
    }

    pub(super) fn chosen_agent(&self) -> Option<AgentName> {
        match self.chosen()? {
            Row::Grant(grant) => self.grant(grant).map(|grant| grant.agent.clone()),
            Row::Request(id) => {
                let found = self.waiting().find(|request| request.request == id);
                found.map(|request| request.agent.clone())
            }
            Row::Agent(agent) => Some(agent),
            Row::Query(_) | Row::Record(_) | Row::Refusal(_) | Row::Health(..) => None,
        }
    }

    fn story(&mut self) -> Vec<Effect> {
        let Some(grant) = self.chosen_grant() else {
            self.notice(self.no_window(), true);
            return Vec::new();
        };
        let filter = Filter {
            grant: Some(grant),
            ..Filter::default()
        };
        let all = format!("all of them: enforcer-console story {grant}");
        self.find((format!("the story of {grant}"), all), filter)
    }

    /// Looks for records in the daemon's log; where there is no daemon, among those that are here. `all` says which command gives more of them.
    fn find(&mut self, (title, all): (String, String), filter: Filter) -> Vec<Effect> {
        let here = || {
            let mut search = Search::new(filter.clone());
            let wanted = self.tail.iter().filter(|entry| search.wants(&entry.record));
            Ok(Found::all(wanted.cloned().collect()))
        };
        self.popup = Some(Popup::Story {
            title: title.clone(),
            all,
            found: (self.mode == Mode::Demo).then(here),
            from: 0,
        });
        vec![Effect::Find {
            title,
            filter: Box::new(filter),
        }]
    }

    /// What is known here of why is shown at once; all that the log has follows.
    fn why(&mut self) -> Vec<Effect> {
        let entry = match self.chosen() {
            Some(Row::Record(seq)) => self.tail.get(seq),
            Some(Row::Query(query)) => {
                let query = self.queries.get(query);
                query.and_then(|query| self.tail.get(query.seq))
            }
            Some(Row::Refusal(like)) => {
                let found = self.refusals.iter().find(|(known, _)| **known == like);
                found.and_then(|(_, burst)| self.tail.get(burst.seq))
            }
            Some(Row::Grant(_) | Row::Request(_) | Row::Agent(_) | Row::Health(..)) => None,
            None => {
                self.notice(self.nothing(), true);
                return Vec::new();
            }
        };
        let Some(entry) = entry else {
            self.notice("its record is not kept here: enforcer why ID", true);
            return Vec::new();
        };
        let record = Box::new(entry.record.clone());
        self.popup = Some(Popup::Why {
            title: why_title(&record),
            lines: why_lines(entry),
            from: 0,
        });
        vec![Effect::Explain(record)]
    }

    fn explained(&mut self, wanted: String, result: Result<Vec<String>, String>) {
        // One that was put away meanwhile is not brought back.
        if let Some(Popup::Why { title, lines, .. }) = &mut self.popup
            && *title == wanted
        {
            match result {
                Ok(all) => *lines = all,
                Err(why) => lines.push(format!("the log could not be asked for more: {why}")),
            }
            self.is_dirty = true;
        }
    }
}

/// How what explains a record is called.
pub(crate) fn why_title(record: &Record) -> String {
    format!("why: record {}", record.seq)
}

/// What the record itself says of why.
fn why_lines(entry: &Entry) -> Vec<String> {
    let about = About::of(&entry.record.event);
    let mut lines = vec![entry.sentence.clone()];
    if let Some(code) = about.code {
        lines.push(format!("code     {}", code.as_str()));
        lines.push(format!("means    {}", code.meaning().trim()));
        lines.push(format!("next     {}", code.next_step()));
    }
    if let Event::KernelRefused { verdict, .. } = &entry.record.event
        && let Some(reason) = verdict::named_in(verdict)
    {
        let said = verdict::explained(reason);
        lines.push(format!("means    {}", said.meaning));
        lines.push(format!("next     {}", said.next_step));
    }
    if let Some(sql) = about.sql {
        lines.push(format!("SQL      {sql}"));
    }
    lines
}
