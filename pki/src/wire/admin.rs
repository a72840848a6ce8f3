//! What anybody may ask of a node (Spec: 09 §2). Space requests are in [`payment`](super::payment).

use champ::cbor::{Fields, Map, Record, RecordError, Value};

use super::body::record_body;

/// Longest mail address for the waiting list, in bytes.
pub const MAX_EMAIL_BYTES: usize = 256;

/// The reply of `version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// `major.minor.patch` with optional `-suffix`.
    pub version: String,
    /// Build id, may be empty.
    pub build: String,
}

impl Record for VersionInfo {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("s", self.build.as_str());
        map.insert("v", self.version.as_str());
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "version")?;
        Ok(Self {
            version: fields.required("v")?.into_text("v")?,
            build: fields.required("s")?.into_text("s")?,
        })
    }
}

/// The reply of `signups`: which kinds of sign-up are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedSignups {
    /// Without payment.
    pub free: bool,
    /// With payment.
    pub paid: bool,
}

impl Record for AllowedSignups {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([("f", self.free), ("p", self.paid)]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "allowed sign-ups")?;
        Ok(Self {
            free: fields.required("f")?.into_bool("f")?,
            paid: fields.required("p")?.into_bool("p")?,
        })
    }
}

/// Returns true for what the waiting list takes: `[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,6}`, at
/// most [`MAX_EMAIL_BYTES`]. No line feed can pass.
pub fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let Some((host, top)) = domain.rsplit_once('.') else {
        return false;
    };
    let word = |text: &str, more: &[u8]| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    text.len() <= MAX_EMAIL_BYTES
        && word(local, b"._%+-")
        && word(host, b".-")
        && (2..=6).contains(&top.len())
        && top.bytes().all(|b| b.is_ascii_alphabetic())
}

record_body! {
    VersionInfo: 4 << 10, 64;
    AllowedSignups: 1 << 10, 64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_addresses_are_one_line() {
        for good in ["a@example.com", "a.b%c+d-e_f@x-y.z.info"] {
            assert!(is_email(good), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(246));
        for bad in [
            "",
            "a",
            "a@b",
            "@b.de",
            "a@.de",
            "a@b.c",
            "a@b.abcdefg",
            "a@b@c.de",
            "a b@c.de",
            "a@b.de\n",
            "a\n@b.de",
            "ä@b.de",
            "a@b.d3",
            long.as_str(),
        ] {
            assert!(!is_email(bad), "{bad:?}");
        }
    }
}
