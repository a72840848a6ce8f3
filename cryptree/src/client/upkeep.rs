//! What an account needs now and then (Spec: 10 §4, 11 §2.4, 21 §6 steps 8 to 10): a claim that does not expire and names
//! the home by its present id, a mirror token, its own key in its list of keys.

use champ::{
    Cid,
    access::{Bat, BatWithId},
};
use pki::{
    chain::{ClaimChain, Learned},
    claim::{default_expiry, is_due_for_renewal},
    signed::{SignedRequest, SignedTime},
};

use super::{
    Session,
    home_identity::{HomeIdentity, Present},
};
use crate::error::{ClientError, Misbehavior};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Upkeep {
    /// The claim to the name would have expired within a month, and runs for two now.
    pub renewed_claim: bool,
    /// Whether the home in the claim goes by another identity now.
    pub home: HomeIdentity,
    /// The account had no token for mirrors of its data; sessions that start from now on write with one.
    pub made_mirror_token: bool,
    /// The account's own claim was added to its list of keys, which exists once it has been used.
    pub noted_own_key: bool,
}

impl Session {
    /// Checks the account's own claim to its name, renews it when it is due, and makes what is missing.
    ///
    /// Meant for after signing in with a password; an account that is only looked at does without.
    ///
    /// # Errors
    /// [`Misbehavior::IdentityMismatch`] when the node says that somebody else holds the name,
    /// [`Misbehavior::BadClaimChain`], [`ClientError::KeyChanged`]; and those of writing.
    pub async fn upkeep(&self) -> Result<Upkeep, ClientError> {
        let account = &self.account;
        let name = &account.name;
        let bad = || Misbehavior::BadClaimChain {
            name: name.to_string(),
        };
        let mut chain = account.api().chain(name).await?;
        let keys = account.owner_keys(&chain).await;
        chain.valid(name, &keys).map_err(|_| bad())?;
        if chain.identity() != Some(account.owner()) {
            return Err(Misbehavior::IdentityMismatch {
                name: name.to_string(),
            }
            .into());
        }
        let mut done = Upkeep::default();
        if account.mirror_bats.is_empty() {
            self.make_mirror_token().await?;
            done.made_mirror_token = true;
        }
        let now = account.now().epoch_seconds();
        let last = chain.last().ok_or_else(bad)?;
        let home = chain.home().ok_or_else(bad)?.clone();
        let is_due = is_due_for_renewal(last.claim.expiry, now);
        let present = self.present_id(&home).await?;
        if let Present::Unproven(reason) = present {
            done.home = HomeIdentity::Unproven(reason);
        }
        let provider = match present {
            Present::Now(id) => Some(id),
            Present::Same | Present::Unproven(_) => None,
        };
        if (is_due || provider.is_some())
            && let Some(renewed) = self.renewed(&chain, provider.as_ref(), now).await?
        {
            chain = renewed;
            done.renewed_claim = is_due;
            if provider.is_some() {
                done.home = HomeIdentity::Renewed;
            }
        }
        // The list is made at its first use, which is another user's key.
        if self.knows_keys().await? {
            done.noted_own_key = self.learn(name, &chain).await? != Learned::Nothing;
        }
        Ok(done)
    }

    /// Claims the name for two more months, on the same server or on `provider`; `None` when the registrar wants work
    /// for it.
    async fn renewed(
        &self,
        chain: &ClaimChain,
        provider: Option<&Cid>,
        now: i64,
    ) -> Result<Option<ClaimChain>, ClientError> {
        let account = &self.account;
        let name = &account.name;
        let failed = |_| ClientError::Internal("the claim could not be signed");
        let bad = || Misbehavior::BadClaimChain {
            name: name.to_string(),
        };
        let last = chain.last().ok_or_else(bad)?;
        let provider = provider.or(chain.home()).ok_or_else(bad)?;
        // A claim never ends before the one it replaces.
        let expiry = default_expiry(now).max(last.claim.expiry);
        let renewed = chain
            .with_last_claim(name, expiry, provider.clone(), account.identity.secret())
            .map_err(failed)?;
        match account.api().update_chain(name, &renewed).await {
            Ok(is_accepted) => Ok(is_accepted.then_some(renewed)),
            Err(error @ ClientError::Refused { .. }) => {
                // Another device may have done the same at the same time.
                let there = account.api().chain(name).await?;
                let is_done = there != *chain
                    && there.identity() == Some(account.owner())
                    && there.home() == Some(provider);
                is_done.then_some(Some(there)).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn make_mirror_token(&self) -> Result<(), ClientError> {
        let account = &self.account;
        let secret = Bat::random(&mut *account.random());
        let token = BatWithId {
            id: secret.secret_hash_id(),
            bat: secret,
        };
        let request = SignedRequest {
            path: "peergos/v0/bats/addBat".to_owned(),
            time: SignedTime::at(account.environment().now()),
        };
        let auth = request.sign(account.identity.secret());
        account
            .api()
            .add_mirror_bat(&account.name, &token, &auth)
            .await
    }
}
