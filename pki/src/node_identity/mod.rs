//! Ids of nodes, and the signed records by which a node goes from one to the next (Spec: 11 §1, §2).
//!
//! A record is an IPNS record with an extra field, signed by the key that the id is. What travels around the signed part
//! between nodes is their own affair; here is what everybody can check, who has no more than the signed part and the
//! signature. Invariant: nobody is led from an id anywhere unless the holder of that id has signed where to.

mod id;
mod record;
mod trail;

pub use id::{id_of_key, key_of_id};
pub use record::{Announcement, MAX_RECORD_BYTES, Resolution, signed_bytes};
pub use trail::{MAX_ROTATIONS, NotFollowed, Trail};
