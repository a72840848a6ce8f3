//! Time based codes: RFC 6238 with HMAC-SHA1, six digits, steps of 30 s (Spec: 08 §4.2).

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use subtle::ConstantTimeEq as _;

/// Seconds of one step of a time based code.
const STEP_SECONDS: i64 = 30;

/// Returns the step, the current or the previous one, whose code this is.
pub(super) fn matching_step(key: &[u8], code: &str, now_seconds: i64) -> Option<i64> {
    let current = now_seconds.div_euclid(STEP_SECONDS);
    let mut found = None;
    for step in [current - 1, current] {
        if bool::from(totp_code(key, step).as_bytes().ct_eq(code.as_bytes())) {
            found = Some(step);
        }
    }
    found
}

/// Returns the six digits of a step (RFC 6238 with HMAC-SHA1).
fn totp_code(key: &[u8], step: i64) -> String {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key) else {
        return String::new();
    };
    mac.update(&step.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let offset = usize::from(digest.last().copied().unwrap_or(0) & 15);
    let word = digest
        .get(offset..offset + 4)
        .and_then(|word| <[u8; 4]>::try_from(word).ok())
        .map_or(0, u32::from_be_bytes);
    format!("{:06}", (word & 0x7fff_ffff) % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_match_the_published_ones() {
        let ascii = b"12345678901234567890";
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (2_000_000_000, "279037"),
        ] {
            assert_eq!(totp_code(ascii, seconds / 30), code);
        }
    }

    #[test]
    fn log_4_current_and_previous_step_match_and_nothing_else() {
        let key = [7; 32];
        let now = 1_700_000_010;
        let at = |step: i64| totp_code(&key, now / 30 + step);
        assert_eq!(matching_step(&key, &at(0), now), Some(now / 30));
        assert_eq!(matching_step(&key, &at(-1), now), Some(now / 30 - 1));
        assert_eq!(matching_step(&key, &at(1), now), None);
        assert_eq!(matching_step(&key, &at(-2), now), None);
        for bad in ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦"] {
            assert_eq!(matching_step(&key, bad, now), None, "{bad}");
        }
    }
}
