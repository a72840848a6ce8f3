//! The way from an id to the one that its node goes by now (Spec: 11 §2.4).

use champ::{Cid, Codec, Multihash};

use super::{Announcement, Resolution, key_of_id};

/// Most changes of identity that are followed from one id on (Spec: 40, P2P-8).
pub const MAX_ROTATIONS: usize = 8;

/// The nodes of the public network that had RSA keys, which a client cannot check, and what followed them
/// (Spec: 11 §2.2).
const RSA_ROTATIONS: [(&str, &str); 2] = [
    (
        "QmPqn9a1tJLpMtaCz1DSQNMAfsv6qXEx6XU2eLMTc2DVV4",
        "12D3KooWEnCzE4uSeniFaCGXQuV1UnYkvqvbQJnYC363S2abgknr",
    ),
    (
        "QmcoDbhCiVXGrWs6rwBvB59Gm44veo7Qxn2zmRnPw7BaCH",
        "12D3KooWFv6ZcoUKyaDBB7nR5SQg6HpmEbDXad48WyFSyEk7xrSR",
    ),
];

/// Why nobody is led on from an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotFollowed {
    /// There is no record of an id.
    #[error("there is no signed record of an id")]
    NoRecord,
    /// The record is not signed by the key that the id is, or is none.
    #[error("the record of an id was not signed by its key")]
    Forged,
    /// The id is the hash of an RSA key, and none of those that are known to have changed.
    #[error("an id is that of an RSA key, whose records only nodes can check")]
    RsaKey,
    /// The node goes by this id.
    #[error("the record of an id says that it is in use")]
    InUse,
    /// The record says that something follows, and not what.
    #[error("the record of an id does not say which one follows")]
    NoSuccessor,
    /// The records lead in a circle.
    #[error("the records lead in a circle")]
    Circle,
    /// There are more than [`MAX_ROTATIONS`].
    #[error("the records lead over more than {MAX_ROTATIONS} ids")]
    TooLong,
}

/// Follows the records of a node from one id to the next.
#[derive(Debug, Clone)]
pub struct Trail {
    /// The id that was followed from, then every one that was led to; never empty.
    ids: Vec<Multihash>,
}

impl Trail {
    /// Begins at an id.
    pub fn from(id: Multihash) -> Self {
        Self { ids: vec![id] }
    }

    /// Returns the id that was led to last; the first one when none was.
    #[expect(clippy::expect_used, reason = "a trail begins with an id")]
    pub fn last(&self) -> &Multihash {
        self.ids.last().expect("never empty")
    }

    /// Returns true when a record led on.
    pub const fn has_moved(&self) -> bool {
        self.ids.len() > 1
    }

    /// Goes on to where a record says, which the caller has checked to be the last id's.
    ///
    /// # Errors
    /// [`NotFollowed`]; the trail stays where it is.
    pub fn follow(&mut self, record: &Resolution) -> Result<(), NotFollowed> {
        if !record.is_rotated {
            return Err(NotFollowed::InUse);
        }
        self.go(record.next.clone().ok_or(NotFollowed::NoSuccessor)?)
    }

    /// Goes on to where the signed part of a record says, with the signature over it.
    ///
    /// # Errors
    /// As [`Trail::follow`], and [`NotFollowed::Forged`].
    pub fn follow_signed(&mut self, data: &[u8], signature: &[u8]) -> Result<(), NotFollowed> {
        let announced = Announcement::verify(self.last(), data, signature);
        self.follow(&announced.map_err(|_| NotFollowed::Forged)?.resolution)
    }

    /// Goes on without a record, where one of a key is not to be had by clients; false when a record is needed.
    ///
    /// # Errors
    /// [`NotFollowed::RsaKey`] for a key that is neither in its id nor known to have been followed.
    pub fn follow_known(&mut self) -> Result<bool, NotFollowed> {
        let last = self.last();
        if key_of_id(last).is_some() {
            return Ok(false);
        }
        let id = |text| Cid::parse_peer_id(text).map(|id| id.hash().clone()).ok();
        let known = RSA_ROTATIONS
            .iter()
            .find(|(from, _)| id(from).as_ref() == Some(last));
        let next = known
            .and_then(|(_, to)| id(to))
            .ok_or(NotFollowed::RsaKey)?;
        self.go(next).map(|()| true)
    }

    fn go(&mut self, next: Multihash) -> Result<(), NotFollowed> {
        if self.ids.contains(&next) {
            return Err(NotFollowed::Circle);
        }
        if self.ids.len() > MAX_ROTATIONS {
            return Err(NotFollowed::TooLong);
        }
        self.ids.push(next);
        Ok(())
    }

    /// Returns the id that was led to last, as claims name nodes.
    pub fn last_id(&self) -> Cid {
        Cid::v1(Codec::Libp2pKey, self.last().clone())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use champ::cbor::Record as _;

    use super::*;
    use crate::{
        keys::SecretSigningKey,
        node_identity::{id_of_key, signed_bytes},
    };

    fn key(n: u8) -> SecretSigningKey {
        SecretSigningKey::from_seed(&[n; 32])
    }

    fn id(n: u8) -> Multihash {
        id_of_key(&key(n).public()).hash().clone()
    }

    fn rotated(to: u8) -> Resolution {
        Resolution {
            next: Some(id(to)),
            is_rotated: true,
            ..Resolution::first()
        }
    }

    fn signed(by: u8, resolution: Resolution) -> (Vec<u8>, [u8; 64]) {
        let data = Announcement {
            value: Bytes::new(),
            validity: Bytes::new(),
            sequence: resolution.sequence,
            ttl: 1,
            resolution,
        };
        let data = data.encode();
        let signature = key(by).sign_detached(&signed_bytes(&data));
        (data, signature)
    }

    #[test]
    fn p2p_8_a_trail_has_an_end_and_no_circle() {
        let mut trail = Trail::from(id(0));
        assert!(!trail.has_moved());
        for n in 1..=8 {
            trail.follow(&rotated(n)).unwrap();
            assert_eq!((trail.last(), trail.has_moved()), (&id(n), true));
        }
        assert_eq!(trail.follow(&rotated(9)), Err(NotFollowed::TooLong));
        for n in 0..=8 {
            assert_eq!(trail.follow(&rotated(n)), Err(NotFollowed::Circle));
        }
        assert_eq!(*trail.last(), id(8));
        assert_eq!(trail.last_id(), id_of_key(&key(8).public()));
    }

    #[test]
    fn p2p_8_only_a_signed_move_leads_on() {
        let mut trail = Trail::from(id(1));
        let mut follow = |by, resolution| {
            let (data, signature) = signed(by, resolution);
            trail.follow_signed(&data, &signature)
        };
        let announced = Resolution {
            is_rotated: false,
            ..rotated(2)
        };
        assert_eq!(follow(1, announced), Err(NotFollowed::InUse));
        assert_eq!(follow(1, Resolution::first()), Err(NotFollowed::InUse));
        let nowhere = Resolution {
            next: None,
            ..rotated(2)
        };
        assert_eq!(follow(1, nowhere), Err(NotFollowed::NoSuccessor));
        assert_eq!(follow(2, rotated(2)), Err(NotFollowed::Forged));
        assert_eq!(follow(1, rotated(1)), Err(NotFollowed::Circle));
        assert_eq!(follow(1, rotated(2)), Ok(()));
        // From there on the next key is asked.
        assert_eq!(follow(1, rotated(3)), Err(NotFollowed::Forged));
        assert_eq!(follow(2, rotated(3)), Ok(()));
        assert_eq!(
            trail.follow_signed(b"x", &[0; 64]),
            Err(NotFollowed::Forged)
        );
        assert_eq!(*trail.last(), id(3));
    }

    #[test]
    fn p2p_8_of_rsa_keys_two_are_known_to_have_been_followed() {
        let parse = |text| Cid::parse_peer_id(text).unwrap().hash().clone();
        for (from, to) in RSA_ROTATIONS {
            let mut trail = Trail::from(parse(from));
            assert_eq!(trail.follow_known(), Ok(true));
            assert_eq!(*trail.last(), parse(to));
            assert_eq!(trail.last_id().bare_multihash_text(), to);
            // There the ordinary rule begins.
            assert_eq!(trail.follow_known(), Ok(false));
        }
        let registrar = parse("QmVdFZgHnEgcedCS2G2ZNiEN59LuVrnRm7z3yXtEBv2XiF");
        let mut trail = Trail::from(registrar);
        assert_eq!(trail.follow_known(), Err(NotFollowed::RsaKey));
        let (data, signature) = signed(1, rotated(2));
        assert_eq!(
            trail.follow_signed(&data, &signature),
            Err(NotFollowed::Forged)
        );
        assert_eq!(Trail::from(id(1)).follow_known(), Ok(false));
    }
}
