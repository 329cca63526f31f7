//! A resolver as the configuration names it: `10.0.0.53`, `10.0.0.53:5353`, `tls://8.8.8.8#dns.google` or `https://8.8.8.8#dns.google`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::dns::protected::normalise;

/// How a resolver is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secured {
    /// In the clear, over UDP, and over TCP where an answer is long.
    No,
    /// Over TLS (RFC 7858), its certificate for this name.
    Tls(String),
    /// Over HTTPS at `/dns-query` (RFC 8484), its certificate for this name.
    Https(String),
}

/// A resolver. It is named by its address: no name must be resolved to ask it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Resolver {
    /// Where.
    pub address: SocketAddr,
    /// How.
    pub secured: Secured,
}

impl From<SocketAddr> for Resolver {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            secured: Secured::No,
        }
    }
}

impl FromStr for Resolver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` names no resolver: write 10.0.0.53, 10.0.0.53:5353, tls://8.8.8.8#dns.google or https://8.8.8.8#dns.google"
            )
        };
        let (make, default_port, rest): (fn(String) -> Secured, _, _) =
            if let Some(rest) = text.strip_prefix("tls://") {
                (Secured::Tls, 853, rest)
            } else if let Some(rest) = text.strip_prefix("https://") {
                (Secured::Https, 443, rest)
            } else {
                let address = address(text, 53).ok_or_else(wrong)?;
                return Ok(address.into());
            };
        let (place, name) = rest.split_once('#').ok_or_else(wrong)?;
        Ok(Self {
            address: address(place, default_port).ok_or_else(wrong)?,
            secured: make(normalise(name).ok_or_else(wrong)?),
        })
    }
}

fn address(text: &str, default_port: u16) -> Option<SocketAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match bare.unwrap_or(text).parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, default_port)),
        Err(_) => text.parse().ok(),
    }
}

impl TryFrom<String> for Resolver {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Resolver> for String {
    fn from(resolver: Resolver) -> Self {
        resolver.to_string()
    }
}

impl fmt::Display for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.secured {
            Secured::No => write!(f, "{}", self.address),
            Secured::Tls(name) => write!(f, "tls://{}#{name}", self.address),
            Secured::Https(name) => write!(f, "https://{}#{name}", self.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_resolver_reads_back() {
        for (text, whole) in [
            ("10.0.0.53", "10.0.0.53:53"),
            ("10.0.0.53:5353", "10.0.0.53:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]:54", "[2001:db8::1]:54"),
            ("tls://8.8.8.8#DNS.google.", "tls://8.8.8.8:853#dns.google"),
            (
                "tls://[2001:db8::1]#dns.test",
                "tls://[2001:db8::1]:853#dns.test",
            ),
            (
                "https://8.8.8.8:444#dns.google",
                "https://8.8.8.8:444#dns.google",
            ),
        ] {
            let read: Resolver = text.parse().unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(read.to_string(), whole);
            assert_eq!(whole.parse(), Ok(read));
        }
    }

    #[test]
    fn what_names_no_resolver_is_refused() {
        for text in [
            "",
            "dns.google",
            "tls://8.8.8.8",
            "tls://8.8.8.8#",
            "https://dns.google#dns.google",
            "udp://8.8.8.8",
            "8.8.8.8:x",
        ] {
            assert!(text.parse::<Resolver>().is_err(), "{text}");
        }
    }
}
