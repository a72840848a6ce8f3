//! The decision about a presented token (Spec: 06 §6.1, §6.2).

use champ::{
    Block, Codec,
    access::{self, Bat, BatId, BatWithId},
    cbor::{self, RecordError},
};
use subtle::{Choice, ConstantTimeEq};

/// The ids that protect a block, with the codec of its CID.
///
/// Taken from the block itself, or from metadata that was taken from it when it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    codec: Codec,
    ids: Vec<BatId>,
}

/// A read that is not allowed; why is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("block access is not authorized")]
pub struct Refused;

/// Whether this node has the block itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The block is stored here, so a token can be checked against the ids inside it.
    Locally,
    /// Only metadata is known.
    Elsewhere,
}

/// What this node knows besides the block.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// The secret in this node's token store for the id that was presented, if any.
    pub stored: Option<&'a Bat>,
    /// The operator's instance token, which opens everything.
    pub instance: Option<&'a Bat>,
    /// Whether the block is stored here.
    pub held: Held,
}

impl Protection {
    /// Combines a codec with ids from metadata.
    pub const fn new(codec: Codec, ids: Vec<BatId>) -> Self {
        Self { codec, ids }
    }

    /// Reads the ids out of a block.
    ///
    /// # Errors
    /// Any [`RecordError`] when the block announces ids that cannot be read: it must not be stored, and
    /// must not be served.
    pub fn of(block: &Block) -> Result<Self, RecordError> {
        let codec = block.cid().codec();
        let ids = match codec {
            Codec::Raw => access::split_raw(block.bytes())?.0,
            // Without building the value: a block of one-byte values would take sixty times its size.
            Codec::DagCbor => cbor::scan_block_lenient(block.bytes())?.bat_ids,
            _ => Vec::new(),
        };
        Ok(Self { codec, ids })
    }

    /// Returns true when anybody who knows the CID may read the block.
    pub const fn is_public(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns the ids, in the order in which the block has them.
    pub fn ids(&self) -> &[BatId] {
        &self.ids
    }

    /// Decides whether whoever presents a token may read the block.
    ///
    /// Allowed are, in this order: any reader of a public block; the secret of an inline id, whatever id
    /// it is presented with; the secret stored for the id presented, when the block has that id; the
    /// instance token; and, for a block held here, a secret one of whose two hashes is an id of the block.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check(&self, presented: Option<&BatWithId>, tokens: &Tokens<'_>) -> Result<(), Refused> {
        if self.ids.is_empty() {
            return Ok(());
        }
        if !self.is_readable() {
            return Err(Refused);
        }
        let presented = presented.ok_or(Refused)?;
        let secret = presented.bat.secret();
        let matches = |known: Option<&Bat>| {
            known.map_or(Choice::from(0), |known| known.secret().ct_eq(secret))
        };
        let (hash_id, calculated_id) = (
            presented.bat.secret_hash_id(),
            presented.bat.calculated_id(),
        );
        let stored = matches(tokens.stored);
        let local = Choice::from(u8::from(tokens.held == Held::Locally));
        let mut allowed = matches(tokens.instance);
        for id in &self.ids {
            // The kinds of the ids and the ids that are hashes are public; secrets are not.
            if id.is_inline() {
                allowed |= matches(id.inline_secret().as_ref());
            } else {
                allowed |= stored & Choice::from(u8::from(*id == presented.id));
                allowed |= local & (same_id(id, &hash_id) | same_id(id, &calculated_id));
            }
        }
        if allowed.into() { Ok(()) } else { Err(Refused) }
    }

    /// Decides like [`Protection::check`] about a signature made with a token: `valid` says whether the
    /// signature was made with a given secret.
    ///
    /// A signature does not reveal the secret, so its hashes cannot be compared with the ids.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check_signature(
        &self,
        presented_id: &BatId,
        tokens: &Tokens<'_>,
        mut valid: impl FnMut(&Bat) -> bool,
    ) -> Result<(), Refused> {
        if self.ids.is_empty() {
            return Ok(());
        }
        if !self.is_readable() {
            return Err(Refused);
        }
        let mut allowed = tokens.instance.is_some_and(&mut valid);
        for id in &self.ids {
            if id.is_inline() {
                allowed |= id.inline_secret().is_some_and(|bat| valid(&bat));
            } else if id == presented_id {
                allowed |= tokens.stored.is_some_and(&mut valid);
            }
        }
        if allowed { Ok(()) } else { Err(Refused) }
    }

    /// Protected blocks that are neither raw nor dag-cbor are never served.
    const fn is_readable(&self) -> bool {
        matches!(self.codec, Codec::Raw | Codec::DagCbor)
    }
}

/// Compares an id of the block with one computed from the presented secret.
fn same_id(id: &BatId, computed: &BatId) -> Choice {
    let same_form = id.cid().codec() == computed.cid().codec();
    match (
        id.cid().hash().sha2_256_digest(),
        computed.cid().hash().sha2_256_digest(),
    ) {
        (Some(a), Some(b)) => a.ct_eq(b) & Choice::from(u8::from(same_form)),
        _ => Choice::from(0),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use champ::{Cid, Multihash, cbor::Value};

    use super::*;

    fn bat(n: u8) -> Bat {
        Bat::from_secret([n; 32])
    }

    const NOTHING: Tokens<'static> = Tokens {
        stored: None,
        instance: None,
        held: Held::Elsewhere,
    };

    fn with_id(bat: &Bat, id: BatId) -> BatWithId {
        let bat = bat.clone();
        BatWithId { bat, id }
    }

    #[test]
    fn hashes_of_the_secret_open_blocks_that_are_held() {
        let (mirror, inline) = (bat(2), bat(1));
        for codec in [Codec::Raw, Codec::DagCbor] {
            for id in [mirror.secret_hash_id(), mirror.calculated_id()] {
                let block = Protection::new(codec, vec![inline.inline_id(), id.clone()]);
                let held = Tokens {
                    held: Held::Locally,
                    ..NOTHING
                };
                let presented = with_id(&mirror, bat(9).calculated_id());
                assert_eq!(block.check(Some(&presented), &held), Ok(()));
                assert_eq!(block.check(Some(&presented), &NOTHING), Err(Refused));
                let wrong = with_id(&bat(3), id);
                assert_eq!(block.check(Some(&wrong), &held), Err(Refused));
            }
        }
    }

    #[test]
    fn stored_secret_opens_only_blocks_with_its_id() {
        let mirror = bat(2);
        let tokens = Tokens {
            stored: Some(&mirror),
            ..NOTHING
        };
        let presented = with_id(&mirror, mirror.secret_hash_id());
        let own = Protection::new(Codec::Raw, vec![mirror.secret_hash_id()]);
        assert_eq!(own.check(Some(&presented), &tokens), Ok(()));
        let foreign = Protection::new(Codec::Raw, vec![bat(5).secret_hash_id()]);
        assert_eq!(foreign.check(Some(&presented), &tokens), Err(Refused));
        // The id of one token with the secret of another.
        let mixed = with_id(&bat(5), mirror.secret_hash_id());
        assert_eq!(own.check(Some(&mixed), &tokens), Err(Refused));
        assert_eq!(own.check(None, &tokens), Err(Refused));
    }

    #[test]
    fn protected_blocks_of_other_codecs_are_never_served() {
        let token = bat(1);
        let tokens = Tokens {
            stored: Some(&token),
            instance: Some(&token),
            held: Held::Locally,
        };
        let presented = token.with_calculated_id();
        for codec in [Codec::Libp2pKey, Codec::DagPb] {
            let block = Protection::new(codec, vec![token.inline_id()]);
            assert_eq!(block.check(Some(&presented), &tokens), Err(Refused));
            let signed = block.check_signature(&presented.id, &tokens, |_| true);
            assert_eq!(signed, Err(Refused));
        }
    }

    #[test]
    fn an_inline_id_of_another_length_opens_nothing() {
        let short = BatId::new(Cid::v1(Codec::Raw, Multihash::identity(&[1; 31]).unwrap()));
        let block = Protection::new(Codec::Raw, vec![short]);
        let presented = bat(1).with_calculated_id();
        let tokens = Tokens {
            held: Held::Locally,
            ..NOTHING
        };
        assert_eq!(block.check(Some(&presented), &tokens), Err(Refused));
    }

    #[test]
    fn unreadable_token_lists_are_an_error_not_public() {
        let mut bytes = access::RAW_PREFIX_MAGIC.to_vec();
        bytes.extend_from_slice(&Value::List(vec![Value::Int(1)]).encode());
        let block = Block::raw(bytes).unwrap();
        assert!(Protection::of(&block).is_err());
        let public = Block::raw(Bytes::from_static(b"data")).unwrap();
        assert!(Protection::of(&public).unwrap().is_public());
    }
}
