//! What protected names lead to, as this host's own resolver says it, asked the way every program asks it: each address must be refused as the
//! canary is. Nothing is sent: a datagram socket is connected to it, which the kernel judges and no packet follows.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::join_all;

use super::attempt::{Attempt, Ended, Wire};
use super::path::{Way, Who};
use super::scratch::Scratch;
use super::{Outcome, Proof, canary, has_no_route, run};

/// How long the resolver may take for a name.
const LOOK_UP: Duration = Duration::from_secs(5);
/// How many names have a proof of their own; the others have one together.
const ALONE: usize = 16;
/// What these proofs are called; the name follows.
pub(super) const NAME: &str = "name/";
/// What the names are called that have one together.
const FURTHER: &str = "further";

/// A name, or several, and what it leads to.
struct Led {
    path: String,
    words: String,
    addresses: BTreeSet<IpAddr>,
    /// Names that lead nowhere.
    unknown: Vec<String>,
}

/// Looks the names up, and tries every address that they lead to.
pub(super) async fn try_names(scratch: &Scratch, names: &[String]) -> Result<Vec<Proof>> {
    let (alone, further) = names.split_at(names.len().min(ALONE));
    let mut groups: Vec<(String, String, &[String])> = alone
        .iter()
        .map(|name| (name.clone(), name.clone(), std::slice::from_ref(name)))
        .collect();
    if !further.is_empty() {
        let words = format!("any of {} further protected names", further.len());
        groups.push((FURTHER.to_owned(), words, further));
    }
    let led = join_all(groups.into_iter().map(look_up)).await;
    let mut proofs = Vec::new();
    for led in led {
        proofs.push(try_addresses(scratch, led).await?);
    }
    Ok(proofs)
}

async fn look_up((path, words, names): (String, String, &[String])) -> Led {
    let found = join_all(names.iter().map(|name| async move {
        let asked = tokio::net::lookup_host((name.as_str(), 443));
        let found = tokio::time::timeout(LOOK_UP, asked).await;
        let found = found.map(|answer| answer.map(|all| all.map(|to| to.ip()).collect::<Vec<_>>()));
        (name, found.ok().and_then(Result::ok).unwrap_or_default())
    }));
    let found = found.await;
    let unknown = found.iter().filter(|(_, addresses)| addresses.is_empty());
    Led {
        path: format!("{NAME}{path}"),
        words: format!("a socket to each address that {words} has here, nothing sent"),
        unknown: unknown.map(|(name, _)| (*name).clone()).collect(),
        addresses: found
            .into_iter()
            .flat_map(|(_, addresses)| addresses)
            .collect(),
    }
}

async fn try_addresses(scratch: &Scratch, led: Led) -> Result<Proof> {
    let mut tried = Vec::new();
    for address in &led.addresses {
        tried.push((*address, connect(scratch, *address).await?));
    }
    // What is refused toward any address shows nothing of these.
    let open = connect(scratch, canary::OPEN4.into()).await?;
    Ok(Proof {
        path: led.path,
        words: led.words,
        privileged: false,
        outcome: judge(&tried, &led.unknown, &open),
    })
}

async fn connect(scratch: &Scratch, to: IpAddr) -> Result<Ended> {
    run(scratch.procs()?, &socket_to(to), Who::Anyone).await
}

/// A datagram socket that is connected, and sends nothing.
pub(super) fn socket_to(to: IpAddr) -> Attempt {
    Attempt {
        way: Way::UdpConnect,
        to,
        elsewhere: canary::elsewhere(to),
        wire: Wire::none(),
    }
}

/// What is shown by how each address ended, and an open one.
fn judge(tried: &[(IpAddr, Ended)], unknown: &[String], open: &Ended) -> Outcome {
    let not_resolved = match unknown {
        [] => String::new(),
        [name] => format!("{name} is not resolved here"),
        [name, more @ ..] => format!("{name} and {} more are not resolved here", more.len()),
    };
    let refused = tried.iter().filter(|(_, ended)| ended.is("EPERM")).count();
    let let_be = tried
        .iter()
        .filter(|(_, ended)| !ended.is("EPERM") && !has_no_route(ended))
        .map(|(address, ended)| format!("{address} ({ended})"));
    let let_be: Vec<String> = let_be.collect();
    if !let_be.is_empty() {
        let saw = format!(
            "not protected: {}. Name Google's prefixes (names.shared_prefixes_file)",
            let_be.join(", ")
        );
        return Outcome::Reached { packets: None, saw };
    }
    if open.is("EPERM") {
        let why = "an open address is refused here as well".to_owned();
        return Outcome::NotTried { why };
    }
    if refused == 0 {
        let why = if tried.is_empty() {
            not_resolved
        } else {
            "this host has no route to there".to_owned()
        };
        return Outcome::NotTried { why };
    }
    let rest = match (tried.len() - refused, not_resolved) {
        (0, none) if none.is_empty() => String::new(),
        (0, not_resolved) => format!("; {not_resolved}"),
        (unrouted, none) if none.is_empty() => format!("; {unrouted} without a route"),
        (unrouted, not_resolved) => format!("; {unrouted} without a route; {not_resolved}"),
    };
    Outcome::Blocked {
        saw: format!("EPERM, addresses: {refused}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(address: &str, errno: Option<&str>) -> (IpAddr, Ended) {
        let ended = errno.map_or(Ended::Sent, |errno| Ended::Refused(errno.to_owned()));
        (address.parse().unwrap(), ended)
    }

    #[test]
    fn one_address_that_is_let_be_is_enough_and_what_says_nothing_shows_nothing() {
        let refused = ended("192.0.2.1", Some("EPERM"));
        let unrouted = ended("2001:db8::1", Some("ENETUNREACH"));
        let let_be = ended("192.0.2.2", None);
        let unknown = ["a.test".to_owned(), "b.test".to_owned()];
        let open = Ended::Sent;
        let judge = |tried: &[(IpAddr, Ended)], unknown: &[String]| judge(tried, unknown, &open);
        let both = judge(&[refused.clone(), let_be], &[]);
        let Outcome::Reached { saw, .. } = both else {
            panic!("{both:?}")
        };
        assert!(
            saw.contains("192.0.2.2") && !saw.contains("192.0.2.1 "),
            "{saw}"
        );
        assert_eq!(
            judge(&[refused, unrouted.clone()], &unknown),
            Outcome::Blocked {
                saw:
                    "EPERM, addresses: 1; 1 without a route; a.test and 1 more are not resolved here"
                        .to_owned()
            }
        );
        for nothing in [judge(&[], &unknown), judge(&[unrouted], &[])] {
            assert!(matches!(nothing, Outcome::NotTried { .. }), "{nothing:?}");
        }
    }

    #[test]
    fn where_every_address_is_refused_nothing_is_shown() {
        let open = Ended::Refused("EPERM".to_owned());
        let shown = judge(&[ended("192.0.2.1", Some("EPERM"))], &[], &open);
        assert!(matches!(shown, Outcome::NotTried { .. }), "{shown:?}");
    }
}
