//! The names BigQuery answers to, how a name is normalised, and what may be concluded from it. Pure text.

use std::collections::BTreeSet;

use crate::config::AddressClass;

/// Regions with a `bigquery.REGION.rep.googleapis.com` endpoint, from the API's discovery document.
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
/// Names that are not made from a region.
const GLOBAL: [&str; 7] = [
    "bigquery.googleapis.com",
    "bigquery.mtls.googleapis.com",
    "bigquerystorage.googleapis.com",
    "bigquerystorage.mtls.googleapis.com",
    "content-bigquery.googleapis.com",
    "content.googleapis.com",
    "www.googleapis.com",
];
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

/// What answers at a protected name, normalised, by its letters.
#[must_use]
pub fn service(name: &str) -> Service {
    let Some(rest) = name.strip_suffix(".googleapis.com") else {
        return Service::Api;
    };
    if NEIGHBOURS.iter().any(|neighbour| rest.contains(neighbour)) {
        Service::Neighbour
    } else if rest.contains(STORAGE) {
        Service::Storage
    } else {
        Service::Api
    }
}

/// The longest DNS name, in characters without the trailing dot.
const NAME_CHARS_MAX: usize = 253;

/// The built-in list: global, mutual-TLS, regional and locational names of BigQuery, its storage API, the legacy host, and its neighbours.
#[must_use]
pub fn protected_default() -> Vec<String> {
    let regional = REP_REGIONS.iter().flat_map(|region| {
        [
            format!("bigquery.{region}.rep.googleapis.com"),
            format!("bigquery.{region}.rep.mtls.googleapis.com"),
            format!("{region}-bigquery.googleapis.com"),
        ]
    });
    let neighbours = NEIGHBOURS
        .iter()
        .flat_map(|name| ["", "mtls."].map(|mtls| format!("{name}.{mtls}googleapis.com")));
    GLOBAL
        .iter()
        .map(|name| (*name).to_owned())
        .chain(neighbours)
        .chain(regional)
        .collect()
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
pub fn is_bigquerys(name: &str) -> bool {
    let in_google = name
        .strip_suffix(".googleapis.com")
        .or_else(|| name.strip_suffix(".google.com"));
    in_google.is_some_and(|rest| {
        rest.contains("bigquery") || NEIGHBOURS.iter().any(|neighbour| rest.contains(neighbour))
    })
}

/// What the addresses of a protected name answer for. The default domain's front ends serve every Google API;
/// Private Service Connect names and the operator's own are BigQuery's alone.
#[must_use]
pub fn class_of(name: &str) -> AddressClass {
    let in_google = name.ends_with(".googleapis.com");
    if in_google && !name.ends_with(".p.googleapis.com") {
        AddressClass::Shared
    } else {
        AddressClass::Dedicated
    }
}

/// The DNS subtrees a certificate authority for these names must be confined to.
#[must_use]
pub fn permitted_subtrees(names: &[String]) -> Vec<String> {
    let subtree = |name: &String| {
        if name.ends_with(".googleapis.com") {
            "googleapis.com".to_owned()
        } else {
            name.clone()
        }
    };
    let set: BTreeSet<String> = names.iter().map(subtree).collect();
    set.into_iter().collect()
}
