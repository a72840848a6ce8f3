//! Signing in (Spec: 21 §6).

use std::sync::Arc;

use champ::access::BatWithId;
use pki::{
    algorithm::LoginAlgorithm,
    keys::{Owner, SecretKeyWithHash},
    pointer::PointerMemory,
    signed::{SignedRequest, SignedTime},
    username::Username,
    wire::second_factor::{
        FactorAnswer, MethodKind, MultiFactorRequest, MultiFactorResponse, normalize_backup_code,
    },
};

use super::{
    Client,
    cache::ChildLists,
    session::{Account, Reading, Session, WriteLocks},
    snapshot::Snapshot,
    space::{OwnerView, SpaceState},
};
use crate::{
    api::LoginAnswer,
    ciphertext::OpenError,
    environment::computed,
    error::{ClientError, Misbehavior},
    login::{LoginError, LoginKeys, UserStaticData},
};
use champ::cbor::Record;

/// Bounds of the key derivation accepted from a node (Spec: 40, INT-8): neither weaker nor ruinous.
const MEMORY_COST: std::ops::RangeInclusive<u8> = 17..=20;
const BLOCK_SIZE: u32 = 8;
const PARALLELISM: u32 = 1;
const OUTPUT_BYTES: [u32; 2] = [64, 96];
const MAX_SALT_CHARS: usize = 128;

/// The outcome of name and password.
#[derive(Debug)]
pub enum SignIn {
    /// Signed in.
    Done(Session),
    /// The account asks for a second factor as well.
    SecondFactor(Box<PendingSignIn>),
}

/// A sign-in that waits for a second factor.
pub struct PendingSignIn {
    client: Client,
    attempt: Attempt,
    request: MultiFactorRequest,
}

impl std::fmt::Debug for PendingSignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingSignIn").finish_non_exhaustive()
    }
}

/// A code as a person enters it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactorCode<'a> {
    /// Six digits of an authenticator app.
    OneTime(&'a str),
    /// One of the printed backup codes.
    Backup(&'a str),
}

/// What a name and a password lead to before the login data are opened.
struct Attempt {
    name: Username,
    keys: Arc<LoginKeys>,
    view: OwnerView,
    identity_space: SpaceState,
}

impl Client {
    /// Signs in with name and password.
    ///
    /// Reads only. One password derivation of about a third of a second.
    ///
    /// # Errors
    /// [`ClientError::UnknownUser`], [`ClientError::WrongCredentials`], [`ClientError::AccountDeleted`],
    /// [`ClientError::UnacceptableDerivation`], [`Misbehavior`] when the node serves another account.
    pub async fn sign_in(&self, name: &str, password: &str) -> Result<SignIn, ClientError> {
        self.sign_in_remembering(name, password, PointerMemory::new())
            .await
    }

    /// Signs in like [`Client::sign_in`], refusing pointers older than those in `memory`.
    pub async fn sign_in_remembering(
        &self,
        name: &str,
        password: &str,
        memory: PointerMemory,
    ) -> Result<SignIn, ClientError> {
        let unknown = || ClientError::UnknownUser {
            name: name.to_owned(),
        };
        let name = Username::parse(name).map_err(|_| unknown())?;
        let identity = self.api.public_key(&name).await?.ok_or_else(unknown)?;
        let view = self.view(Owner(identity), memory);
        let deleted = || ClientError::AccountDeleted {
            name: name.to_string(),
        };
        let writer = view.owner().as_writer();
        let identity_space = view.space(&writer).await?.ok_or_else(deleted)?;
        let algorithm = acceptable(identity_space.data.algorithm.clone())?;
        let keys = self.derive(&name, password, algorithm).await?;
        let attempt = Attempt {
            name,
            keys: Arc::new(keys),
            view,
            identity_space,
        };
        if let Some(legacy) = &attempt.identity_space.data.entry_points {
            let sealed = pki::wire::login_data::OpaqueCipherText {
                nonce: legacy.nonce,
                cipher: legacy.cipher_text.clone(),
            };
            let sealed = UserStaticData::from_value(sealed.to_value());
            let sealed = sealed.map_err(|_| ClientError::bad_record("entry points"))?;
            return self.enter(attempt, &sealed).await.map(SignIn::Done);
        }
        self.ask(attempt, None).await
    }

    pub(super) async fn derive(
        &self,
        name: &Username,
        password: &str,
        algorithm: LoginAlgorithm,
    ) -> Result<LoginKeys, ClientError> {
        let (name, password) = (name.clone(), zeroize::Zeroizing::new(password.to_owned()));
        let derived = computed(self.api.environment().as_ref(), move || {
            LoginKeys::derive(name.as_str(), &password, &algorithm)
        });
        derived.await?.map_err(|error| match error {
            LoginError::Work(_) => ClientError::UnacceptableDerivation {
                reason: "its cost is out of bounds",
            },
            LoginError::PasswordEmpty | LoginError::PasswordIsName => ClientError::WrongCredentials,
            _ => ClientError::Internal("the login key could not be derived"),
        })
    }

    /// Asks for the login data, with a second factor when there is one to offer.
    async fn ask(
        &self,
        attempt: Attempt,
        factor: Option<&MultiFactorResponse>,
    ) -> Result<SignIn, ClientError> {
        let auth = SignedTime::at(self.api.environment().now()).sign(&attempt.keys.signing);
        let reader = attempt.keys.signing.public();
        let answer = self
            .api
            .login(&attempt.name, &reader, &auth, factor)
            .await?;
        match answer {
            LoginAnswer::Record(record) => {
                let sealed = UserStaticData::from_value(record.to_value());
                let sealed = sealed.map_err(|_| ClientError::bad_record("login data"))?;
                self.enter(attempt, &sealed).await.map(SignIn::Done)
            }
            LoginAnswer::SecondFactor(request) => {
                Ok(SignIn::SecondFactor(Box::new(PendingSignIn {
                    client: self.clone(),
                    attempt,
                    request,
                })))
            }
        }
    }

    /// Opens the login data, checks that they belong to the account, and finds the home folder.
    async fn enter(
        &self,
        attempt: Attempt,
        sealed: &UserStaticData,
    ) -> Result<Session, ClientError> {
        let Attempt {
            name,
            keys,
            view,
            identity_space,
        } = attempt;
        let entry_points = sealed.open(&keys.root).map_err(|error| match error {
            OpenError::Refused(_) => ClientError::WrongCredentials,
            _ => ClientError::bad_record("login data"),
        })?;
        let identity = match (&entry_points.identity, keys.is_legacy_layout()) {
            (Some(pair), _) => SecretKeyWithHash::new(pair.secret().clone()),
            (None, true) => SecretKeyWithHash::new(keys.signing.clone()),
            (None, false) => return Err(ClientError::bad_record("login data")),
        };
        // Directory, root block (checked when it was read) and login data name one identity.
        if identity.writer() != identity_space.writer {
            return Err(Misbehavior::IdentityMismatch {
                name: name.to_string(),
            }
            .into());
        }
        let home = entry_points
            .home(name.as_str())
            .ok_or_else(|| ClientError::bad_record("login data"))?;
        let mut home = home.capability.clone();
        // It may be stale after an old change of identity (Spec: 21 §6 step 7).
        home.owner = view.owner().clone();
        view.check_owned(Some(&identity_space), &home.writer)
            .await?;
        let mirror_bats = self.mirror_bats(&name, &identity).await?;
        let account = Account {
            reading: Arc::new(Reading {
                name,
                home,
                view,
                child_lists: ChildLists::default(),
            }),
            identity,
            reader: keys.signing.public(),
            entry_points,
            mirror_bats,
            locks: WriteLocks::default(),
        };
        let item = Snapshot::new(&account).home().await?;
        if item.signer.is_none() {
            return Err(ClientError::cannot_read("the home folder"));
        }
        Ok(Session {
            account: Arc::new(account),
        })
    }

    pub(super) async fn mirror_bats(
        &self,
        name: &Username,
        identity: &SecretKeyWithHash,
    ) -> Result<Vec<BatWithId>, ClientError> {
        let request = SignedRequest {
            path: "peergos/v0/bats/getUserBats".to_owned(),
            time: SignedTime::at(self.api.environment().now()),
        };
        self.api
            .mirror_bats(name, &request.sign(identity.secret()))
            .await
    }
}

impl SignIn {
    /// Returns the session.
    ///
    /// # Errors
    /// [`ClientError::SecondFactorNeeded`].
    pub fn done(self) -> Result<Session, ClientError> {
        match self {
            Self::Done(session) => Ok(session),
            Self::SecondFactor(_) => Err(ClientError::SecondFactorNeeded),
        }
    }
}

impl PendingSignIn {
    /// Returns true when a code of that kind can be given.
    pub fn accepts(&self, code: FactorCode<'_>) -> bool {
        self.credential(code).is_some()
    }

    fn credential(&self, code: FactorCode<'_>) -> Option<bytes::Bytes> {
        let kind = match code {
            FactorCode::OneTime(_) => MethodKind::Totp,
            FactorCode::Backup(_) => MethodKind::BackupCodes,
        };
        let mut methods = self.request.methods.0.iter();
        methods
            .find(|method| method.kind == kind)
            .map(|method| method.credential_id.clone())
    }

    /// Continues with a code; after a refusal it can be called again.
    ///
    /// # Errors
    /// [`ClientError::SecondFactorRefused`]; [`ClientError::SecondFactorNeeded`] when the account has no factor of
    /// that kind.
    pub async fn answer(&self, code: FactorCode<'_>) -> Result<Session, ClientError> {
        let credential_id = self
            .credential(code)
            .ok_or(ClientError::SecondFactorNeeded)?;
        let text = match code {
            FactorCode::OneTime(code) => code.trim().to_owned(),
            FactorCode::Backup(code) => normalize_backup_code(code),
        };
        let factor = MultiFactorResponse {
            credential_id,
            answer: FactorAnswer::Code(text),
        };
        let attempt = Attempt {
            name: self.attempt.name.clone(),
            keys: Arc::clone(&self.attempt.keys),
            view: self.attempt.view.clone(),
            identity_space: self.attempt.identity_space.clone(),
        };
        self.client.ask(attempt, Some(&factor)).await?.done()
    }
}

/// Refuses a key derivation that is weaker or dearer than any client makes, before anything is derived.
pub(super) fn acceptable(algorithm: Option<LoginAlgorithm>) -> Result<LoginAlgorithm, ClientError> {
    let refuse = |reason| Err(ClientError::UnacceptableDerivation { reason });
    let Some(LoginAlgorithm::Scrypt(scrypt)) = &algorithm else {
        return refuse("it is not derived from a password");
    };
    if !MEMORY_COST.contains(&scrypt.memory_cost()) {
        return refuse("its memory cost is out of bounds");
    }
    if scrypt.block_size() != BLOCK_SIZE || scrypt.parallelism() != PARALLELISM {
        return refuse("its block size or parallelism is out of bounds");
    }
    if !OUTPUT_BYTES.contains(&scrypt.output_bytes()) {
        return refuse("its output length is unknown");
    }
    if scrypt.extra_salt().chars().count() > MAX_SALT_CHARS {
        return refuse("its salt is too long");
    }
    Ok(LoginAlgorithm::Scrypt(scrypt.clone()))
}
