//! Turning a password into key material (Spec: 02 §8.2).

use pki::algorithm::Scrypt;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Key material could not be derived: parameters that scrypt does not allow, or not enough memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("password could not be hashed with these parameters")]
pub struct PasswordError;

/// Returns scrypt over the SHA-256 of the password, with the UTF-8 of `salt`.
///
/// The password is taken as it is: no trimming, no normalization, no case change. The parameters must have
/// been bounded with [`login_work`](pki::algorithm::LoginAlgorithm::login_work) if a stranger chose them; the
/// usual ones take 128 MiB and a third of a second, so run this where blocking is allowed.
///
/// # Errors
/// [`PasswordError`].
pub fn hash_password(
    salt: &str,
    password: &str,
    cost: &Scrypt,
) -> Result<Zeroizing<Vec<u8>>, PasswordError> {
    let length = usize::try_from(cost.output_bytes()).map_err(|_| PasswordError)?;
    let mut output = Zeroizing::new(vec![0; length]);
    derive(
        salt,
        password,
        (cost.memory_cost(), cost.block_size(), cost.parallelism()),
        &mut output,
    )?;
    Ok(output)
}

fn derive(
    salt: &str,
    password: &str,
    cost: (u8, u32, u32),
    output: &mut [u8],
) -> Result<(), PasswordError> {
    let password = Zeroizing::new(<[u8; 32]>::from(Sha256::digest(password)));
    backend(password.as_slice(), salt.as_bytes(), cost, output)
}

#[cfg(not(target_arch = "wasm32"))]
fn backend(
    password: &[u8],
    salt: &[u8],
    (log_n, r, p): (u8, u32, u32),
    output: &mut [u8],
) -> Result<(), PasswordError> {
    sodium::scrypt(password, salt, log_n, r, p, output).map_err(|_| PasswordError)
}

#[cfg(target_arch = "wasm32")]
fn backend(
    password: &[u8],
    salt: &[u8],
    cost: (u8, u32, u32),
    output: &mut [u8],
) -> Result<(), PasswordError> {
    portable(password, salt, cost, output)
}

#[cfg(any(test, target_arch = "wasm32"))]
fn portable(
    password: &[u8],
    salt: &[u8],
    (log_n, r, p): (u8, u32, u32),
    output: &mut [u8],
) -> Result<(), PasswordError> {
    let params = scrypt::Params::new(log_n, r, p).map_err(|_| PasswordError)?;
    scrypt::scrypt(password, salt, &params, output).map_err(|_| PasswordError)
}

#[cfg(test)]
mod tests {
    use champ::text;
    use serde_json::Value;

    use super::*;

    /// The `derive` cases of `scrypt.json`: some cost less than any record may ask for.
    #[test]
    fn vectors_of_the_bare_derivation() {
        let file = include_str!("../../tests/vectors/scrypt.json");
        let file: Value = serde_json::from_str(file).unwrap();
        let mut ran = 0;
        for case in file["cases"].as_array().unwrap() {
            if case["kind"] != "derive" {
                continue;
            }
            let field = |name: &str| case[name].as_str().unwrap();
            let number = |name: &str| u32::try_from(case[name].as_u64().unwrap()).unwrap();
            let expected = text::from_hex(field("output")).unwrap();
            assert_eq!(expected.len() as u64, case["o_bytes"].as_u64().unwrap());
            let log_n = u8::try_from(number("m_log2N")).unwrap();
            let cost = (log_n, number("c_r"), number("p"));
            let mut output = vec![0; expected.len()];
            derive(field("salt_text"), field("password"), cost, &mut output).unwrap();
            assert_eq!(output, expected);
            if log_n < 14 {
                let password = Sha256::digest(field("password"));
                let salt = field("salt_text").as_bytes();
                output.fill(0);
                portable(&password, salt, cost, &mut output).unwrap();
                assert_eq!(output, expected);
            }
            ran += 1;
        }
        assert_eq!(ran, 6);
    }

    #[test]
    fn impossible_parameters_are_an_error() {
        let mut output = [0; 32];
        for cost in [(64, 8, 1), (4, 0, 1), (4, 1 << 30, 1)] {
            assert_eq!(derive("s", "p", cost, &mut output), Err(PasswordError));
        }
    }
}
