//! The names BigQuery answers to, how a name is normalised, and what may be concluded from it. Pure text.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use crate::config::AddressClass;

/// Regions with a `bigquery.REGION.rep.googleapis.com` endpoint, from the API's discovery document; the storage API has its own beside it.
const REP_REGIONS: [&str; 24] = [
    "asia-south1",
    "asia-south2",
    "europe-west1",
    "europe-west2",
    "europe-west3",
    "europe-west4",
    "europe-west6",
    "europe-west8",
    "europe-west9",
    "me-central2",
    "northamerica-northeast1",
    "northamerica-northeast2",
    "us-central1",
    "us-central2",
    "us-east1",
    "us-east4",
    "us-east5",
    "us-east7",
    "us-south1",
    "us-west1",
    "us-west2",
    "us-west3",
    "us-west4",
    "us-west8",
];
/// Names that are not made from a region, below the universe's domain.
const GLOBAL: [&str; 9] = [
    "bigquery",
    "bigquery.mtls",
    "bigquerystorage",
    "bigquerystorage.mtls",
    "content-bigquery",
    "content",
    "www",
    "private",
    "restricted",
];
/// The domain of Google's services, of most customers.
const GOOGLE: &str = "googleapis.com";

/// The domain below which Google's services answer: `googleapis.com`, or that of a cloud of its own that a partner of Google's runs ("universe domain" in
/// the clients' configuration). Normalised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Universe(String);

impl Default for Universe {
    fn default() -> Self {
        Self(GOOGLE.to_owned())
    }
}

impl Universe {
    /// The universe of this domain; `None` when it is no DNS name of at least two labels.
    #[must_use]
    pub fn named(domain: &str) -> Option<Self> {
        normalise(domain)
            .filter(|name| name.contains('.'))
            .map(Self)
    }

    /// Its domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.0
    }

    /// Whether it is the one of most customers.
    #[must_use]
    pub fn is_googles(&self) -> bool {
        self.0 == GOOGLE
    }

    /// The name of a service there.
    #[must_use]
    pub fn name(&self, service: &str) -> String {
        format!("{service}.{}", self.0)
    }

    /// What of a name stands before the domain; `None` where it lies elsewhere.
    fn before<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_suffix(&self.0)?.strip_suffix('.')
    }

    /// The same of this domain, and of Google's own: its services can be reached from everywhere.
    fn before_any<'n>(&self, name: &'n str) -> Option<&'n str> {
        self.before(name)
            .or_else(|| Self::default().before(name))
            .or_else(|| name.strip_suffix(".google.com"))
    }
}

/// The names of the addresses at which Google serves all its services to hosts without a way to the internet (Private Google Access). Hosts
/// that use them have every name of Google's lead to one of these.
pub const VIP_NAMES: [&str; 2] = ["private.googleapis.com", "restricted.googleapis.com"];
/// Those addresses, and the ones that clients on Google's own machines are led to past the front ends (direct connectivity), as Google's
/// "Configure Private Google Access" gives them: `private.`, `restricted.`, direct; protected on every host, whatever DNS says.
const VIPS: [IpNet; 6] = [
    v4(199, 36, 153, 8, 30),
    v6([0x2600, 0x2d00, 2, 0x2000], 56),
    v4(199, 36, 153, 4, 30),
    v6([0x2600, 0x2d00, 2, 0x1000], 56),
    v4(34, 126, 0, 0, 18),
    v6([0x2001, 0x4860, 0x8040, 0], 42),
];

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits))
}

const fn v6(begins: [u16; 4], bits: u8) -> IpNet {
    let [a, b, c, d] = begins;
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0),
        bits,
    ))
}

/// The addresses at which Google serves everything, beside its front ends'. Those of which the operator says something are as is said.
pub fn vips(said: &[(IpNet, AddressClass)]) -> impl Iterator<Item = (IpNet, AddressClass)> {
    let is_left = |vip: &IpNet| !said.iter().any(|(net, _)| net.contains(vip));
    let left = VIPS.into_iter().filter(is_left);
    left.map(|net| (net, AddressClass::Shared))
}
/// Services beside BigQuery that run its statements, read its tables, or say who may: each under `googleapis.com` and `mtls.googleapis.com`.
pub const NEIGHBOURS: [&str; 7] = [
    "analyticshub",
    "biglake",
    "bigqueryconnection",
    "bigquerydatapolicy",
    "bigquerydatatransfer",
    "bigquerymigration",
    "bigqueryreservation",
];
const STORAGE: &str = "bigquerystorage";

/// What answers at a protected name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// BigQuery's own API.
    Api,
    /// Its storage API, which is spoken by gRPC.
    Storage,
    /// Another service, which reaches BigQuery's data by itself.
    Neighbour,
}

/// What answers at a protected name, normalised, by its letters, in whichever domain it lies.
#[must_use]
pub fn service(name: &str) -> Service {
    if NEIGHBOURS.iter().any(|neighbour| name.contains(neighbour)) {
        Service::Neighbour
    } else if name.contains(STORAGE) {
        Service::Storage
    } else {
        Service::Api
    }
}

/// The name at which BigQuery's own API answers, beside a name of its storage API.
#[must_use]
pub fn api_beside(name: &str) -> String {
    name.replacen(STORAGE, "bigquery", 1)
}

/// The longest DNS name, in characters without the trailing dot.
const NAME_CHARS_MAX: usize = 253;

/// The built-in list: global, mutual-TLS, regional and locational names of BigQuery, its storage API, the legacy host, and its neighbours.
#[must_use]
pub fn protected_default(universe: &Universe) -> Vec<String> {
    let domain = universe.domain();
    let regional = REP_REGIONS.iter().flat_map(|region| {
        [
            format!("bigquery.{region}.rep.{domain}"),
            format!("bigquery.{region}.rep.mtls.{domain}"),
            format!("{region}-bigquery.{domain}"),
            format!("{STORAGE}.{region}.rep.{domain}"),
            format!("{STORAGE}.{region}.rep.mtls.{domain}"),
        ]
    });
    let neighbours = NEIGHBOURS
        .iter()
        .flat_map(|name| ["", "mtls."].map(|mtls| format!("{name}.{mtls}{domain}")));
    let global = GLOBAL.iter().map(|name| universe.name(name));
    global.chain(neighbours).chain(regional).collect()
}

/// A name in the one form everything compares: lower case, without the trailing dot. `None` when it is no host name.
#[must_use]
pub fn normalise(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label_is_sound = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    (name.len() <= NAME_CHARS_MAX && name.split('.').all(label_is_sound))
        .then(|| name.to_ascii_lowercase())
}

/// Whether a normalised name is BigQuery's by its letters, or is built in: an operator's shorter list of protected names, or a region that
/// is newer than the built-in one, must not let a name of BigQuery's pass for just another one of Google's.
#[must_use]
pub fn is_bigquerys(name: &str, universe: &Universe) -> bool {
    VIP_NAMES.contains(&name)
        || universe.before_any(name).is_some_and(|rest| {
            rest.contains("bigquery") || NEIGHBOURS.iter().any(|neighbour| rest.contains(neighbour))
        })
}

/// What the addresses of a protected name answer for. A universe's front ends serve every API of Google's there;
/// Private Service Connect names and the operator's own are BigQuery's alone.
#[must_use]
pub fn class_of(name: &str, universe: &Universe) -> AddressClass {
    let googles = Universe::default();
    let rest = universe.before(name).or_else(|| googles.before(name));
    if rest.is_some_and(|rest| rest != "p" && !rest.ends_with(".p")) {
        AddressClass::Shared
    } else {
        AddressClass::Dedicated
    }
}

/// The DNS subtrees a certificate authority for these names must be confined to.
#[must_use]
pub fn permitted_subtrees(names: &[String], universe: &Universe) -> Vec<String> {
    let googles = Universe::default();
    let subtree = |name: &String| {
        let of = |universe: &Universe| universe.before(name).map(|_| universe.domain().to_owned());
        of(universe)
            .or_else(|| of(&googles))
            .unwrap_or_else(|| name.clone())
    };
    let set: BTreeSet<String> = names.iter().map(subtree).collect();
    set.into_iter().collect()
}
