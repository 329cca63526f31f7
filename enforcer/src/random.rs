//! Random numbers that nobody can guess.

use enforcer_proto::refusal::{Code, Refusal};

/// The system gives no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The system gives no random numbers")]
pub(crate) struct NoRandom;

impl From<NoRandom> for Refusal {
    fn from(error: NoRandom) -> Self {
        Self::new(Code::UpstreamFailed, error.to_string())
    }
}

/// So many random bytes.
///
/// # Errors
/// [`NoRandom`].
pub(crate) fn bytes<const COUNT: usize>() -> Result<[u8; COUNT], NoRandom> {
    let mut random = [0; COUNT];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| NoRandom)?;
    Ok(random)
}
