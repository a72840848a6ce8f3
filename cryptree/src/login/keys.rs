//! The keys that come from a password (Spec: 02 §8.3).

use std::fmt;

use pki::{
    algorithm::{LoginAlgorithm, WorkError},
    keys::SecretSigningKey,
};
use zeroize::Zeroizing;

use crate::crypto::{CurveSecretKey, PasswordError, SymmetricKey, hash_password};

/// What name and password give.
///
/// In the current layout the signing key only logs in: identity and boxing keys are random and stored under
/// the root key. In the legacy layout it is the identity, and the boxing key is derived too.
#[derive(Clone)]
pub struct LoginKeys {
    /// Login key; in the legacy layout the identity key.
    pub signing: SecretSigningKey,
    /// Opens the user static data.
    pub root: SymmetricKey,
    /// The derived boxing key; in the legacy layout only.
    pub legacy_boxing: Option<CurveSecretKey>,
}

/// Why there are no login keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The server asks for work that nobody should do.
    #[error("password hashing parameters are refused")]
    Work(#[from] WorkError),
    /// Hashing failed, for example for lack of memory.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The output is shorter than the keys it must hold.
    #[error("password hashing output is too short")]
    ShortOutput,
    /// A password that gives the account away.
    #[error("password is hardly more than the user name")]
    PasswordIsName,
    /// No password.
    #[error("password is empty")]
    PasswordEmpty,
}

impl LoginKeys {
    /// Derives the keys. Takes 128 MiB and a third of a second: run it where blocking is allowed.
    ///
    /// # Errors
    /// [`LoginError::Work`] when `algorithm`, which a server chose, is too weak or too dear;
    /// [`LoginError::Password`].
    pub fn derive(
        username: &str,
        password: &str,
        algorithm: &LoginAlgorithm,
    ) -> Result<Self, LoginError> {
        let cost = algorithm.login_work()?;
        let salt = Zeroizing::new(format!("{username}{}", cost.extra_salt()));
        let output = hash_password(&salt, password, cost)?;
        let (seed, rest) = take(&output)?;
        let signing = SecretSigningKey::from_seed(&seed);
        let (second, rest) = take(rest)?;
        if !cost.is_legacy_layout() {
            return Ok(Self {
                signing,
                root: SymmetricKey::from_bytes(*second),
                legacy_boxing: None,
            });
        }
        let (third, _) = take(rest)?;
        Ok(Self {
            signing,
            root: SymmetricKey::from_bytes(*third),
            legacy_boxing: Some(CurveSecretKey::from_bytes(*second)),
        })
    }

    /// Returns true when the signing key is the identity key.
    pub const fn is_legacy_layout(&self) -> bool {
        self.legacy_boxing.is_some()
    }
}

impl fmt::Debug for LoginKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginKeys(..)")
    }
}

/// Characters a password must have beside the user name when it contains that.
const MIN_CHARS_BESIDE_NAME: usize = 8;

/// Refuses passwords that give the account away: empty, or the user name in any letter case with fewer than
/// [`MIN_CHARS_BESIDE_NAME`] characters around it. How strong it is otherwise is not judged.
///
/// # Errors
/// [`LoginError::PasswordEmpty`], [`LoginError::PasswordIsName`].
pub fn check_new_password(username: &str, password: &str) -> Result<(), LoginError> {
    if password.is_empty() {
        return Err(LoginError::PasswordEmpty);
    }
    let (name, folded) = (username.to_lowercase(), password.to_lowercase());
    let beside = folded.chars().count().saturating_sub(name.chars().count());
    if folded.contains(&name) && beside < MIN_CHARS_BESIDE_NAME {
        return Err(LoginError::PasswordIsName);
    }
    Ok(())
}

fn take(bytes: &[u8]) -> Result<(Zeroizing<[u8; 32]>, &[u8]), LoginError> {
    let (key, rest) = bytes
        .split_first_chunk::<32>()
        .ok_or(LoginError::ShortOutput)?;
    Ok((Zeroizing::new(*key), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_dear_and_random_algorithms_are_refused_before_any_work() {
        for (algorithm, error) in [
            (LoginAlgorithm::Random, WorkError::NotDerived),
            (LoginAlgorithm::secret_link(), WorkError::TooWeak),
        ] {
            assert_eq!(
                LoginKeys::derive("a", "p", &algorithm).unwrap_err(),
                LoginError::Work(error)
            );
        }
        let dear =
            champ::text::from_hex("a6616308616d181e616f1840617001617360647479706501").unwrap();
        let dear = champ::cbor::Record::decode(&dear).unwrap();
        assert_eq!(
            LoginKeys::derive("a", "p", &dear).unwrap_err(),
            LoginError::Work(WorkError::TooDear)
        );
    }

    #[test]
    fn pgs_01_008_the_user_name_is_no_password() {
        assert_eq!(check_new_password("a", ""), Err(LoginError::PasswordEmpty));
        for refused in ["alice", "ALICE", "Alice", "alice1", "1234567alice"] {
            let checked = check_new_password("alice", refused);
            assert_eq!(checked, Err(LoginError::PasswordIsName), "{refused}");
        }
        for allowed in ["ecila", "12345678alice", "alice in wonderland"] {
            assert_eq!(check_new_password("alice", allowed), Ok(()), "{allowed}");
        }
    }
}
