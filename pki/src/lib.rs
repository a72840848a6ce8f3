//! Who may sign what: keys, signed pointers, writers, name chains, access decisions, wire messages.
//!
//! Everything here is public data and signatures over it; nothing can decrypt a user's files. The crate
//! performs no I/O: the clock and the randomness are handed in, blocks come through
//! [`champ::BlockSource`].
//!
//! ```
//! use champ::Block;
//! use pki::{
//!     keys::{SecretKeyWithHash, SecretSigningKey},
//!     pointer::{PointerUpdate, SignedPointer, check_successor},
//!     writer_data::WriterData,
//! };
//!
//! // A writer publishes its first root block ...
//! let key = SecretKeyWithHash::new(SecretSigningKey::from_seed(&[7; 32]));
//! let root: Block = WriterData::new_writer(key.writer()).to_block()?;
//! let update = PointerUpdate::next(None, Some(root.cid().clone()))?;
//! let signed = SignedPointer::sign(update, key.secret());
//!
//! // ... and whoever receives it checks signature, order and controller.
//! let public = key.hash().inline_key().ok_or("named by another block")?;
//! let received = SignedPointer::verify(&public, signed.into_bytes())?;
//! check_successor(None, received.update())?;
//! WriterData::in_block(&root, &key.writer())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Spec: 02, 04, 06 §6, 07, 10, 11 §2.

pub mod algorithm;
pub mod block_access;
pub mod block_write;
pub mod boxing;
pub mod chain;
pub mod claim;
pub mod keys;
mod list;
pub mod node_identity;
pub mod owned;
pub mod pointer;
pub mod proof_of_work;
pub mod published;
pub mod signed;
pub mod username;
pub mod wire;
pub mod writer_data;
