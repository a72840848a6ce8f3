//! Certificates and keys in PEM files, and until when a certificate is good.

use std::{fs, io, path::Path, time::SystemTime};

use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use super::TlsError;

/// Most certificates in a chain that are read.
const MAX_CHAIN: usize = 16;

/// What tells that files were replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp([Option<(SystemTime, u64)>; 2]);

impl Stamp {
    pub(super) fn of(chain: &Path, key: &Path) -> Self {
        Self([chain, key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        }))
    }
}

/// Reads a chain and its key, and checks that they belong together and that nobody else can read the key.
pub(super) fn load(chain: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    if crate::identity::is_exposed(key).map_err(|source| unreadable(key, source))? {
        return Err(TlsError::Exposed(key.to_owned()));
    }
    let chain_pem = fs::read(chain).map_err(|source| unreadable(chain, source))?;
    let key_pem = zeroize::Zeroizing::new(fs::read(key).map_err(|source| unreadable(key, source))?);
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&chain_pem)
        .take(MAX_CHAIN)
        .collect::<Result<_, _>>()
        .map_err(|_| missing(chain, "certificate"))?;
    if certificates.is_empty() {
        return Err(missing(chain, "certificate"));
    }
    let key_der =
        PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| missing(key, "private key"))?;
    CertifiedKey::from_der(certificates, key_der, &ring::default_provider())
        .map_err(TlsError::Unusable)
}

fn unreadable(path: &Path, source: io::Error) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        source,
    }
}

fn missing(path: &Path, what: &'static str) -> TlsError {
    TlsError::Content {
        path: path.to_owned(),
        what,
    }
}

/// From when until when a certificate is good, in seconds since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: i64,
    pub(super) until: i64,
}

/// Reads the validity of a DER certificate (RFC 5280 §4.1): it is the fifth or sixth field of its first part.
pub(super) fn validity(certificate: &[u8]) -> Option<Validity> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (signed, _) = element(element(certificate, SEQUENCE)?.0, SEQUENCE)?;
    // Version (may be absent), serial number, algorithm, issuer.
    let mut rest = match element(signed, VERSION) {
        Some((_, rest)) => rest,
        None => signed,
    };
    for tag in [0x02, SEQUENCE, SEQUENCE] {
        rest = element(rest, tag)?.1;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (from, rest) = time(validity)?;
    let (until, _) = time(rest)?;
    Some(Validity { from, until })
}

/// Splits one element with this tag off; returns its content and what follows.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Reads a `UTCTime` (`YYMMDDhhmmssZ`) or a `GeneralizedTime` (`YYYYMMDDhhmmssZ`).
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    const UTC: u8 = 0x17;
    const GENERALIZED: u8 = 0x18;
    let (text, rest, is_short) = match element(bytes, UTC) {
        Some((text, rest)) => (text, rest, true),
        None => {
            let (text, rest) = element(bytes, GENERALIZED)?;
            (text, rest, false)
        }
    };
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, fields) = text.split_at_checked(if is_short { 2 } else { 4 })?;
    let year: i64 = year.parse().ok()?;
    let year = match (is_short, year) {
        (true, 50..) => 1900 + year,
        (true, _) => 2000 + year,
        (false, _) => year,
    };
    let field = |at: usize| fields.get(at..at + 2)?.parse::<i64>().ok();
    let days = days_since_1970(year, field(0)?, field(2)?);
    let seconds = days * 86_400 + field(4)? * 3600 + field(6)? * 60 + field(8)?;
    Some((seconds, rest))
}

/// Days from 1 January 1970 to a day of the Gregorian calendar.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is the last of them.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days_in_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + days_in_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 21), 20_778),
            ((1969, 12, 31), -1),
        ] {
            assert_eq!(days_since_1970(date.0, date.1, date.2), days, "{date:?}");
        }
    }

    #[test]
    fn the_validity_of_a_certificate_is_read() {
        let mut parameters = rcgen::CertificateParams::new(vec!["example.org".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 2);
        parameters.not_after = rcgen::date_time_ymd(2051, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let found = validity(certificate.der()).unwrap();
        assert_eq!(found.from, days_since_1970(2026, 1, 2) * 86_400);
        assert_eq!(found.until, days_since_1970(2051, 2, 3) * 86_400);
        for cut in 0..120 {
            assert_eq!(validity(&certificate.der()[..cut]), None);
        }
        assert_eq!(validity(b""), None);
    }

    #[cfg(unix)]
    #[test]
    fn web_10_a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let [chain, key, wrong] =
            ["chain.pem", "key.pem", "other.pem"].map(|name| folder.path().join(name));
        fs::write(&chain, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        fs::write(&wrong, other.signing_key.serialize_pem()).unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap()
        };
        mode(&key, 0o640);
        assert!(matches!(load(&chain, &key), Err(TlsError::Exposed(_))));
        mode(&key, 0o600);
        assert_eq!(load(&chain, &key).unwrap().cert.len(), 1);
        mode(&wrong, 0o600);
        assert!(matches!(load(&chain, &wrong), Err(TlsError::Unusable(_))));
        assert!(matches!(load(&key, &key), Err(TlsError::Content { .. })));
        assert!(matches!(
            load(&folder.path().join("none"), &key),
            Err(TlsError::File { .. })
        ));
    }
}
