//! Secret links: a capability that a server keeps, sealed under a password it never sees (Spec: 02 §8.4,
//! 04 §6, 23 §9).

use std::{fmt, str::FromStr};

use pki::{algorithm::LoginAlgorithm, keys::Owner, wire::link::EncryptedCapability};
use rand_core::CryptoRng;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{
    capability::AbsoluteCapability,
    ciphertext::{CipherText, OpenError},
    crypto::{PasswordError, SymmetricKey, hash_password},
};

/// The text of a link: whose, which, and its password. Its debug output hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretLink {
    /// Identity of the owner.
    pub owner: Owner,
    /// Label, 1 to 2^63 - 1; new ones fit 32 bits.
    pub label: u64,
    /// Link password.
    pub password: LinkPassword,
}

/// The password inside a link: any non-empty text, 12 letters and digits when written.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct LinkPassword(String);

/// Text that is not a secret link. Never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a secret link")]
pub struct NotALink;

/// Why a link gives no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Wrong link or user password, or damaged.
    #[error("wrong password or damaged link")]
    Open(#[from] OpenError),
    /// Key derivation failed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The capability inside is for another owner than the link.
    #[error("link holds a capability of another owner")]
    ForeignOwner,
}

impl LinkPassword {
    /// Draws 12 characters, each uniform over letters and digits: 71 bits.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut password = String::with_capacity(PASSWORD_CHARACTERS);
        while password.len() < PASSWORD_CHARACTERS {
            let mut byte = [0];
            rng.fill_bytes(&mut byte);
            // Bytes without a character are drawn again, so that all are equally likely.
            if let Some(character) = ALPHABET.get(usize::from(byte[0])) {
                password.push(char::from(*character));
            }
        }
        Self(password)
    }

    /// Takes a password that was written down; none for an empty text.
    pub fn of_text(text: String) -> Option<Self> {
        (!text.is_empty()).then_some(Self(text))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SecretLink {
    /// Draws label and password of a new link; draw again if the label is taken.
    pub fn random(owner: Owner, rng: &mut dyn CryptoRng) -> Self {
        let mut label = 0;
        while label == 0 {
            let mut bytes = [0; 4];
            rng.fill_bytes(&mut bytes);
            label = u32::from_le_bytes(bytes);
        }
        Self {
            owner,
            label: label.into(),
            password: LinkPassword::random(rng),
        }
    }

    /// Derives the key of the link from its password and an optional user password ("" for none).
    ///
    /// Takes 32 MiB and a tenth of a second: run it where blocking is allowed.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn key(&self, user_password: &str) -> Result<SymmetricKey, PasswordError> {
        let LoginAlgorithm::Scrypt(cost) = LoginAlgorithm::secret_link() else {
            return Err(PasswordError);
        };
        let password = Zeroizing::new(format!("{}{user_password}", self.password.0));
        let output = hash_password(&self.label.to_string(), &password, &cost)?;
        output
            .first_chunk()
            .map(|bytes| SymmetricKey::from_bytes(*bytes))
            .ok_or(PasswordError)
    }

    /// Seals a capability for this link.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn seal(
        &self,
        capability: &AbsoluteCapability,
        user_password: &str,
        rng: &mut dyn CryptoRng,
    ) -> Result<EncryptedCapability, PasswordError> {
        Ok(EncryptedCapability {
            cipher_text: CipherText::seal(&self.key(user_password)?, capability, rng).into(),
            needs_password: !user_password.is_empty(),
        })
    }

    /// Opens the capability of this link, and checks that it is the owner's.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn open(
        &self,
        sealed: &EncryptedCapability,
        user_password: &str,
    ) -> Result<AbsoluteCapability, LinkError> {
        let key = self.key(user_password)?;
        let cipher_text = CipherText::from(sealed.cipher_text.clone());
        let capability: AbsoluteCapability = cipher_text.open(&key)?;
        if capability.owner != self.owner {
            return Err(LinkError::ForeignOwner);
        }
        Ok(capability)
    }

    /// Returns `secret/owner/label#password`, to follow the origin of a web page and `/`.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "secret/{}/{}#{}",
            self.owner, self.label, self.password.0
        ))
    }
}

/// Parses the text from `secret/` on, with or without a slash before it.
impl FromStr for SecretLink {
    type Err = NotALink;

    fn from_str(text: &str) -> Result<Self, NotALink> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(NotALink);
        }
        let text = text.strip_prefix('/').unwrap_or(text);
        let (path, fragment) = text.split_once('#').ok_or(NotALink)?;
        let path = path.strip_prefix("secret/").ok_or(NotALink)?;
        let (owner, label) = path.split_once('/').ok_or(NotALink)?;
        let password = fragment.split('?').next().unwrap_or_default();
        let label = label.parse::<i64>().map_err(|_| NotALink)?;
        if password.is_empty() || label < 1 {
            return Err(NotALink);
        }
        Ok(Self {
            owner: owner.parse().map_err(|_| NotALink)?,
            label: label.unsigned_abs(),
            password: LinkPassword(password.to_owned()),
        })
    }
}

impl fmt::Debug for SecretLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretLink({}, ..)", self.label)
    }
}

impl fmt::Debug for LinkPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkPassword(..)")
    }
}

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const PASSWORD_CHARACTERS: usize = 12;
/// Longest link text that is parsed.
const MAX_TEXT_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use pki::keys::PublicKeyHash;

    use super::*;
    use crate::replay::Replay;

    #[test]
    fn labels_of_zero_and_bytes_without_a_character_are_drawn_again() {
        let mut draws = vec![vec![0; 4], vec![1, 2, 0, 0]];
        draws.extend([62, 255, 0, 25, 26, 51, 52, 61].map(|byte| vec![byte]));
        draws.extend(std::iter::repeat_n(vec![0], 6));
        let mut random = Replay::of(draws);
        let link = SecretLink::random(Owner(PublicKeyHash::placeholder()), &mut random);
        assert!(random.is_used_up());
        assert_eq!(link.label, 0x201);
        assert_eq!(link.password.as_str(), "AZaz09AAAAAA");
        assert_eq!(link.to_text().parse::<SecretLink>().unwrap(), link);
    }

    #[test]
    fn a_capability_of_another_owner_is_refused() {
        let mut random = Replay::of([vec![1; 24]]);
        let link = SecretLink {
            owner: Owner(PublicKeyHash::of(
                &pki::keys::SecretSigningKey::from_seed(&[1; 32]).public(),
            )),
            label: 1,
            password: LinkPassword("p".into()),
        };
        let sealed = link
            .seal(&AbsoluteCapability::null(), "", &mut random)
            .unwrap();
        assert_eq!(link.open(&sealed, ""), Err(LinkError::ForeignOwner));
    }

    #[test]
    fn debug_and_errors_hide_the_password() {
        let link: SecretLink = format!("secret/{}/7#hunter2", PublicKeyHash::placeholder())
            .parse()
            .unwrap();
        assert_eq!(format!("{link:?}"), "SecretLink(7, ..)");
        assert!(!format!("{:?}", link.password).contains("hunter2"));
        assert_eq!("secret/x/7#hunter2".parse::<SecretLink>(), Err(NotALink));
    }
}
