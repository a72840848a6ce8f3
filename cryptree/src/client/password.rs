//! Changing the password (Spec: 08 §2.2, 21 §14).
//!
//! The new salt is published in the identity's root block and the login data are sealed anew under the new
//! key, in one call that the node applies whole or not at all: at every moment one of the two passwords works.

use champ::cbor::Record as _;
use pki::{
    algorithm::LoginAlgorithm,
    wire::login_data::{LoginData, OpaqueCipherText, RootChange},
    writer_data::WriterData,
};
use rand_core::CryptoRng;

use super::{
    Client, Session,
    keeper::Keeper,
    session::Account,
    sign_up::{block_write, pointer_write},
    space::SpaceState,
};
use crate::{
    error::ClientError,
    login::{EntryPoints, LoginKeys, UserStaticData, check_new_password},
};

/// What [`ClientError::OldLayout`] names when the password is to be changed.
pub const NEW_PASSWORD: &str = "changing the password";

impl Session {
    /// Changes the password. The session goes on working.
    ///
    /// Data keys do not change. When this returns, the old password no longer opens the account, and signing in
    /// with the new one was tried (as far as the second factor, when there is one).
    ///
    /// # Errors
    /// [`ClientError::WrongCredentials`] when `current` is not the password, [`ClientError::WeakPassword`],
    /// [`ClientError::OldLayout`] for accounts whose identity is derived from the password,
    /// [`ClientError::BadSession`] when another device has replaced the keys that this session has,
    /// [`ClientError::Conflict`].
    pub async fn change_password(&self, current: &str, new: &str) -> Result<(), ClientError> {
        let account = &self.account;
        let client = Client {
            api: std::sync::Arc::clone(&account.view.blocks.api),
            keeper: Keeper::default(),
        };
        check_new_password(account.name.as_str(), new).map_err(|_| ClientError::WeakPassword {
            reason: "it is empty or hardly more than the user name",
        })?;
        let mut runs = account.runs();
        loop {
            match client.change_once(self, current, new).await {
                Err(error) => runs.again_after(error).await?,
                done => break done?,
            }
        }
        // Before anybody forgets the old password.
        client.sign_in(account.name.as_str(), new).await.map(|_| ())
    }
}

impl Client {
    async fn change_once(
        &self,
        session: &Session,
        current: &str,
        new: &str,
    ) -> Result<(), ClientError> {
        let account = &session.account;
        let writer = account.owner().as_writer();
        let lock = account.locks.of(&writer);
        let _writing = lock.lock().await;
        let deleted = || ClientError::AccountDeleted {
            name: account.name.to_string(),
        };
        let space = account.view.space(&writer).await?.ok_or_else(deleted)?;
        if space.data.is_legacy_account() || account.entry_points.identity.is_none() {
            return Err(ClientError::OldLayout { what: NEW_PASSWORD });
        }
        // Sealing older keys again would lose those that another device has put in place since.
        if account.has_outdated_boxing(&space.data) {
            return Err(ClientError::BadSession);
        }
        self.present_keys(account, &space, current).await?;
        let rng = &mut *account.random();
        let algorithm = LoginAlgorithm::current(rng);
        let keys = self.derive(&account.name, new, algorithm.clone()).await?;
        let mut data = space.data.clone();
        data.algorithm = Some(algorithm);
        let change = LoginChange {
            keys: &keys,
            entry_points: &account.entry_points,
            data,
        };
        self.replace_login(account, &space, change, rng).await
    }

    /// Derives the keys of the present password.
    ///
    /// # Errors
    /// [`ClientError::WrongCredentials`] when it is not the present one; what asking the node can fail with.
    pub(super) async fn present_keys(
        &self,
        account: &Account,
        space: &SpaceState,
        password: &str,
    ) -> Result<LoginKeys, ClientError> {
        let known = super::sign_in::acceptable(space.data.algorithm.clone())?;
        let keys = self.derive(&account.name, password, known).await?;
        if keys.signing.public() != account.reader {
            // The password may have been changed since this session began: the node knows.
            self.sign_in(account.name.as_str(), password).await?;
        }
        Ok(keys)
    }

    /// Puts login data and the identity's root block in force, both or neither.
    pub(super) async fn replace_login(
        &self,
        account: &Account,
        space: &SpaceState,
        change: LoginChange<'_>,
        rng: &mut (dyn CryptoRng + Send),
    ) -> Result<(), ClientError> {
        let writer = &space.writer;
        let too_large = |_| ClientError::Internal("root block too large");
        let root = change.data.to_block().map_err(too_large)?;
        let update = account
            .view
            .memory()
            .propose(writer, Some(&space.pointer), Some(root.cid().clone()))
            .map_err(|_| ClientError::Internal("pointer sequence exhausted"))?;
        let sealed = UserStaticData::seal(&change.keys.root, change.entry_points, rng);
        let record = OpaqueCipherText::from_value(sealed.to_value())
            .map_err(|_| ClientError::Internal("login data could not be encoded"))?;
        let login = LoginData {
            username: account.name.clone(),
            record,
            reader: change.keys.signing.public(),
            root_change: Some(RootChange {
                block: block_write(&root, &account.identity),
                pointer: pointer_write(update.clone(), &account.identity),
            }),
        };
        let auth = account.identity.secret().sign_detached(&login.encode());
        let answer = self.api.set_login(&login, &auth).await;
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        // Refused or unknown: the pointer tells whether it happened.
        if account.view.pointer(writer).await?.as_ref() == Some(&update) {
            return Ok(());
        }
        match answer {
            Ok(_) => Err(ClientError::Conflict),
            Err(ClientError::Refused { message, .. }) if message.starts_with("PointerCAS:") => {
                Err(ClientError::Conflict)
            }
            Err(error) => Err(error),
        }
    }
}

/// Login data and root block that belong together.
pub(super) struct LoginChange<'a> {
    pub(super) keys: &'a LoginKeys,
    pub(super) entry_points: &'a EntryPoints,
    pub(super) data: WriterData,
}
