//! Unsigned varints (Spec: 01 §2.1).

use super::CidError;

/// Appends `value`, seven bits a byte, least significant group first.
pub fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let [group, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(group & 0x7f);
            return;
        }
        out.push(group | 0x80);
    }
}

/// Reads a minimal varint of at most ten bytes and returns what follows it.
///
/// # Errors
/// [`CidError::Truncated`] when the input ends early, [`CidError::BadVarint`] for a non-minimal form or a
/// value above 2^64 - 1.
pub fn read_varint(bytes: &[u8]) -> Result<(u64, &[u8]), CidError> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate() {
        if i == 9 && byte > 1 {
            return Err(CidError::BadVarint);
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            if byte == 0 && i > 0 {
                return Err(CidError::BadVarint);
            }
            return Ok((value, bytes.get(i + 1..).unwrap_or_default()));
        }
    }
    Err(CidError::Truncated)
}
