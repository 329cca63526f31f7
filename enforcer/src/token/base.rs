//! The host's own identity, by gcp_auth, and by the Cloud SDK's own program. gcp_auth's calls have no bound of their own: so each call is made beside the
//! runtime's own threads, in bounded time, and one at a time.
//! gcp_auth logs answers' bodies at WARN: telemetry must keep its target at ERROR.

mod gcloud;
mod metadata;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gcp_auth::{
    ConfigDefaultCredentials, CustomServiceAccount, MetadataServiceAccount, TokenProvider,
};
use secrecy::SecretString;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore};

use self::gcloud::Gcloud;
use super::{AccessToken, Endpoint, SCOPE_CLOUD_PLATFORM, TokenError};
use crate::config::BaseSource;

/// The bound on one call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The order in which sources are tried where none is named.
const WALK: [BaseSource; 4] = [
    BaseSource::KeyFile,
    BaseSource::ApplicationDefault,
    BaseSource::Metadata,
    BaseSource::Gcloud,
];

/// The host's own identity.
#[derive(Clone)]
pub struct BaseIdentity {
    /// What gives its tokens, and holds the last one. Held for as long as another is made in its place.
    provider: Arc<Mutex<Arc<dyn TokenProvider>>>,
    /// Where it was found; none of one that was given.
    from: Option<Place>,
    /// One call at a time: one that hangs holds one thread, and no more.
    one: Arc<Semaphore>,
}

impl fmt::Debug for BaseIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BaseIdentity").finish_non_exhaustive()
    }
}

impl BaseIdentity {
    /// The identity that this gives tokens of.
    #[must_use]
    pub fn new(provider: Arc<dyn TokenProvider>) -> Self {
        Self::of(provider, None)
    }

    fn of(provider: Arc<dyn TokenProvider>, from: Option<Place>) -> Self {
        Self {
            provider: Arc::new(Mutex::new(provider)),
            from,
            one: Arc::new(Semaphore::new(1)),
        }
    }

    /// Finds the host's: of the source that is `named`, or else of the first that is there. One that is there and does not work is not passed over: the
    /// next would be somebody else. Programs are run in cgroups of their own in `helpers`.
    ///
    /// # Errors
    /// Why there is none: [`TokenError`].
    pub async fn find(named: Option<BaseSource>, helpers: &Path) -> Result<Self, TokenError> {
        let one = named.as_slice();
        let tried = if one.is_empty() { &WALK[..] } else { one };
        for source in tried {
            let place = Place {
                source: *source,
                is_named: named.is_some(),
                helpers: helpers.to_owned(),
            };
            if let Some(provider) = place.look().await? {
                tracing::info!("this host's own identity is that of {source}");
                return Ok(Self::of(provider, Some(place)));
            }
        }
        Err(named.map_or(TokenError::NoBaseIdentity, TokenError::BaseNotThere))
    }

    /// A token of it, which is shown to IAM Credentials only.
    pub(super) async fn token(&self) -> Result<AccessToken, TokenError> {
        let provider = Arc::clone(&*self.provider.lock().await);
        self.token_of(provider).await
    }

    /// Another token of it, since IAM Credentials does not take this one: what is held is forgotten, and the source asked once more. None where it
    /// cannot be asked.
    pub(super) async fn instead_of(
        &self,
        refused: &AccessToken,
    ) -> Result<Option<AccessToken>, TokenError> {
        let Some(from) = &self.from else {
            return Ok(None);
        };
        let mut provider = self.provider.lock().await;
        // Who waited for it may find another there already.
        let held = self.token_of(Arc::clone(&provider)).await?;
        if held.expose() != refused.expose() {
            return Ok(Some(held));
        }
        *provider = from.look().await?.ok_or(TokenError::NoBaseIdentity)?;
        self.token_of(Arc::clone(&provider)).await.map(Some)
    }

    async fn token_of(&self, provider: Arc<dyn TokenProvider>) -> Result<AccessToken, TokenError> {
        let limit = self.from.as_ref().map_or(TIMEOUT, Place::limit);
        // The error is dropped: it can quote what the source answered.
        let token = aside(&self.one, limit, async move {
            provider.token(&[SCOPE_CLOUD_PLATFORM]).await.ok()
        });
        let failed = || {
            self.from
                .as_ref()
                .map_or(TokenError::NoBaseIdentity, Place::failed)
        };
        let token = token.await?.ok_or_else(failed)?;
        AccessToken::new(SecretString::from(token.as_str())).ok_or(TokenError::Unusable {
            endpoint: Endpoint::Base,
            why: "its token cannot stand in a header",
        })
    }
}

type Found = Option<Arc<dyn TokenProvider>>;

/// A source on this host.
#[derive(Debug, Clone)]
struct Place {
    source: BaseSource,
    /// Whether the configuration names it: then it is there, or should be.
    is_named: bool,
    helpers: PathBuf,
}

impl Place {
    async fn look(&self) -> Result<Found, TokenError> {
        let one = Arc::new(Semaphore::new(1));
        match self.source {
            BaseSource::KeyFile => aside(&one, TIMEOUT, async { key_file() }).await?,
            BaseSource::ApplicationDefault if default_file().is_some_and(|file| file.exists()) => {
                let found = aside(&one, TIMEOUT, ConfigDefaultCredentials::new()).await?;
                found
                    .map(|found| Some(Arc::new(found) as _))
                    .map_err(|_| self.failed())
            }
            BaseSource::ApplicationDefault => Ok(None),
            BaseSource::Metadata if !self.is_named && !metadata::is_there().await? => Ok(None),
            BaseSource::Metadata => {
                let found = aside(&one, TIMEOUT, MetadataServiceAccount::new()).await?;
                found
                    .map(|found| Some(Arc::new(found) as _))
                    .map_err(|_| self.failed())
            }
            BaseSource::Gcloud => {
                let Some(gcloud) = Gcloud::find(&self.helpers) else {
                    return Ok(None);
                };
                let gcloud: Arc<dyn TokenProvider> = Arc::new(gcloud);
                let own = Arc::clone(&gcloud);
                let logged_in = aside(&one, self.limit(), async move { own.token(&[]).await });
                logged_in.await?.map_err(|_| self.failed())?;
                Ok(Some(gcloud))
            }
        }
    }

    const fn limit(&self) -> Duration {
        match self.source {
            BaseSource::KeyFile | BaseSource::ApplicationDefault | BaseSource::Metadata => TIMEOUT,
            BaseSource::Gcloud => gcloud::TIMEOUT,
        }
    }

    /// It is there, and gives no token.
    const fn failed(&self) -> TokenError {
        match self.source {
            BaseSource::KeyFile | BaseSource::ApplicationDefault | BaseSource::Gcloud => {
                TokenError::NoBaseIdentity
            }
            BaseSource::Metadata => TokenError::Unusable {
                endpoint: Endpoint::Base,
                why: "the machine's metadata server is there and gives no token",
            },
        }
    }
}

fn key_file() -> Result<Found, TokenError> {
    let found = CustomServiceAccount::from_env().map_err(|_| TokenError::NoBaseIdentity)?;
    Ok(found.map(|found| Arc::new(found) as _))
}

/// Where the Cloud SDK keeps application-default credentials, and gcp_auth looks for them.
fn default_file() -> Option<PathBuf> {
    let home = std::env::home_dir()?;
    Some(home.join(".config/gcloud/application_default_credentials.json"))
}

/// Does this beside the runtime's own threads, alone, and waits no longer than `limit` for its turn and its end.
async fn aside<T: Send + 'static>(
    one: &Arc<Semaphore>,
    limit: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, TokenError> {
    let one = Arc::clone(one);
    let runtime = Handle::current();
    let done = async move {
        let turn = one.acquire_owned().await.ok()?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            // What gives way ends here, also when nobody waits for it any more.
            runtime.block_on(tokio::time::timeout(limit, work)).ok()
        });
        done.await.ok().flatten()
    };
    let done = tokio::time::timeout(limit, done).await;
    done.ok().flatten().ok_or(TokenError::Timeout {
        endpoint: Endpoint::Base,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use async_trait::async_trait;

    use super::*;

    /// Runs a program that hangs, and does not give way to anybody meanwhile.
    struct Hangs(std::sync::Mutex<mpsc::Receiver<()>>);

    #[async_trait]
    impl TokenProvider for Hangs {
        async fn token(&self, _: &[&str]) -> Result<Arc<gcp_auth::Token>, gcp_auth::Error> {
            let until = self.0.lock().expect("one at a time");
            let _ = until.recv();
            Err(gcp_auth::Error::Str("ended"))
        }

        async fn project_id(&self) -> Result<Arc<str>, gcp_auth::Error> {
            Err(gcp_auth::Error::Str("none"))
        }
    }

    #[tokio::test]
    async fn a_source_that_never_gives_way_holds_up_nobody_and_costs_one_thread() {
        let (end, until) = mpsc::channel();
        let hangs: Arc<dyn TokenProvider> = Arc::new(Hangs(std::sync::Mutex::new(until)));
        let one = Arc::new(Semaphore::new(1));
        let ask = || {
            let hangs = Arc::clone(&hangs);
            let limit = Duration::from_millis(20);
            aside(&one, limit, async move { hangs.token(&[]).await.is_ok() })
        };
        for _ in 0..3 {
            assert!(matches!(ask().await, Err(TokenError::Timeout { .. })));
        }
        // It was asked once: it has its turn still.
        assert_eq!(one.available_permits(), 0);
        drop(end);
        let turn = Arc::clone(&one).acquire_owned().await;
        drop(turn);
        assert!(matches!(ask().await, Ok(false)), "it fails at once now");
        let pending = aside(
            &one,
            Duration::from_millis(20),
            std::future::pending::<()>(),
        );
        assert!(matches!(pending.await, Err(TokenError::Timeout { .. })));
        assert!(matches!(ask().await, Ok(false)), "what gives way is ended");
    }
}
