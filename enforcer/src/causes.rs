//! One rule for errors: an error's own text says what was tried and never repeats its source; whoever prints it prints all its causes.
//! For `anyhow` that is `{:#}`, for every other error [`Causes`].

use std::error::Error;
use std::fmt;

/// Prints an error and its causes on one line, `what: why: why`.
#[derive(Debug, Clone, Copy)]
pub struct Causes<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Libraries do not all keep to the rule: what is said already is not said again.
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::*;
    use crate::audit::{AuditError, ReadError};
    use crate::config::ConfigError;
    use crate::control::LinkError;
    use crate::engine::{KernelFault, StartError};
    use crate::kernel::KernelError;
    use crate::keyfile::KeyFileError;
    use crate::proxy::authority::AuthorityError;
    use crate::proxy::tls::TlsRefusal;
    use crate::token::{Endpoint, IssuerError, TokenError};
    use crate::upstream::UpstreamError;

    const CAUSE: &str = "the innermost cause";

    fn cause() -> io::Error {
        io::Error::other(CAUSE)
    }

    fn key_file() -> KeyFileError {
        KeyFileError::Io {
            doing: "read",
            path: PathBuf::from("/k"),
            source: cause(),
        }
    }

    fn connect() -> UpstreamError {
        UpstreamError::Connect {
            host: "h".to_owned(),
            source: cause(),
        }
    }

    fn with_a_cause() -> Vec<anyhow::Error> {
        let path = PathBuf::from("/f");
        let audit = AuditError::Io {
            action: "write",
            path: path.clone(),
            source: cause(),
        };
        vec![
            key_file().into(),
            IssuerError::from(key_file()).into(),
            AuthorityError::from(key_file()).into(),
            StartError::from(audit).into(),
            StartError::from(KernelFault(CAUSE.to_owned())).into(),
            StartError::Thread(cause()).into(),
            ReadError::Io {
                dir: path.clone(),
                source: cause(),
            }
            .into(),
            ConfigError::Unreadable {
                path,
                source: cause(),
            }
            .into(),
            LinkError::from(cause()).into(),
            KernelError::Io {
                action: "attach".to_owned(),
                source: cause(),
            }
            .into(),
            TlsRefusal::Unreadable(cause()).into(),
            connect().into(),
            TokenError::Unreachable {
                endpoint: Endpoint::Sts,
                source: std::sync::Arc::new(connect()),
            }
            .into(),
        ]
    }

    #[test]
    fn every_cause_is_printed_exactly_once_by_anyhow_and_by_causes() {
        for error in with_a_cause() {
            for text in [format!("{error:#}"), Causes(error.as_ref()).to_string()] {
                assert_eq!(text.matches(CAUSE).count(), 1, "{text}");
                assert!(text.ends_with(CAUSE), "{text}");
            }
        }
    }

    #[test]
    fn a_library_that_repeats_its_cause_is_not_echoed() {
        #[derive(Debug, thiserror::Error)]
        #[error("it failed: {0}")]
        struct Repeats(#[source] io::Error);
        assert_eq!(
            Causes(&Repeats(cause())).to_string(),
            format!("it failed: {CAUSE}")
        );
    }
}
