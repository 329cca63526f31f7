//! The tokens of next pages. A list is cut down to what the window may see, and the token of its next page can tell of what comes there: the names
//! of others' datasets and jobs. That of a result, or of a table's rows, may lead to others than those that it is sent with. So each goes out sealed,
//! and comes back to the list, the job or the table, in the window, that it was given in, alone.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use enforcer_proto::id::GrantId;
use enforcer_proto::query::JobRef;
use enforcer_proto::refusal::{Code, Refusal};
use serde_json::{Value, json};

use crate::bigquery::page_token::Finder;
use crate::bigquery::route::{Route, Target};
use crate::random;

/// How the parameter is called that asks for a page, and the field that names the next.
const ASKED: &str = "pageToken";
const NEXT: &str = "nextPageToken";
/// The longest token that is sealed, bytes: sealed, it still fits a request's address. A list ends where there is a longer one.
const TOKEN_BYTES_MAX: usize = 4096;

/// Seals tokens, with a key of this start of the daemon's.
#[derive(Debug)]
pub struct Pages {
    key: RandomizedNonceKey,
}

impl Pages {
    /// With a new key.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new() -> anyhow::Result<Self> {
        let key = random::bytes::<32>()?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &key)
            .map_err(|_| anyhow::anyhow!("no key for the tokens of pages could be made"))?;
        Ok(Self { key })
    }

    /// What seals the tokens of an answer with rows as it passes.
    pub(super) fn sealing(self: &Arc<Self>, grant: GrantId, route: &Route) -> Sealing {
        Sealing {
            pages: Arc::clone(self),
            place: place(grant, route),
            finder: Finder::default(),
        }
    }

    /// The same of the first page of a job's result, which comes with the answer to its start.
    pub(super) fn sealing_of(self: &Arc<Self>, grant: GrantId, job: &JobRef) -> Sealing {
        Sealing {
            pages: Arc::clone(self),
            place: place_of(grant, job),
            finder: Finder::default(),
        }
    }

    /// Seals the token of the next page in a list that is passed on. One that cannot be is left out: the list ends there.
    pub(super) fn seal(&self, list: &mut Value, grant: GrantId, route: &Route) {
        let Some(list) = list.as_object_mut() else {
            return;
        };
        let token = list.remove(NEXT);
        let token = token.as_ref().and_then(Value::as_str);
        let sealed = token
            .filter(|token| token.len() <= TOKEN_BYTES_MAX)
            .and_then(|token| self.sealed(token, &place(grant, route)));
        if let Some(sealed) = sealed {
            list.insert(NEXT.to_owned(), json!(sealed));
        }
    }

    fn sealed(&self, token: &str, place: &str) -> Option<String> {
        let mut text = token.as_bytes().to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut text)
            .ok()?;
        let mut whole = nonce.as_ref().to_vec();
        whole.append(&mut text);
        Some(URL_SAFE_NO_PAD.encode(whole))
    }

    /// The same request with the token as BigQuery gave it.
    ///
    /// # Errors
    /// [`Code::RequestMalformed`] for a token that was not given for this list, in this window and by this start of the daemon.
    pub(super) fn open(&self, route: &Route, grant: GrantId) -> Result<Route, Refusal> {
        let mut route = route.clone();
        let place = place(grant, &route);
        let mut asked = route.parameters.iter_mut();
        // An empty one is none.
        if let Some((_, token)) = asked.find(|(name, token)| name == ASKED && !token.is_empty()) {
            *token = self.opened(token, &place).ok_or_else(|| {
                Refusal::new(
                    Code::RequestMalformed,
                    "The page token was not given for this in this window: begin with the first page",
                )
            })?;
        }
        Ok(route)
    }

    fn opened(&self, sealed: &str, place: &str) -> Option<String> {
        let mut whole = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, text) = whole.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text = self
            .key
            .open_in_place(nonce, Aad::from(place.as_bytes()), text)
            .ok()?;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// Seals the tokens of one answer.
#[derive(Debug)]
pub(super) struct Sealing {
    pages: Arc<Pages>,
    place: String,
    finder: Finder,
}

impl Sealing {
    /// What is passed on of the next part of it.
    pub(super) fn pass(&mut self, part: &[u8]) -> Bytes {
        let Self {
            pages,
            place,
            finder,
        } = self;
        let sealed = |token: &str| {
            // An empty one is none.
            let is_one = (1..=TOKEN_BYTES_MAX).contains(&token.len());
            is_one.then(|| pages.sealed(token, place)).flatten()
        };
        finder.pass(part, sealed).into()
    }
}

/// What a token is good for. A job's results are the same by whichever path they are asked for.
fn place(grant: GrantId, route: &Route) -> String {
    if let Target::Job(job) = &route.target {
        return place_of(grant, job);
    }
    format!("{grant} {} {}", route.method, route.path)
}

fn place_of(grant: GrantId, job: &JobRef) -> String {
    let location = job.location.as_deref().unwrap_or_default();
    format!(
        "{grant} results {} {} {}",
        job.project,
        job.job,
        location.to_ascii_lowercase()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bigquery::route::route;

    const LIST: &str = "/bigquery/v2/projects/p/datasets";

    fn asked(path: &str, token: &str) -> Route {
        route("GET", path, Some(&format!("{ASKED}={token}&maxResults=2"))).expect("a list")
    }

    fn given(pages: &Pages, token: &str) -> String {
        let mut list = json!({NEXT: token, "datasets": []});
        pages.seal(&mut list, GrantId(1), &asked(LIST, ""));
        list[NEXT].as_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_token_says_nothing_and_opens_where_it_was_given_alone() {
        let pages = Pages::new().expect("a key");
        let sealed = given(&pages, "hr_salaries");
        assert!(!sealed.is_empty() && !sealed.contains("salaries"));
        assert_ne!(sealed, given(&pages, "hr_salaries"), "nor what is the same");
        let opened = pages
            .open(&asked(LIST, &sealed), GrantId(1))
            .expect("its own");
        let token = opened.parameters.iter().find(|(name, _)| name == ASKED);
        assert_eq!(token.map(|(_, token)| token.as_str()), Some("hr_salaries"));
        let other = "/bigquery/v2/projects/q/datasets";
        let mut changed = sealed.clone();
        changed.replace_range(20..21, if &sealed[20..21] == "A" { "B" } else { "A" });
        for (path, token, grant) in [
            (LIST, sealed.as_str(), 2),
            (other, &sealed, 1),
            (LIST, &changed, 1),
            (LIST, &sealed[..20], 1),
            (LIST, "hr_salaries", 1),
        ] {
            let refused = pages.open(&asked(path, token), GrantId(grant));
            let code = refused
                .map_err(|refusal| refusal.code)
                .expect_err("no such token");
            assert_eq!(code, Code::RequestMalformed, "{path} {token}");
        }
        let another = Pages::new().expect("a key");
        assert!(another.open(&asked(LIST, &sealed), GrantId(1)).is_err());
    }

    #[test]
    fn a_token_of_a_result_opens_for_its_job_alone_by_whichever_answer_it_was_given() {
        let pages = Arc::new(Pages::new().expect("a key"));
        let job = |id: &str, location: &str| JobRef {
            project: "p".into(),
            job: id.into(),
            location: Some(location.into()),
        };
        let results = |job: &JobRef, token: &str| {
            let path = format!("/bigquery/v2/projects/p/queries/{}", job.job);
            asked(&path, token).of_job(job)
        };
        let own = job("a", "US");
        let given = |mut sealing: Sealing| -> String {
            let answer = sealing.pass(br#"{"rows":[],"pageToken":"BFDGJ"}"#);
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            answer["pageToken"].as_str().expect("text").to_owned()
        };
        let first = given(pages.sealing_of(GrantId(1), &job("a", "us")));
        let second = given(pages.sealing(GrantId(1), &results(&own, "")));
        for token in [&first, &second] {
            assert_ne!(token, "BFDGJ");
            let opened = pages
                .open(&results(&own, token), GrantId(1))
                .expect("its own");
            assert!(opened.path_and_query().contains("pageToken=BFDGJ"));
            for (job, grant) in [(job("b", "US"), 1), (job("a", "EU"), 1), (own.clone(), 2)] {
                let refused = pages.open(&results(&job, token), GrantId(grant));
                assert!(refused.is_err(), "{job}");
            }
        }
        assert!(pages.open(&results(&own, "BFDGJ"), GrantId(1)).is_err());
    }

    #[test]
    fn a_list_ends_where_its_token_is_none_that_can_be_sealed() {
        let pages = Pages::new().expect("a key");
        let longest = "x".repeat(TOKEN_BYTES_MAX);
        let sealed = given(&pages, &longest);
        assert!(sealed.len() < crate::bigquery::route::URI_BYTES_MAX - 1024);
        assert_eq!(given(&pages, &(longest + "x")), "");
        let mut list = json!({NEXT: {"a": 1}, "jobs": []});
        pages.seal(&mut list, GrantId(1), &asked(LIST, ""));
        assert_eq!(list, json!({"jobs": []}));
    }
}
