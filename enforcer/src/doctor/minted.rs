//! Tokens: one for each agent, for no dataset, and for datasets as a window would have it. They are shown to Google and to nobody else.

use std::time::Duration;

use enforcer_proto::check::{Link, Mark};
use enforcer_proto::time::NS_PER_S;

use super::cure::Cures;
use super::reach::{Place, Reached};
use super::{Doctor, Told, Who};
use crate::causes::Causes;
use crate::config::MinterKind;
use crate::token::{BEYOND_WINDOW, Credential, MintRequest, Minted, TokenError};

/// What is left of the window that a token is asked for. With what it outlives a window it is Google's shortest life of a service account's.
const WINDOW: Duration = Duration::from_secs(240);
/// What stands in claims where a window's token names the window, who approved it and why.
const NONE: &str = "none";
/// What the session of a token is named after.
const DOCTOR: &str = "doctor";
/// The longest life of a token that Google gives unasked, seconds.
const LIFE_S_MAX: u64 = 3600;
/// How much longer than asked a token may live without a word, seconds.
const LONGER_S: u64 = 60;

impl Doctor {
    /// A token for no dataset, in a credential; none where there is none.
    pub(super) async fn token(
        &self,
        who: &Who<'_>,
        (reached, has_key): (&Reached, bool),
        cures: &Cures<'_>,
        told: &mut Told,
    ) -> Option<Credential> {
        let of = who.to_string();
        if let Some(needs) = needs(who, reached, has_key) {
            let why = format!("it needs {needs}");
            told.not_tried(Link::Token, &of, &why).await;
            return None;
        }
        match self.mint(who, Vec::new()).await {
            Ok((minted, life_s)) => {
                let (mark, cure) = of_life(life_s);
                let said = format!(
                    "minted by {}, for {}, lives {life_s} s where {} s were asked for",
                    by(who.minter),
                    minted.principal,
                    asked_s()
                );
                told.say(mark, Link::Token, &of, &said, cure).await;
                Some(Credential::new(&minted.token, who.quota_project))
            }
            Err(error) => {
                let said = format!("{}: {}", cures.class(&error), Causes(&error));
                let cure = cures.of_token(&error, who);
                told.fail(Link::Token, &of, &said, &cure).await;
                None
            }
        }
    }

    /// A token for these datasets, and how long it lives, seconds.
    pub(super) async fn mint(
        &self,
        who: &Who<'_>,
        datasets: Vec<String>,
    ) -> Result<(Minted, u64), TokenError> {
        let now = self.ways.clock.now();
        let request = MintRequest {
            bearer: who.bearer,
            agent: who.name.to_string(),
            host: self.config.host.clone(),
            grant: NONE.to_owned(),
            session: format!("{}-{DOCTOR}-{}", self.config.host, now.unix_ns),
            datasets,
            writable: Vec::new(),
            approver: NONE.to_owned(),
            reason_digest: None,
            minter: who.minter,
            service_account: who.account.map(str::to_owned),
            remaining: WINDOW,
            now,
        };
        let minted = self.ways.minter.mint(&request).await?;
        let life_s = minted.expires_boot_ns.saturating_sub(now.boot_ns) / NS_PER_S;
        Ok((minted, life_s))
    }
}

/// What a token needs that is not there.
fn needs(who: &Who<'_>, reached: &Reached, has_key: bool) -> Option<&'static str> {
    match who.minter {
        MinterKind::Federation if !has_key => return Some("the issuer's key"),
        MinterKind::Federation if !reached.has(Place::Sts) => {
            return Some("the security token service");
        }
        MinterKind::Federation | MinterKind::Impersonation => {}
    }
    let needs_iam = who.account.is_some() && !reached.has(Place::IamCredentials);
    needs_iam.then_some("IAM Credentials")
}

const fn asked_s() -> u64 {
    WINDOW.as_secs() + BEYOND_WINDOW.as_secs()
}

const fn by(kind: MinterKind) -> &'static str {
    match kind {
        MinterKind::Federation => "federation",
        MinterKind::Impersonation => "impersonation",
    }
}

/// What there is to say of a token that lives so long.
fn of_life(life_s: u64) -> (Mark, Option<&'static str>) {
    if life_s < BEYOND_WINDOW.as_secs() {
        let cure = "look at this host's clock, and at what bounds the life of tokens in your organisation: jobs could not be cancelled when a window closes";
        return (Mark::Fail, Some(cure));
    }
    if life_s > LIFE_S_MAX {
        let cure =
            "look at who answers as Google's token service: no window's token may live that long";
        return (Mark::Fail, Some(cure));
    }
    if life_s > asked_s() + LONGER_S {
        let cure = "nothing needs to be done: no agent ever has it, and this host uses none past its window";
        return (Mark::Note, Some(cure));
    }
    (Mark::Ok, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_told_by_its_bounds() {
        for (life_s, mark) in [
            (59, Mark::Fail),
            (60, Mark::Ok),
            (360, Mark::Ok),
            (361, Mark::Note),
            (3600, Mark::Note),
            (3601, Mark::Fail),
        ] {
            assert_eq!(of_life(life_s).0, mark, "{life_s}");
        }
    }
}
