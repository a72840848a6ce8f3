//! The text form of absolute capabilities (Spec: 20 §2.3).

use std::str::FromStr;

use champ::{
    access::Bat,
    cbor::{Record, RecordError},
    text::{self, TextError},
};
use pki::keys::{Owner, Writer};

use super::{AbsoluteCapability, MapKey};
use crate::crypto::SymmetricKey;

/// Text that is not a capability link. Never repeats the text: it may hold keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkTextError {
    /// Other than four parts (to read) or five (to write).
    #[error("capability link has {actual} parts, not 4 or 5")]
    PartCount {
        /// Parts found; counting stops at six.
        actual: usize,
    },
    /// Longer than any capability.
    #[error("capability link is longer than {MAX_TEXT_BYTES} bytes")]
    TooLong,
    /// A part that is not base58.
    #[error("capability link is not base58")]
    Base58(#[from] TextError),
    /// The third part has less than the 32 bytes of a map key.
    #[error("capability link has a short map key")]
    ShortMapKey,
    /// A part that does not hold its record.
    #[error("capability link holds a malformed record")]
    Record(#[from] RecordError),
}

impl AbsoluteCapability {
    /// Returns the capability link: `#owner/writer/mapkey-and-bat/rBase[/wBase]`.
    ///
    /// It contains the keys; whoever reads it can open the item.
    pub fn to_link_text(&self) -> String {
        let mut node = self.map_key.bytes().to_vec();
        if let Some(bat) = &self.bat {
            node.extend_from_slice(&bat.encode());
        }
        let mut parts = vec![
            self.owner.encode(),
            self.writer.encode(),
            node,
            self.r_base.encode(),
        ];
        parts.extend(self.w_base.as_ref().map(Record::encode));
        let parts: Vec<String> = parts.iter().map(|part| text::to_base58(part)).collect();
        format!("#{}", parts.join("/"))
    }
}

impl FromStr for AbsoluteCapability {
    type Err = LinkTextError;

    fn from_str(link: &str) -> Result<Self, LinkTextError> {
        if link.len() > MAX_TEXT_BYTES {
            return Err(LinkTextError::TooLong);
        }
        let link = link.strip_prefix('#').unwrap_or(link);
        let parts: Vec<&str> = link.splitn(6, '/').collect();
        let (owner, writer, node, r_base, w_base) = match parts.as_slice() {
            [owner, writer, node, r_base] => (owner, writer, node, r_base, None),
            [owner, writer, node, r_base, w_base] => (owner, writer, node, r_base, Some(w_base)),
            other => {
                return Err(LinkTextError::PartCount {
                    actual: other.len(),
                });
            }
        };
        let node = text::from_base58(node)?;
        let (map_key, bat) = node.split_first_chunk().ok_or(LinkTextError::ShortMapKey)?;
        Ok(Self {
            owner: Owner::decode(&text::from_base58(owner)?)?,
            writer: Writer::decode(&text::from_base58(writer)?)?,
            map_key: MapKey::from_bytes(*map_key),
            bat: match bat {
                [] => None,
                record => Some(Bat::decode(record)?),
            },
            r_base: SymmetricKey::decode(&text::from_base58(r_base)?)?,
            w_base: match w_base {
                Some(part) => Some(SymmetricKey::decode(&text::from_base58(part)?)?),
                None => None,
            },
        })
    }
}

/// Longest text that is parsed; a writable capability takes about 330 bytes. Decoding base58 takes time
/// quadratic in the length.
const MAX_TEXT_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn capability() -> AbsoluteCapability {
        AbsoluteCapability {
            bat: Some(Bat::from_secret([4; 32])),
            w_base: Some(SymmetricKey::from_bytes([5; 32])),
            ..AbsoluteCapability::null()
        }
    }

    #[test]
    fn leading_zero_bytes_of_the_map_key_survive() {
        let text = capability().to_link_text();
        assert_eq!(text.parse::<AbsoluteCapability>().unwrap(), capability());
        assert_eq!(
            text[1..].parse::<AbsoluteCapability>().unwrap(),
            capability()
        );
        let bare = AbsoluteCapability::null();
        assert_eq!(bare.to_link_text().parse::<AbsoluteCapability>(), Ok(bare));
    }

    #[test]
    fn malformed_links_are_rejected() {
        let text = capability().to_link_text();
        for (bad, error) in [
            (String::new(), LinkTextError::PartCount { actual: 1 }),
            (
                format!("{text}/1/1"),
                LinkTextError::PartCount { actual: 6 },
            ),
            ("1/".repeat(MAX_TEXT_BYTES), LinkTextError::TooLong),
            ("#1/1/1/1".into(), LinkTextError::ShortMapKey),
        ] {
            assert_eq!(bad.parse::<AbsoluteCapability>(), Err(error));
        }
        assert!(
            text.replace('/', "0/")
                .parse::<AbsoluteCapability>()
                .is_err()
        );
        let mut parts: Vec<&str> = text.split('/').collect();
        let long_node = text::to_base58(&[1; 40]);
        parts[2] = &long_node;
        assert!(matches!(
            parts.join("/").parse::<AbsoluteCapability>(),
            Err(LinkTextError::Record(_))
        ));
    }

    #[test]
    fn debug_shows_no_keys() {
        let shown = format!("{:?}", capability());
        assert!(
            !shown.contains("050505") && !shown.contains("040404"),
            "{shown}"
        );
    }
}
