//! Credentials of agents' own, as far as they look like Google's: none is sent on, and that there is one is recorded. Never the credential itself: its
//! kind, where it stood, and the beginning of its hash. Counted, so that a client that sends one with each request takes few records.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use enforcer_proto::audit::sha256_hex;
use enforcer_proto::event::Event;
use enforcer_proto::principal::{AgentName, Process};
use enforcer_proto::time::NS_PER_S;
use http::{HeaderMap, HeaderName, Uri, header};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::engine::{Engine, Requester};
use crate::metadata::placeholder::is_placeholder;
use crate::tally::{KINDS_PER_AGENT_MAX, keep_recording};

/// How long one credential of an agent's takes one record, however often it comes.
const AGAIN_NS: u64 = 600 * NS_PER_S;
/// How much of its hash is recorded, hex digits: enough to know it by, and nothing to find it by.
const FINGERPRINT_DIGITS: usize = 16;
/// The shortest text that is taken for a credential, bytes: shorter ones have too little in them for a hash to hide.
const CREDENTIAL_BYTES_MIN: usize = 20;
/// Stands for what is too much to tell apart.
const FURTHER: &str = "further credentials of its own, more than are told apart";
/// Headers that carry one, beside `Authorization`.
const HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("x-goog-iam-authorization-token"),
    header::PROXY_AUTHORIZATION,
];
/// Parameters of a query that do (Google's "System parameters").
const PARAMETERS: [&str; 3] = ["access_token", "oauth_token", "key"];

/// What is known of a credential.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    what: String,
    fingerprint: String,
}

#[derive(Debug)]
struct Seen {
    process: Process,
    /// How often since its last record.
    count: u64,
    /// When that was, boot clock; `None` before the first.
    recorded_boot_ns: Option<u64>,
}

#[derive(Debug, Default)]
struct Share {
    known: BTreeMap<Known, Seen>,
    further: u64,
}

/// Counts credentials by agent.
#[derive(Debug)]
pub struct Presented {
    clock: Arc<dyn Clock>,
    /// One for each configured agent that has sent one.
    shares: Mutex<BTreeMap<AgentName, Share>>,
}

impl Presented {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            shares: Mutex::default(),
        }
    }

    /// Looks for credentials in a request of an agent's.
    pub(super) fn look(&self, requester: &Requester, headers: &HeaderMap, uri: &Uri) {
        let found = found(headers, uri);
        if found.is_empty() {
            return;
        }
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let share = shares.entry(requester.agent.clone()).or_default();
        for known in found {
            let is_room = share.known.len() < KINDS_PER_AGENT_MAX;
            let count = match share.known.get_mut(&known) {
                Some(seen) => &mut seen.count,
                None if is_room => {
                    let seen = Seen {
                        process: requester.process.clone(),
                        count: 0,
                        recorded_boot_ns: None,
                    };
                    &mut share.known.entry(known).or_insert(seen).count
                }
                None => &mut share.further,
            };
            *count = count.saturating_add(1);
        }
    }

    /// Records what was seen, until `stop` and once more then.
    pub async fn run(&self, engine: &Engine, stop: CancellationToken) {
        keep_recording(engine, stop, |is_last| self.take(is_last)).await;
    }

    /// What is to be recorded now; at the end all that was not.
    fn take(&self, at_end: bool) -> Vec<Event> {
        let now_boot_ns = self.clock.now().boot_ns;
        let is_due = |recorded: Option<u64>| {
            recorded.is_none_or(|at| now_boot_ns >= at.saturating_add(AGAIN_NS))
        };
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = Vec::new();
        for (agent, share) in shares.iter_mut() {
            for (known, seen) in &mut share.known {
                if seen.count == 0 || !(at_end || is_due(seen.recorded_boot_ns)) {
                    continue;
                }
                events.push(Event::CredentialPresented {
                    agent: agent.clone(),
                    process: Some(seen.process.clone()),
                    what: known.what.clone(),
                    fingerprint: Some(known.fingerprint.clone()),
                    count: std::mem::take(&mut seen.count),
                });
                seen.recorded_boot_ns = Some(now_boot_ns);
            }
            // What has not come for so long gives its room to others.
            share
                .known
                .retain(|_, seen| seen.count > 0 || !is_due(seen.recorded_boot_ns));
            if share.further > 0 {
                events.push(Event::CredentialPresented {
                    agent: agent.clone(),
                    process: None,
                    what: FURTHER.to_owned(),
                    fingerprint: None,
                    count: std::mem::take(&mut share.further),
                });
            }
        }
        events
    }
}

/// The credentials in a request. The placeholder that agents are given is none.
fn found(headers: &HeaderMap, uri: &Uri) -> Vec<Known> {
    let mut found = Vec::new();
    let mut look = |place: &str, text: &str| {
        found.extend(kind(text).map(|kind| {
            Known {
                what: format!("{kind}, in {place}"),
                fingerprint: sha256_hex(text.as_bytes())
                    .chars()
                    .take(FINGERPRINT_DIGITS)
                    .collect(),
            }
        }));
    };
    for name in [header::AUTHORIZATION].iter().chain(&HEADERS) {
        for value in headers.get_all(name) {
            let text = value.to_str().unwrap_or_default();
            // `Bearer TOKEN`; a key stands alone.
            look(name.as_str(), text.rsplit(' ').next().unwrap_or_default());
        }
    }
    let query = uri.query().unwrap_or_default();
    for (name, text) in form_urlencoded::parse(query.as_bytes()) {
        if PARAMETERS.contains(&name.as_ref()) {
            look(&format!("the parameter {name}"), &text);
        }
    }
    found
}

/// What kind of credential of Google's a text looks like.
fn kind(text: &str) -> Option<&'static str> {
    if text.len() < CREDENTIAL_BYTES_MIN || is_placeholder(text) {
        return None;
    }
    let parts = || text.split('.').collect::<Vec<_>>();
    if text.starts_with("ya29.") {
        Some("an access token")
    } else if text.starts_with("AIza") {
        Some("an API key")
    } else if text.starts_with("1//") {
        Some("a refresh token")
    } else if text.starts_with("GOCSPX-") {
        Some("a client's secret")
    } else if text.starts_with("eyJ") && parts().len() == 3 {
        Some("a signed JWT")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use enforcer_proto::id::SessionId;
    use enforcer_proto::time::Now;
    use http::Request;
    use http::request::Parts;

    use super::*;
    use crate::clock::ManualClock;

    const TOKEN: &str = "ya29.a0AfB_byC-of-the-agents-own";

    fn at(seconds: u64) -> Now {
        Now {
            boot_ns: seconds * NS_PER_S,
            unix_ns: seconds * NS_PER_S,
        }
    }

    fn requester() -> Requester {
        Requester {
            agent: "bot".parse().expect("a name"),
            session: SessionId(1),
            process: Process {
                pid: 7,
                start_boot_ns: 1,
                uid: 2001,
                comm: "client".to_owned(),
            },
            container: None,
        }
    }

    fn head(authorization: &str, path: &str) -> Parts {
        let request = Request::get(path).header(header::AUTHORIZATION, authorization);
        request.body(()).expect("a request").into_parts().0
    }

    fn counts(events: Vec<Event>) -> Vec<(String, u64)> {
        let each = events.into_iter().map(|event| {
            let Event::CredentialPresented { what, count, .. } = event else {
                panic!("{event:?}")
            };
            (what, count)
        });
        each.collect()
    }

    #[test]
    fn what_looks_like_googles_is_known_by_its_kind_and_place_and_its_hash_alone() {
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
        for (authorization, path, wanted) in [
            (
                format!("Bearer {TOKEN}"),
                "/a",
                "an access token, in authorization",
            ),
            (
                format!("Bearer {jwt}"),
                "/a",
                "a signed JWT, in authorization",
            ),
            (
                "Bearer enforcer-placeholder".to_owned(),
                "/a?key=AIzaSyA-0123456789abcdefghij",
                "an API key, in the parameter key",
            ),
            (
                String::new(),
                "/a?access_token=ya29.a0AfB%5FbyC-of-the-agents-own",
                "an access token, in the parameter access_token",
            ),
        ] {
            let head = head(&authorization, path);
            let found = found(&head.headers, &head.uri);
            assert_eq!(found.len(), 1, "{wanted}");
            assert_eq!(found[0].what, wanted);
            assert_eq!(found[0].fingerprint.len(), FINGERPRINT_DIGITS);
            assert!(!format!("{found:?}").contains("agents"), "{found:?}");
        }
        for none in [
            "Bearer enforcer-placeholder",
            "Bearer enforcer-placeholder-0123456789abcdef",
            "Bearer x",
            "Basic eyJhIjoxfQ==",
            "",
        ] {
            let head = head(none, "/a?key=short");
            assert_eq!(found(&head.headers, &head.uri), Vec::new(), "{none}");
        }
    }

    #[test]
    fn one_that_comes_with_every_request_takes_one_record_in_ten_minutes_and_a_last_one() {
        let clock = Arc::new(ManualClock::at(at(1)));
        let presented = Presented::new(Arc::clone(&clock) as _);
        let own = head(&format!("Bearer {TOKEN}"), "/a");
        let what = "an access token, in authorization".to_owned();
        for _ in 0..3 {
            presented.look(&requester(), &own.headers, &own.uri);
        }
        assert_eq!(counts(presented.take(false)), [(what.clone(), 3)]);
        for _ in 0..5 {
            presented.look(&requester(), &own.headers, &own.uri);
            assert_eq!(counts(presented.take(false)), []);
        }
        clock.set(at(601));
        assert_eq!(counts(presented.take(false)), [(what.clone(), 5)]);
        presented.look(&requester(), &own.headers, &own.uri);
        assert_eq!(counts(presented.take(true)), [(what, 1)]);
        assert_eq!(counts(presented.take(true)), []);
    }

    #[test]
    fn more_than_are_told_apart_are_counted_together_until_there_is_room() {
        let clock = Arc::new(ManualClock::at(at(1)));
        let presented = Presented::new(Arc::clone(&clock) as _);
        for at in 0..100 {
            let own = head(&format!("Bearer {TOKEN}-{at}"), "/a");
            presented.look(&requester(), &own.headers, &own.uri);
        }
        let taken = counts(presented.take(false));
        assert_eq!(taken.len(), KINDS_PER_AGENT_MAX + 1);
        let further = 100 - KINDS_PER_AGENT_MAX as u64;
        assert_eq!(taken.last(), Some(&(FURTHER.to_owned(), further)));
        clock.set(at(601));
        assert_eq!(counts(presented.take(false)), []);
        let own = head(&format!("Bearer {TOKEN}"), "/a");
        presented.look(&requester(), &own.headers, &own.uri);
        assert_eq!(
            counts(presented.take(false)).len(),
            1,
            "there is room again"
        );
    }
}
