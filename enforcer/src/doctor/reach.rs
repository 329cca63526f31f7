//! The places that this host speaks to: their names, whether they are who they say, and what time it is there.

use std::net::IpAddr;
use std::time::Duration;

use enforcer_proto::check::{Link, Mark};
use enforcer_proto::time::NS_PER_S;
use futures_util::{FutureExt, StreamExt, stream};
use http::{Request, Uri, header};
use jiff::fmt::rfc2822::DateTimeParser;

use super::cure::Cures;
use super::{Doctor, POOL_KEY, Told, Who};
use crate::causes::Causes;
use crate::config::TokenSource;
use crate::upstream::full;

/// How long a place may take to answer, connecting included.
const ANSWER: Duration = Duration::from_secs(20);
/// How many names are asked for at once.
const AT_ONCE: usize = 16;
/// How many addresses of a name are named.
const ADDRESSES_NAMED_MAX: usize = 4;
/// How many names are named that are not answered.
const NAMED_MAX: usize = 6;

/// A place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The Security Token Service.
    Sts,
    /// IAM Credentials.
    IamCredentials,
    /// BigQuery's API.
    Api,
}

/// What was reached.
#[derive(Debug, Default)]
pub(super) struct Reached {
    places: Vec<Place>,
    /// By how much this host's clock is ahead of the first token service that said what time it is, seconds.
    pub(super) ahead_s: Option<i64>,
}

impl Reached {
    pub(super) fn has(&self, place: Place) -> bool {
        self.places.contains(&place)
    }

    pub(super) fn has_api(&self) -> bool {
        self.has(Place::Api)
    }
}

/// Where a place is.
struct Where {
    place: Place,
    uri: Option<Uri>,
    /// The key of the configuration that says so.
    key: &'static str,
}

impl Doctor {
    /// Names first, then connections to those that have an address.
    pub(super) async fn reach(
        &self,
        whos: &[Who<'_>],
        cures: &Cures<'_>,
        told: &mut Told,
    ) -> Reached {
        let mut named = Vec::new();
        for at in self.places(whos) {
            let host = at.uri.as_ref().and_then(Uri::host).map(str::to_owned);
            let (Some(uri), Some(host)) = (at.uri, host) else {
                let cure = "write https:// and a host's name";
                told.fail(Link::Names, at.key, "it names no host", cure)
                    .await;
                continue;
            };
            let has_address = self.address(&host, told).await;
            named.push((at.place, uri, host, has_address));
        }
        self.protected(told).await;
        let mut reached = Reached::default();
        for (place, uri, host, has_address) in named {
            if !has_address {
                told.not_tried(Link::Tls, &host, "its name has no address")
                    .await;
                continue;
            }
            let Some(date_s) = self.tls(place, &uri, &host, cures, told).await else {
                continue;
            };
            reached.places.push(place);
            if place != Place::Api {
                reached.ahead_s = reached.ahead_s.or(date_s);
            }
        }
        reached
    }

    fn places(&self, whos: &[Who<'_>]) -> Vec<Where> {
        let mut places = Vec::new();
        let mut add = |place, url: &str, key| {
            let uri = url.parse().ok();
            places.push(Where { place, uri, key });
        };
        let iam_url = match &self.config.token {
            TokenSource::Federation {
                sts_url, iam_url, ..
            } => {
                if self.federates(whos) {
                    add(Place::Sts, sts_url, "token.sts_url");
                }
                iam_url
            }
            TokenSource::Impersonation { iam_url } => iam_url,
        };
        if whos.iter().any(|who| who.account.is_some()) {
            add(Place::IamCredentials, iam_url, "token.iam_url");
        }
        let api = format!("https://{}/", self.ways.api);
        add(Place::Api, &api, "names.protected");
        places
    }

    async fn address(&self, host: &str, told: &mut Told) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let cure = "the servers under [names] resolvers must answer for it; where it is an endpoint of your own network, its zone must be served to this host";
        match self.ways.names.lookup_both(bare).await {
            Ok(answer) if answer.addresses.is_empty() => {
                told.fail(Link::Names, host, "it has no address", cure)
                    .await;
                false
            }
            Ok(answer) => {
                let said = shown(&answer.addresses);
                told.ok(Link::Names, host, &said).await;
                true
            }
            Err(error) => {
                let said = Causes(&error).to_string();
                told.fail(Link::Names, host, &said, cure).await;
                false
            }
        }
    }

    /// The other protected names: BigQuery is kept from agents at their addresses, and not all of them need to be there.
    async fn protected(&self, told: &mut Told) {
        let names = self.config.protected_names();
        let others = names.iter().filter(|name| **name != self.ways.api);
        // Boxed, or the compiler cannot tell that the whole may move to another thread.
        let asked: Vec<_> = others.map(|name| self.is_there(name).boxed()).collect();
        let asked: Vec<(&str, bool)> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        if asked.is_empty() {
            return;
        }
        let absent: Vec<&str> = asked
            .iter()
            .filter_map(|(name, is_there)| (!is_there).then_some(*name))
            .collect();
        let of = "other protected names";
        if absent.is_empty() {
            let said = format!("all {} have addresses", asked.len());
            return told.ok(Link::Names, of, &said).await;
        }
        let more = absent.len().saturating_sub(NAMED_MAX);
        let named = absent[..absent.len() - more].join(", ");
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let said = format!(
            "{} of {} have no address: {named}{more}; agents do not reach BigQuery there either",
            absent.len(),
            asked.len()
        );
        told.say(Mark::Note, Link::Names, of, &said, None).await;
    }

    async fn is_there<'n>(&self, name: &'n str) -> (&'n str, bool) {
        let answer = self.ways.names.lookup_both(name).await;
        (
            name,
            answer.is_ok_and(|answer| !answer.addresses.is_empty()),
        )
    }

    /// Whether whoever answers is who it should be. Any answer will do. Gives by how much this host's clock is ahead, where it says the time.
    async fn tls(
        &self,
        place: Place,
        uri: &Uri,
        host: &str,
        cures: &Cures<'_>,
        told: &mut Told,
    ) -> Option<Option<i64>> {
        let root = format!(
            "https://{}/",
            uri.authority().map_or(host, |authority| authority.as_str())
        );
        let request = Request::get(root).body(full(""));
        let Ok(request) = request else {
            told.fail(Link::Tls, host, "it cannot be asked for", "correct its URL")
                .await;
            return None;
        };
        let sent = self.ways.upstream.send(POOL_KEY, request);
        let answered = match tokio::time::timeout(ANSWER, sent).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(error)) => {
                let said = Causes(&error).to_string();
                let cure = cures.of_way(&error, place == Place::Api);
                told.fail(Link::Tls, host, &said, &cure).await;
                return None;
            }
            Err(_) => {
                let said = format!("it did not answer within {} s", ANSWER.as_secs());
                told.fail(Link::Tls, host, &said, cure_of_silence()).await;
                return None;
            }
        };
        told.ok(Link::Tls, host, "its certificate is good, and it answers")
            .await;
        let now_s = self.ways.clock.now().unix_ns / NS_PER_S;
        let date = answered.headers().get(header::DATE);
        let date = date.and_then(|date| date.to_str().ok()).and_then(read_date);
        Some(date.map(|there_s| i64::try_from(now_s).unwrap_or(i64::MAX) - there_s))
    }
}

/// Some of the addresses.
fn shown(addresses: &[IpAddr]) -> String {
    let named = addresses.iter().take(ADDRESSES_NAMED_MAX);
    let named: Vec<String> = named.map(ToString::to_string).collect();
    let more = addresses.len().saturating_sub(ADDRESSES_NAMED_MAX);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", named.join(", "))
}

const fn cure_of_silence() -> &'static str {
    "look at what lies between: a firewall, a proxy"
}

/// The seconds since 1970 of an HTTP date, which is one of RFC 2822's.
fn read_date(text: &str) -> Option<i64> {
    let time = DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(time.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read_and_what_is_none_is_not() {
        assert_eq!(
            read_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        assert_eq!(read_date("yesterday"), None);
    }
}
