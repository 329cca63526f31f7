//! The host's own identity, by gcp_auth. Its calls have no bound of their own, and one of its sources runs a program and waits for it without giving
//! way: so each call is made beside the runtime's own threads, in bounded time, and one at a time.
//! gcp_auth logs answers' bodies at WARN: telemetry must keep its target at ERROR.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gcp_auth::{
    ConfigDefaultCredentials, CustomServiceAccount, GCloudAuthorizedUser, MetadataServiceAccount,
    TokenProvider,
};
use secrecy::SecretString;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::{AccessToken, Endpoint, SCOPE_CLOUD_PLATFORM, TokenError};

/// The bound on one call.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The bound on asking whether this is a machine of Google's. Its metadata server is on the same machine; where none is, some networks say nothing.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);

/// Where a host's own identity comes from, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// A service account's key in the file that `GOOGLE_APPLICATION_CREDENTIALS` names.
    KeyFile,
    /// The application-default credentials of the user that the daemon runs as.
    ApplicationDefault,
    /// The metadata server of a machine of Google's.
    MetadataServer,
    /// Whoever is logged in to the Cloud SDK as that user.
    Gcloud,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyFile => "the key file that GOOGLE_APPLICATION_CREDENTIALS names",
            Self::ApplicationDefault => "application-default credentials",
            Self::MetadataServer => "the machine's metadata server",
            Self::Gcloud => "gcloud's login",
        })
    }
}

/// The host's own identity.
#[derive(Clone)]
pub struct BaseIdentity {
    provider: Arc<dyn TokenProvider>,
    /// One call at a time: a program that hangs holds one thread, and no more.
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
        Self {
            provider,
            one: Arc::new(Semaphore::new(1)),
        }
    }

    /// Finds the host's: the first of the sources that is there. One that is there and does not work is not passed over: the next would be somebody
    /// else.
    ///
    /// # Errors
    /// [`TokenError::NoBaseIdentity`] or [`TokenError::Timeout`].
    pub async fn find() -> Result<Self, TokenError> {
        for source in [
            Source::KeyFile,
            Source::ApplicationDefault,
            Source::MetadataServer,
            Source::Gcloud,
        ] {
            if let Some(provider) = source.look().await? {
                tracing::info!("this host's own identity is that of {source}");
                return Ok(Self::new(provider));
            }
        }
        Err(TokenError::NoBaseIdentity)
    }

    /// A token of it, which is shown to IAM Credentials only.
    pub(super) async fn token(&self) -> Result<AccessToken, TokenError> {
        let provider = Arc::clone(&self.provider);
        // The error is dropped: it can quote what the source answered.
        let token = aside(&self.one, TIMEOUT, async move {
            provider.token(&[SCOPE_CLOUD_PLATFORM]).await.ok()
        });
        let token = token.await?.ok_or(TokenError::NoBaseIdentity)?;
        AccessToken::new(SecretString::from(token.as_str())).ok_or(TokenError::Unusable {
            endpoint: Endpoint::Base,
            why: "its token cannot stand in a header",
        })
    }
}

type Found = Option<Arc<dyn TokenProvider>>;

impl Source {
    async fn look(self) -> Result<Found, TokenError> {
        let one = Arc::new(Semaphore::new(1));
        match self {
            Self::KeyFile => aside(&one, TIMEOUT, async { key_file() }).await?,
            Self::ApplicationDefault if default_file().is_some_and(|file| file.exists()) => {
                let found = aside(&one, TIMEOUT, ConfigDefaultCredentials::new()).await?;
                found
                    .map(|found| Some(Arc::new(found) as _))
                    .map_err(|_| TokenError::NoBaseIdentity)
            }
            Self::ApplicationDefault => Ok(None),
            // Whether there is one is only told by its answer.
            Self::MetadataServer => {
                let found = aside(&one, METADATA_TIMEOUT, MetadataServiceAccount::new()).await;
                let found = found.ok().and_then(Result::ok);
                Ok(found.map(|found| Arc::new(found) as _))
            }
            Self::Gcloud => {
                let found = aside(&one, TIMEOUT, GCloudAuthorizedUser::new()).await?;
                Ok(found.ok().map(|found| Arc::new(found) as _))
            }
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
