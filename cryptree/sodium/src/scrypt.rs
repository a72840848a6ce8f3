//! scrypt (RFC 7914).

use libsodium_sys as ffi;

use crate::{Refused, choose_implementations};

/// Fills `output` with scrypt(password, salt, N = 2^`log_n`, r, p).
///
/// Needs 128 * r * 2^`log_n` bytes of memory and time in proportion; the caller bounds them.
///
/// # Errors
/// [`Refused`] for parameters that scrypt does not allow, or when there is not enough memory.
pub fn scrypt(
    password: &[u8],
    salt: &[u8],
    log_n: u8,
    r: u32,
    p: u32,
    output: &mut [u8],
) -> Result<(), Refused> {
    choose_implementations();
    let n = 1u64.checked_shl(log_n.into()).ok_or(Refused)?;
    // SAFETY: each pointer is valid for the length passed with it, `output` for writes.
    let status = unsafe {
        ffi::crypto_pwhash_scryptsalsa208sha256_ll(
            password.as_ptr(),
            password.len(),
            salt.as_ptr(),
            salt.len(),
            n,
            r,
            p,
            output.as_mut_ptr(),
            output.len(),
        )
    };
    if status == 0 { Ok(()) } else { Err(Refused) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_7914_example() {
        let mut output = [0; 64];
        scrypt(b"password", b"NaCl", 10, 8, 16, &mut output).unwrap();
        assert_eq!(
            output[..8],
            [0xfd, 0xba, 0xbe, 0x1c, 0x9d, 0x34, 0x72, 0x00]
        );
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        let mut output = [0; 32];
        assert_eq!(scrypt(b"p", b"s", 64, 8, 1, &mut output), Err(Refused));
        assert_eq!(scrypt(b"p", b"s", 4, 0, 1, &mut output), Err(Refused));
        assert_eq!(scrypt(b"p", b"s", 4, 1 << 30, 1, &mut output), Err(Refused));
    }
}
