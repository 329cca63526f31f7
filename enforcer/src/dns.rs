//! Names: our own look-ups (never the agent's answers, never a hosts file) and the set of protected addresses they make.
//! Nothing here decides about a connection; it only says what a name answers with and for how long.

pub mod endpoints;
pub mod heard;
pub(crate) mod marked;
pub mod marks;
pub mod protected;
pub mod questions;
pub mod responder;
#[cfg(test)]
mod tests;
mod told;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup as Records;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Resolver, TokioResolver, system_conf};

use crate::causes::Causes;
use crate::config::{Resolver as Server, Secured};

pub use told::{NamesRules, SYNTHETIC};

/// The metadata servers of the clouds' hosts: Google's and Amazon's, which Microsoft's and others' share, by IPv4, Google's and Amazon's by
/// IPv6, and that of GKE's nodes. Whoever reaches one is given the host's own credentials.
pub const METADATA_SERVERS: [IpAddr; 4] = [
    IpAddr::V4(told::METADATA),
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 252)),
    IpAddr::V6(GOOGLE_METADATA6),
    IpAddr::V6(AMAZON_METADATA6),
];
const GOOGLE_METADATA6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254);
const AMAZON_METADATA6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254);

/// How long one query may take before the next server or try.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Tries per query after the first.
const QUERY_RETRIES: usize = 1;
/// Answers remembered for dialling; the endpoint set asks anew each time.
const CACHE_ENTRIES: u64 = 512;
/// Answers remembered for agents, of all of them together; the least used are forgotten first.
const AGENTS_CACHE_ENTRIES: u64 = 4096;
/// The longest that an answer is remembered, whatever its ttl says.
const REMEMBERED_MAX: Duration = Duration::from_secs(3600);
/// How long an answer without records counts when the zone does not say.
const NEGATIVE_TTL: Duration = Duration::from_secs(60);

/// Which kind of address is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

/// What one name answers with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The addresses, in the server's order; empty when the name has none of this family.
    pub addresses: Vec<IpAddr>,
    /// How long the answer may be believed.
    pub ttl: Duration,
}

/// A name that could not be looked up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NamesError {
    /// No resolver is configured and the host has none.
    #[error(
        "no DNS server is known: {0}. Name one under [names] resolvers, or repair /etc/resolv.conf"
    )]
    NoServers(String),
    /// The servers did not answer, or not usefully.
    #[error("the look-up of {name} failed: {why}. Check the servers under [names] resolvers")]
    Failed {
        /// The name asked for.
        name: String,
        /// What went wrong.
        why: String,
    },
    /// Every address in the answer is one no public service has.
    #[error(
        "{name} answers only with addresses that are refused (loopback, link-local, multicast or unspecified): the DNS server is wrong or hostile"
    )]
    OnlyRefused {
        /// The name asked for.
        name: String,
    },
}

/// Something that looks names up.
#[async_trait]
pub trait Lookup: Send + Sync + std::fmt::Debug {
    /// Asks for the addresses of `name` in one family. A name without any is an empty answer, not an error.
    ///
    /// # Errors
    /// [`NamesError`] when the servers could not be asked or when the answer holds only refused addresses.
    async fn lookup(&self, name: &str, family: Family) -> Result<Answer, NamesError>;

    /// Asks for both families; fails only when both do.
    ///
    /// # Errors
    /// That of the first family.
    async fn lookup_both(&self, name: &str) -> Result<Answer, NamesError> {
        let (v4, v6) =
            futures_util::join!(self.lookup(name, Family::V4), self.lookup(name, Family::V6));
        match (v4, v6) {
            (Ok(v4), Ok(v6)) => Ok(both(v4, v6)),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) if !one.addresses.is_empty() => Ok(one),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }
}

fn both(v4: Answer, v6: Answer) -> Answer {
    Answer {
        ttl: v4.ttl.min(v6.ttl),
        addresses: v4.addresses.into_iter().chain(v6.addresses).collect(),
    }
}

/// Look-ups by hickory, with the configured servers or the host's.
pub struct Names {
    resolver: TokioResolver,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    /// Look-ups that remember answers for their ttl: for dialling. `tls` is for servers that are asked over it.
    ///
    /// # Errors
    /// [`NamesError::NoServers`] when none are given and the host's configuration has none.
    pub fn caching(servers: &[Server], tls: &rustls::ClientConfig) -> Result<Self, NamesError> {
        Self::with_cache(servers, tls, CACHE_ENTRIES)
    }

    /// Look-ups that ask every time: for the endpoint set, which keeps its own deadlines.
    ///
    /// # Errors
    /// [`NamesError::NoServers`] when none are given and the host's configuration has none.
    pub fn fresh(servers: &[Server], tls: &rustls::ClientConfig) -> Result<Self, NamesError> {
        Self::with_cache(servers, tls, 0)
    }

    /// Look-ups for agents, with a memory of their own: what they ask pushes nothing out of ours.
    ///
    /// # Errors
    /// [`NamesError::NoServers`] when none are given and the host's configuration has none.
    pub fn for_agents(servers: &[Server], tls: &rustls::ClientConfig) -> Result<Self, NamesError> {
        Self::with_cache(servers, tls, AGENTS_CACHE_ENTRIES)
    }

    /// The records of one type that a name has, aliases included.
    ///
    /// # Errors
    /// As the resolver says.
    pub async fn records(&self, name: Name, kind: RecordType) -> Result<Records, NetError> {
        self.resolver.lookup(name, kind).await
    }

    fn with_cache(
        servers: &[Server],
        tls: &rustls::ClientConfig,
        cache: u64,
    ) -> Result<Self, NamesError> {
        let no_servers = |error: NetError| NamesError::NoServers(Causes(&error).to_string());
        let config = if servers.is_empty() {
            system_servers().map_err(no_servers)?
        } else {
            ResolverConfig::from_name_servers(servers.iter().map(name_server).collect())
        };
        if config.name_servers().is_empty() {
            return Err(NamesError::NoServers("the list is empty".to_owned()));
        }
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_tls_config(tls.clone());
        let options: &mut ResolverOpts = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = QUERY_TIMEOUT;
        options.attempts = QUERY_RETRIES;
        options.cache_size = cache;
        options.edns0 = true;
        options.try_tcp_on_error = true;
        options.positive_max_ttl = Some(REMEMBERED_MAX);
        let resolver = builder.build().map_err(no_servers)?;
        Ok(Self { resolver })
    }
}

/// The host's servers, without its search list: a protected name is always complete.
fn system_servers() -> Result<ResolverConfig, NetError> {
    let (config, _) = system_conf::read_system_conf()?;
    Ok(ResolverConfig::from_name_servers(
        config.name_servers().to_vec(),
    ))
}

fn name_server(server: &Server) -> NameServerConfig {
    let mut connections = match &server.secured {
        Secured::No => vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
        Secured::Tls(name) => vec![ConnectionConfig::tls(name.as_str().into())],
        Secured::Https(name) => vec![ConnectionConfig::https(name.as_str().into(), None)],
    };
    for connection in &mut connections {
        connection.port = server.address.port();
    }
    NameServerConfig::new(server.address.ip(), true, connections)
}

#[async_trait]
impl Lookup for Names {
    async fn lookup(&self, name: &str, family: Family) -> Result<Answer, NamesError> {
        if let Ok(literal) = name.parse::<IpAddr>() {
            return Ok(literal_answer(literal, family));
        }
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let complete = format!("{}.", name.trim_end_matches('.'));
        match self.resolver.lookup(complete.as_str(), kind).await {
            Ok(found) => {
                let records = || found.answers().iter();
                let ttl = records().map(|record| record.ttl).min().unwrap_or(0);
                let addresses = records().filter_map(|record| record.data.ip_addr());
                usable(
                    name,
                    addresses.collect(),
                    Duration::from_secs(u64::from(ttl)),
                )
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                use hickory_resolver::proto::op::ResponseCode;
                // Only "no such name" and "no such record" are answers; a server that failed said nothing.
                if none.response_code != ResponseCode::NXDomain
                    && none.response_code != ResponseCode::NoError
                {
                    return Err(failed(name, &none.response_code));
                }
                let ttl = none.negative_ttl.map_or(NEGATIVE_TTL, |seconds| {
                    Duration::from_secs(u64::from(seconds))
                });
                Ok(Answer {
                    addresses: Vec::new(),
                    ttl,
                })
            }
            Err(error) => Err(failed(name, &error)),
        }
    }
}

fn failed(name: &str, why: &dyn std::fmt::Display) -> NamesError {
    NamesError::Failed {
        name: name.to_owned(),
        why: why.to_string(),
    }
}

fn literal_answer(literal: IpAddr, family: Family) -> Answer {
    let wanted = literal.is_ipv4() == (family == Family::V4);
    Answer {
        addresses: if wanted { vec![literal] } else { Vec::new() },
        ttl: NEGATIVE_TTL,
    }
}

/// Drops the addresses no public service has.
fn usable(name: &str, found: Vec<IpAddr>, ttl: Duration) -> Result<Answer, NamesError> {
    let had_any = !found.is_empty();
    let addresses: Vec<IpAddr> = found
        .into_iter()
        .map(|address| address.to_canonical())
        .filter(|address| match refused_address(*address) {
            None => true,
            Some(why) => {
                tracing::warn!(%name, %address, why, "DNS answer refused");
                false
            }
        })
        .collect();
    if had_any && addresses.is_empty() {
        return Err(NamesError::OnlyRefused {
            name: name.to_owned(),
        });
    }
    Ok(Answer { addresses, ttl })
}

/// Why an address in an answer is never believed (a rebinding attack, or a broken server); `None` when it may be.
/// Private addresses are fine: Private Service Connect uses them.
#[must_use]
pub fn refused_address(address: IpAddr) -> Option<&'static str> {
    let link_local_v6 = |v6: Ipv6Addr| v6.segments()[0] & 0xffc0 == 0xfe80;
    // EC2 and GCE serve credentials on unique-local addresses too.
    let metadata_v6 = |v6: Ipv6Addr| METADATA_SERVERS.contains(&IpAddr::V6(v6));
    let canonical = address.to_canonical();
    if canonical.is_unspecified() {
        return Some("unspecified");
    }
    if canonical.is_loopback() {
        return Some("loopback");
    }
    if canonical.is_multicast() {
        return Some("multicast");
    }
    match canonical {
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("unspecified"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("link-local"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("broadcast"),
        IpAddr::V6(v6) if link_local_v6(v6) => Some("link-local"),
        IpAddr::V6(v6) if metadata_v6(v6) => Some("metadata server"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}
