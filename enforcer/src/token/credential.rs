//! What a request to Google carries to say who asks, and against whose quota. It cannot be printed.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::AccessToken;

/// The project whose quota is used, where it is not the one that Google takes by itself (Google's "System parameters").
const QUOTA_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");

/// A token, and against which project's quota it is used.
#[derive(Debug, Clone)]
pub struct Credential {
    authorization: HeaderValue,
    quota_project: Option<HeaderValue>,
}

impl Credential {
    /// What is carried with this token. The project's id is from the configuration, which holds none that cannot stand in a header.
    #[must_use]
    pub fn new(token: &AccessToken, quota_project: Option<&str>) -> Self {
        Self {
            authorization: token.bearer(),
            quota_project: quota_project.and_then(|project| HeaderValue::from_str(project).ok()),
        }
    }

    /// Sets the headers that say so, and no others: what is there by these names is not the client's to say.
    pub fn put(&self, headers: &mut HeaderMap) {
        headers.insert(AUTHORIZATION, self.authorization.clone());
        match &self.quota_project {
            Some(project) => headers.insert(QUOTA_PROJECT, project.clone()),
            None => headers.remove(QUOTA_PROJECT),
        };
    }

    /// The token's header, to look for it in what comes back.
    #[must_use]
    pub const fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn token() -> AccessToken {
        AccessToken::new(SecretString::from("ya29.secret")).expect("sound")
    }

    #[test]
    fn what_a_client_says_of_whose_quota_it_is_is_replaced_or_dropped() {
        for (configured, sent) in [(Some("billing"), Some("billing")), (None, None)] {
            let mut headers = HeaderMap::new();
            headers.insert(QUOTA_PROJECT, HeaderValue::from_static("the-clients"));
            headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer own"));
            Credential::new(&token(), configured).put(&mut headers);
            assert_eq!(headers[AUTHORIZATION], "Bearer ya29.secret");
            let project = headers.get(QUOTA_PROJECT);
            assert_eq!(project.map(|value| value.to_str().expect("text")), sent);
        }
    }

    #[test]
    fn it_cannot_be_printed() {
        let credential = Credential::new(&token(), None);
        assert!(!format!("{credential:?}").contains("secret"));
    }
}
