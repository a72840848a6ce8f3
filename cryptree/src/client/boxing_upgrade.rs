//! A boxing key that quantum computers do not open, for accounts that have none (Spec: 21 §6 step 12, 02 §5.2; 40 SC-11).
//!
//! Whoever records what is sealed to a Curve25519 key today may open it one day. New accounts have a hybrid key; older
//! ones get one here. Invariants: the secret is stored before, or together with, the publication of its public key;
//! nothing that waits to be opened with the old key is given up.

use std::sync::Arc;

use pki::{signed::SignedTime, writer_data::WriterData};

use super::{
    Client, Session,
    draft::{Draft, Sender},
    keeper::Keeper,
    password::LoginChange,
    session::Account,
    space::SpaceState,
};
use crate::{
    api::BlockFormat,
    crypto::{BoxingKeyPair, SecretBoxingKey},
    error::ClientError,
    login::{EntryPoints, LoginKeys, UserStaticData},
};

/// What became of the wish for a hybrid boxing key.
#[derive(Debug)]
pub enum BoxingUpgrade {
    /// The account has one.
    Present,
    /// Not yet: follow requests wait that only the present key opens.
    RequestsPending(usize),
    /// The account has a new one. Go on with this session; the one it was asked of knows the old key.
    Done(Session),
}

impl Session {
    /// Returns true when messages to this account are safe from whoever records them for a quantum computer.
    pub fn has_hybrid_boxing(&self) -> bool {
        self.account.entry_points.has_hybrid_boxing()
    }

    /// Gives the account a hybrid boxing key when it has none, and publishes it.
    ///
    /// Others who have compared safety numbers see that the key changed; the identity stays. Other sessions of the
    /// account go on working, and must sign in again before they change the password.
    ///
    /// # Errors
    /// [`ClientError::WrongCredentials`] when `password` is not the present one; [`ClientError::BadSession`] when this
    /// session is older than the keys of the account; [`ClientError::Conflict`]. Nothing has changed then.
    pub async fn upgrade_boxing(&self, password: &str) -> Result<BoxingUpgrade, ClientError> {
        let account = &self.account;
        let client = Client {
            api: Arc::clone(&account.view.blocks.api),
            keeper: Keeper::default(),
        };
        let mut runs = account.runs();
        loop {
            match client.upgrade_boxing_once(account, password).await {
                Err(error) => runs.again_after(error).await?,
                done => return done,
            }
        }
    }
}

impl Client {
    async fn upgrade_boxing_once(
        &self,
        account: &Arc<Account>,
        password: &str,
    ) -> Result<BoxingUpgrade, ClientError> {
        let writer = account.owner().as_writer();
        let lock = account.locks.of(&writer);
        let _writing = lock.lock().await;
        let space = account.view.space(&writer).await?;
        let space = space.ok_or_else(|| ClientError::AccountDeleted {
            name: account.name.to_string(),
        })?;
        if account.entry_points.has_hybrid_boxing() {
            if !account.publishes_its_boxing(&space.data) {
                // Somebody stored the new secret and got no further: what is sealed until then cannot be opened.
                let keys = self.present_keys(account, &space, password).await?;
                let entry_points = account.entry_points.clone();
                self.publish_boxing(account, space, &keys, &entry_points)
                    .await?;
            }
            return Ok(BoxingUpgrade::Present);
        }
        if account.has_outdated_boxing(&space.data) {
            return Err(ClientError::BadSession);
        }
        let keys = self.present_keys(account, &space, password).await?;
        let auth = SignedTime::at(self.api.environment().now()).sign(account.identity.secret());
        let waiting = self.api.pending_follow_requests(account.owner(), &auth);
        match waiting.await? {
            0 => {}
            waiting => return Ok(BoxingUpgrade::RequestsPending(waiting)),
        }
        let internal = |_| ClientError::Internal("a boxing key could not be made");
        let rng = &mut *account.random();
        let boxing = BoxingKeyPair::new(SecretBoxingKey::random(rng)).map_err(internal)?;
        let entry_points = account.entry_points.with_boxing(boxing);
        self.publish_boxing(account, space, &keys, &entry_points)
            .await?;
        Ok(BoxingUpgrade::Done(Session {
            account: Arc::new(Account {
                reading: Arc::clone(&account.reading),
                identity: account.identity.clone(),
                reader: account.reader,
                entry_points,
                mirror_bats: account.mirror_bats.clone(),
                locks: account.locks.clone(),
            }),
        }))
    }

    /// Stores the secret and publishes the public key in one step.
    async fn publish_boxing(
        &self,
        account: &Account,
        space: SpaceState,
        keys: &LoginKeys,
        entry_points: &EntryPoints,
    ) -> Result<(), ClientError> {
        let too_large = |_| ClientError::Internal("a boxing key is too large");
        let boxing = entry_points.boxing.as_ref();
        let public = boxing.map(BoxingKeyPair::public);
        let public = public.ok_or(ClientError::Internal("no boxing key"))?;
        let block = public.block().map_err(too_large)?;
        let inbound = Some(public.hash());
        let mut rng = account.random();
        if space.data.is_legacy_account() {
            let sealed = UserStaticData::seal(&keys.root, entry_points, &mut *rng);
            let mut draft = Draft::new(
                account.view.clone(),
                Arc::new(account.identity.clone()),
                space,
            )?;
            let change = |data: &mut WriterData| {
                data.entry_points = Some((&sealed).into());
                data.inbound = inbound;
            };
            draft.change_root(change, block.into_iter().collect());
            return draft.commit().await.map(|_| ());
        }
        let api = &self.api;
        let transaction = api.start_transaction(account.owner()).await?;
        let sender = Sender {
            view: &account.view,
            signer: &account.identity,
            transaction: &transaction,
        };
        let blocks: Vec<_> = block.into_iter().collect();
        let sent = sender.send(BlockFormat::DagCbor, &blocks).await;
        let done = match sent {
            Ok(()) => {
                let mut data = space.data.clone();
                data.inbound = inbound;
                let change = LoginChange {
                    keys,
                    entry_points,
                    data,
                };
                self.replace_login(account, &space, change, &mut *rng).await
            }
            Err(error) => Err(error),
        };
        api.close_transaction(account.owner(), &transaction).await;
        done
    }
}

impl Account {
    /// Returns true when the root block publishes the boxing key that this session has.
    fn publishes_its_boxing(&self, data: &WriterData) -> bool {
        let ours = self.entry_points.boxing.as_ref();
        ours.is_some_and(|pair| Some(pair.public().hash()) == data.inbound)
    }

    /// Returns true when another device has replaced the boxing key since this session began. A hybrid key is never
    /// replaced: where another one is published, its publication is what is missing.
    pub(super) fn has_outdated_boxing(&self, data: &WriterData) -> bool {
        let is_stored = self.entry_points.boxing.is_some();
        is_stored && !self.entry_points.has_hybrid_boxing() && !self.publishes_its_boxing(data)
    }
}
