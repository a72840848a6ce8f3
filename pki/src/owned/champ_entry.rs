//! Entries of the owned key champ (Spec: 04 §5.2).

use champ::{
    Block, BlockSource,
    cbor::{Record, Value},
    map::{Champ, ChampError},
};

use super::OwnerProof;
use crate::keys::PublicKeyHash;

/// Returns the key under which a proof stands in the owned key champ: the bytes of the link to the owned
/// key hash, reversed, so that the random bytes come first.
pub fn owned_key_label(owned: &PublicKeyHash) -> Vec<u8> {
    let mut label = owned.encode();
    label.reverse();
    label
}

/// Adds a proof to an owned key champ and returns the block that holds it, to be uploaded as well.
///
/// # Errors
/// [`ChampError::CompareAndSwap`] when the key is already owned, and as [`Champ::put`].
pub async fn add_owned_key(
    champ: &mut Champ,
    proof: &OwnerProof,
    blocks: &dyn BlockSource,
) -> Result<Block, ChampError> {
    let block = Block::cbor(proof.encode())?;
    let label = owned_key_label(proof.owned());
    // A put of the same value is no change to the champ; adding a key twice is refused all the same.
    if champ.get(&label, blocks).await?.is_some() {
        return Err(ChampError::CompareAndSwap);
    }
    champ
        .put(label, None, Value::from(block.cid()), blocks)
        .await?;
    Ok(block)
}

/// Removes a key from an owned key champ; one that is absent changes nothing.
///
/// # Errors
/// As [`Champ::remove_all`].
pub async fn remove_owned_key(
    champ: &mut Champ,
    owned: &PublicKeyHash,
    blocks: &dyn BlockSource,
) -> Result<(), ChampError> {
    champ.remove_all(&[owned_key_label(owned)], blocks).await
}
