//! Keeping copies of an account at other nodes, and changing its home (Spec: 12 §5, §7).
//!
//! Where an account lives is what its owner's key says, so both a move and the rescue of an account whose home is lost
//! begin with a claim signed here. Capabilities do not name a node: what was shared goes on working.

use champ::{Cid, cbor::Record as _};
use pki::{
    chain::ClaimChain,
    proof_of_work::ProofOfWork,
    signed::SignedTime,
    wire::{
        login_data::{LoginData, OpaqueCipherText},
        mirror::{FROM_THE_BEGINNING, MigrateRequest, MirrorRequest},
    },
};

use super::{Client, Session, keeper::Keeper};
use crate::{
    error::{ClientError, Misbehavior},
    login::UserStaticData,
};

/// What became of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// The account lives at the node of this session now.
    Done {
        /// Where it lived.
        from: Cid,
        /// Second factors that were asked for there and are not here.
        lost_factors: usize,
    },
    /// It lived there already.
    WasHere,
}

impl Session {
    /// Permits the node that `mirror` talks to to keep a copy of everything, in ciphertext, and brings the login data
    /// there, so that the account can be restored from it. The node's operator must have given the account space.
    ///
    /// The password seals the login data; it does not leave this program.
    ///
    /// # Errors
    /// [`ClientError::WrongCredentials`]; [`ClientError::BadSession`] when another device has replaced the keys that this
    /// session has; [`ClientError::HomeKeepsNoCopy`]; [`ClientError::Refused`] when the node has no space for the account.
    pub async fn allow_mirror(&self, mirror: &Client, password: &str) -> Result<(), ClientError> {
        let account = &self.account;
        let home = account.api().chain(&account.name).await?.home().cloned();
        match mirror.api.ids().await {
            Ok(ids) => {
                let is_home = |id: &Cid| home.as_ref().is_some_and(|home| home.hash() == id.hash());
                if ids.as_slice().iter().any(is_home) {
                    return Err(ClientError::HomeKeepsNoCopy);
                }
            }
            // One that tells no ids is asked all the same.
            Err(ClientError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        let own = Client {
            api: std::sync::Arc::clone(&account.view.blocks.api),
            keeper: Keeper::default(),
        };
        let bat = account
            .mirror_bats
            .last()
            .ok_or(ClientError::OldLayout { what: "mirroring" })?;
        let deleted = || ClientError::AccountDeleted {
            name: account.name.to_string(),
        };
        let writer = account.owner().as_writer();
        let space = account.view.space(&writer).await?.ok_or_else(deleted)?;
        // The copy would hold keys that another device has replaced.
        if account.has_outdated_boxing(&space.data) {
            return Err(ClientError::BadSession);
        }
        let keys = own.present_keys(account, &space, password).await?;
        let now = SignedTime::at(account.environment().now());
        let request = MirrorRequest {
            username: account.name.to_string(),
            bat: bat.clone(),
            auth: now.sign(account.identity.secret()).into(),
            proof: ProofOfWork::empty().encode().into(),
        };
        mirror.api.allow_mirror(&request).await?;
        let rng = &mut *account.random();
        let sealed = UserStaticData::seal(&keys.root, &account.entry_points, rng);
        let record = OpaqueCipherText::from_value(sealed.to_value())
            .map_err(|_| ClientError::Internal("login data could not be encoded"))?;
        let login = LoginData {
            username: account.name.clone(),
            record,
            reader: keys.signing.public(),
            root_change: None,
        };
        let auth = account.identity.secret().sign_detached(&login.encode());
        match mirror.api.set_login_of_copy(&login, &auth).await? {
            true => Ok(()),
            false => Err(ClientError::Conflict),
        }
    }

    /// Returns the text of the newest mirror token: whoever has it can read everything of the account in ciphertext.
    pub fn mirror_token(&self) -> Option<String> {
        let newest = self.account.mirror_bats.last();
        newest.map(champ::access::BatWithId::to_text)
    }

    /// Moves the account from its home to the node of this session, with everything that is stored.
    ///
    /// Takes as long as copying does. After a failure it can be called again and goes on; the account is at its old
    /// home until the new one has everything.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the reason of either node.
    pub async fn move_here(&self) -> Result<Moved, ClientError> {
        let account = &self.account;
        let (chain, from, here) = self.homes().await?;
        if from.hash() == here.hash() {
            return Ok(Moved::WasHere);
        }
        let now = SignedTime::at(account.environment().now());
        let auth = now.sign(account.identity.secret());
        let usage = account.api().usage(account.owner(), &auth).await?;
        // Nodes do not hand them over, and nobody else has their secrets.
        let factors = account.api().second_factors(&account.name, &auth).await;
        let request = MigrateRequest {
            username: account.name.to_string(),
            chain: self.claim_at(&chain, here)?,
            current_server: from.clone(),
            bat: account.mirror_bats.last().cloned(),
            after_epoch_seconds: FROM_THE_BEGINNING,
            usage_bytes: i64::try_from(usage).unwrap_or(i64::MAX),
            commit: true,
        };
        account.api().migrate(&request).await?;
        self.check_home().await?;
        let lost_factors = factors.map_or(0, |factors| factors.0.len());
        Ok(Moved::Done { from, lost_factors })
    }

    /// Makes the node of this session the home of the account, with the copy it has, without asking the old home:
    /// for when that is lost for good. What was written there since the copy was last in step is given up; so a home
    /// that answers is not given up, unless `also_answering`: it may have lost what it had, or keep people from leaving.
    ///
    /// # Errors
    /// [`ClientError::HomeAnswers`]; [`ClientError::Refused`] and [`ClientError::Network`] when the name authority cannot
    /// be asked.
    pub async fn restore_here(&self, also_answering: bool) -> Result<Moved, ClientError> {
        let (chain, from, here) = self.homes().await?;
        if from.hash() == here.hash() {
            return Ok(Moved::WasHere);
        }
        if !also_answering {
            let account = &self.account;
            let now = SignedTime::at(account.environment().now());
            let auth = now.sign(account.identity.secret());
            // No copy answers this for the home.
            if account.api().usage(account.owner(), &auth).await.is_ok() {
                return Err(ClientError::HomeAnswers);
            }
        }
        let claimed = self.claim_at(&chain, here)?;
        let name = &self.account.name;
        if !self.account.api().update_chain(name, &claimed).await? {
            return Err(ClientError::RateLimited {
                message: "the name authority asks for work".to_owned(),
            });
        }
        self.check_home().await?;
        Ok(Moved::Done {
            from,
            lost_factors: 0,
        })
    }

    /// Returns the claim chain, the home it names, and the node of this session.
    async fn homes(&self) -> Result<(ClaimChain, Cid, Cid), ClientError> {
        let account = &self.account;
        let chain = account.api().chain(&account.name).await?;
        let is_own = chain.identity() == Some(account.owner());
        let home = chain.home().filter(|_| is_own).cloned();
        let home = home.ok_or_else(|| Misbehavior::IdentityMismatch {
            name: account.name.to_string(),
        })?;
        let here = account.api().id().await?;
        Ok((chain, home, here))
    }

    fn claim_at(&self, chain: &ClaimChain, node: Cid) -> Result<ClaimChain, ClientError> {
        let identity = self.account.identity.secret();
        chain
            .migrated(&self.account.name, node, identity)
            .map_err(|_| ClientError::Internal("the claim could not be signed"))
    }

    async fn check_home(&self) -> Result<(), ClientError> {
        let (_, home, here) = self.homes().await?;
        match home.hash() == here.hash() {
            true => Ok(()),
            false => Err(ClientError::Conflict),
        }
    }
}
