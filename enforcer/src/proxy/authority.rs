//! The host's certificate authority for what agents see: confined by critical name constraints to the protected
//! suffixes, so that its key, stolen, impersonates nothing else. It signs leaves by server name and keeps them for a day.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enforcer_proto::time::{NS_PER_S, Now};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::keyfile::{self, KeyFileError};

/// How long the authority's certificate lasts.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(30 * 86400);
/// It is made anew when less than this is left.
pub const AUTHORITY_MARGIN: Duration = Duration::from_secs(7 * 86400);
/// How long a leaf lasts.
pub const LEAF_LIFE: Duration = Duration::from_secs(86400);
/// A leaf is made anew when less than this is left.
pub const LEAF_MARGIN: Duration = Duration::from_secs(3600);
/// Certificates begin this long ago, for clients whose clock is behind.
pub const BACKDATE: Duration = Duration::from_secs(300);
/// Leaves kept at once; the one that expires first gives way.
pub const LEAVES_MAX: usize = 256;

/// What the authority needs to know.
#[derive(Debug, Clone)]
pub struct AuthorityOptions {
    /// Where `ca.pem` and `ca.key` are; private to the daemon.
    pub dir: PathBuf,
    /// The host's name, shown in the subject.
    pub host: String,
    /// The DNS subtrees it may sign for ([`crate::dns::protected::permitted_subtrees`]).
    pub permitted: Vec<String>,
}

/// An authority that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its files.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// No subtree was named: an authority without constraints is never made.
    #[error("the certificate authority needs at least one protected name")]
    Unconfined,
    /// The key library said no.
    #[error("making a certificate failed")]
    Make(#[source] rcgen::Error),
    /// The TLS library does not take what was made.
    #[error("the new certificate cannot be used")]
    Use(#[source] rustls::Error),
    /// The name is outside the constraints.
    #[error("`{0}` is not a name this authority may sign for")]
    Foreign(String),
}

/// The authority. Cheap to share; all its methods take `&self`.
pub struct Authority {
    options: AuthorityOptions,
    state: Mutex<State>,
}

struct State {
    certificate: CertificateDer<'static>,
    pem: String,
    not_after_s: u64,
    issuer: Issuer<'static, KeyPair>,
    leaves: BTreeMap<String, Leaf>,
}

struct Leaf {
    key: Arc<CertifiedKey>,
    not_before_s: u64,
    not_after_s: u64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Loads the authority, or makes one: when there is none, when it ends soon, when its constraints are not the
    /// ones asked for, or when certificate and key do not belong together.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn open(options: AuthorityOptions, now: Now) -> Result<Self, AuthorityError> {
        if options.permitted.is_empty() || options.permitted.iter().any(String::is_empty) {
            return Err(AuthorityError::Unconfined);
        }
        let state = match load(&options, now)? {
            Some(state) => state,
            None => make(&options, now)?,
        };
        Ok(Self {
            options,
            state: Mutex::new(state),
        })
    }

    /// Makes a new authority in place when the present one ends soon; true when it did. Clients must then be given
    /// the new certificate ([`Self::pem`]).
    ///
    /// # Errors
    /// [`AuthorityError`]; the present one stays in use.
    pub fn renew(&self, now: Now) -> Result<bool, AuthorityError> {
        let mut state = self.locked();
        if lasts(state.not_after_s, AUTHORITY_MARGIN, now) && !is_ahead(state.not_after_s, now) {
            return Ok(false);
        }
        *state = make(&self.options, now)?;
        Ok(true)
    }

    /// The certificate that clients trust, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.locked().pem.clone()
    }

    /// The certificate that clients trust, DER.
    #[must_use]
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.locked().certificate.clone()
    }

    /// The chain and key for one normalised name.
    ///
    /// # Errors
    /// [`AuthorityError::Foreign`] for a name outside the constraints; [`AuthorityError::Make`] or
    /// [`AuthorityError::Use`] when the libraries fail.
    pub fn leaf(&self, name: &str, now: Now) -> Result<Arc<CertifiedKey>, AuthorityError> {
        if !self.permits(name) {
            return Err(AuthorityError::Foreign(name.to_owned()));
        }
        let mut state = self.locked();
        if let Some(leaf) = state.leaves.get(name)
            && lasts(leaf.not_after_s, LEAF_MARGIN, now)
            && leaf.not_before_s <= unix_s(now)
        {
            return Ok(Arc::clone(&leaf.key));
        }
        let leaf = state.sign(name, now)?;
        let key = Arc::clone(&leaf.key);
        state.keep(name, leaf);
        Ok(key)
    }

    fn permits(&self, name: &str) -> bool {
        let below = |subtree: &String| {
            name.strip_suffix(subtree.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.options.permitted.iter().any(below)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sign(&self, name: &str, now: Now) -> Result<Leaf, AuthorityError> {
        // A leaf never outlives its issuer.
        let not_after_s = (unix_s(now) + LEAF_LIFE.as_secs()).min(self.not_after_s);
        let mut params =
            CertificateParams::new(vec![name.to_owned()]).map_err(AuthorityError::Make)?;
        last(&mut params, unix_s(now), not_after_s);
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(AuthorityError::Make)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(AuthorityError::Make)?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(
            vec![certificate.der().clone(), self.certificate.clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            &provider,
        )
        .map_err(AuthorityError::Use)?;
        Ok(Leaf {
            key: Arc::new(certified),
            not_before_s: begins_s(unix_s(now)),
            not_after_s,
        })
    }

    fn keep(&mut self, name: &str, leaf: Leaf) {
        if self.leaves.len() >= LEAVES_MAX && !self.leaves.contains_key(name) {
            let first = self.leaves.iter().min_by_key(|(_, leaf)| leaf.not_after_s);
            if let Some(first) = first.map(|(name, _)| name.clone()) {
                self.leaves.remove(&first);
            }
        }
        self.leaves.insert(name.to_owned(), leaf);
    }
}

fn certificate_path(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}

fn key_path(dir: &Path) -> PathBuf {
    dir.join("ca.key")
}

/// What is on disk, if it is whole, belongs together, lasts, and is confined as asked.
fn load(options: &AuthorityOptions, now: Now) -> Result<Option<State>, AuthorityError> {
    let Some(key_pem) = keyfile::read(&key_path(&options.dir))? else {
        return Ok(None);
    };
    let Some(pem) = keyfile::read(&certificate_path(&options.dir))? else {
        return Ok(None);
    };
    let (Ok(key), Ok(certificate)) = (
        KeyPair::from_pem(&key_pem),
        CertificateDer::from_pem_slice(pem.as_bytes()),
    ) else {
        tracing::warn!(dir = %options.dir.display(), "the certificate authority on disk is unreadable; a new one is made");
        return Ok(None);
    };
    let Some(not_after_s) = soundness(&certificate, &key, options) else {
        tracing::info!(
            "the certificate authority on disk is not the one the configuration asks for; a new one is made"
        );
        return Ok(None);
    };
    if !lasts(not_after_s, AUTHORITY_MARGIN, now) || is_ahead(not_after_s, now) {
        return Ok(None);
    }
    let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(AuthorityError::Make)?;
    Ok(Some(State {
        certificate,
        pem: pem.to_string(),
        not_after_s,
        issuer,
        leaves: BTreeMap::new(),
    }))
}

/// When the certificate ends, if it matches the key and is confined to exactly the subtrees asked for.
fn soundness(
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
    options: &AuthorityOptions,
) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return None;
    }
    let constraints = parsed.name_constraints().ok()??;
    let mut permitted: Vec<String> = Vec::new();
    for subtree in constraints.value.permitted_subtrees.as_ref()? {
        match &subtree.base {
            GeneralName::DNSName(name) => permitted.push((*name).to_owned()),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::URI(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_)
            | GeneralName::Invalid(..) => return None,
        }
    }
    let excluded = constraints.value.excluded_subtrees.as_ref()?.len();
    let sound = constraints.critical && excluded == 2 && permitted == options.permitted;
    sound.then(|| u64::try_from(parsed.validity().not_after.timestamp()).ok())?
}

/// Makes key and certificate and puts them on disk, the key first: a certificate without its key is never loaded.
fn make(options: &AuthorityOptions, now: Now) -> Result<State, AuthorityError> {
    let key = KeyPair::generate().map_err(AuthorityError::Make)?;
    let not_after_s = unix_s(now) + AUTHORITY_LIFE.as_secs();
    let params = params(options, now, not_after_s);
    let certificate = params.self_signed(&key).map_err(AuthorityError::Make)?;
    let key_pem = zeroize::Zeroizing::new(key.serialize_pem());
    keyfile::write(&key_path(&options.dir), &key_pem)?;
    keyfile::write(&certificate_path(&options.dir), &certificate.pem())?;
    Ok(State {
        certificate: certificate.der().clone(),
        pem: certificate.pem(),
        not_after_s,
        issuer: Issuer::new(params, key),
        leaves: BTreeMap::new(),
    })
}

fn params(options: &AuthorityOptions, now: Now, not_after_s: u64) -> CertificateParams {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Enforcer");
    // The time makes the subject unique: two authorities of one name confuse clients that trust both.
    let common = format!("Enforcer {} {}", options.host, unix_s(now));
    name.push(DnType::CommonName, common);
    let mut params = CertificateParams::default();
    last(&mut params, unix_s(now), not_after_s);
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let permitted = options.permitted.iter().cloned();
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: permitted.map(GeneralSubtree::DnsName).collect(),
        // A constraint on DNS names alone would leave certificates for addresses free.
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)),
        ],
    });
    params
}

const fn unix_s(now: Now) -> u64 {
    now.unix_ns / NS_PER_S
}

/// Whether an authority that ends then begins only later: it was made by a wall clock that has been set back since, and no client takes it.
const fn is_ahead(not_after_s: u64, now: Now) -> bool {
    not_after_s > unix_s(now) + AUTHORITY_LIFE.as_secs() + BACKDATE.as_secs()
}

fn lasts(not_after_s: u64, margin: Duration, now: Now) -> bool {
    not_after_s > unix_s(now).saturating_add(margin.as_secs())
}

/// Sets the validity, from a little before `from_s` until `until_s` (unix seconds).
fn last(params: &mut CertificateParams, from_s: u64, until_s: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(begins_s(from_s));
    params.not_after = epoch + Duration::from_secs(until_s);
}

/// When what is made at `from_s` begins to be valid.
const fn begins_s(from_s: u64) -> u64 {
    from_s.saturating_sub(BACKDATE.as_secs())
}

#[cfg(test)]
mod tests;
