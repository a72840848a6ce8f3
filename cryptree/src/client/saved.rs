//! A session kept for later, sealed under a key of the caller's.
//!
//! Holds what the login data hold and the memory of pointers, so that a command started tomorrow needs neither
//! the password nor a derivation, and still refuses a node that went back in time. Whoever has the bytes and the
//! key has the account: keep them apart where possible. The format is ours alone (version 1): a cipher text
//! record over the map `{v, n: name, o: owner, e: entry points, i: identity key, r: login key, b: mirror tokens,
//! p: [[writer, pointer update] ...]}`.

use champ::{
    access::BatWithId,
    cbor::{Fields, Map, Record, RecordError, Value},
};
use pki::{
    keys::{Owner, PublicSigningKey, SecretKeyWithHash, Writer},
    pointer::{PointerMemory, PointerUpdate},
    username::Username,
};
use std::sync::Arc;

use super::{
    Client, Session,
    cache::ChildLists,
    session::{Account, Reading, WriteLocks},
};
use crate::{ciphertext::CipherText, crypto::SymmetricKey, error::ClientError, login::EntryPoints};

/// Version of the format.
const VERSION: i64 = 1;
/// Largest saved session that is read.
const MAX_BYTES: usize = 64 << 20;
/// Mirror tokens and remembered writers that are read.
const MAX_LIST: usize = 100_000;

struct Saved {
    name: String,
    owner: Owner,
    entry_points: EntryPoints,
    identity: SecretKeyWithHash,
    reader: PublicSigningKey,
    mirror_bats: Vec<BatWithId>,
    pointers: Vec<(Writer, PointerUpdate)>,
}

impl Record for Saved {
    fn to_value(&self) -> Value {
        let bats: Vec<Value> = self.mirror_bats.iter().map(Record::to_value).collect();
        let pointers = self.pointers.iter();
        let pointers: Vec<Value> = pointers
            .map(|(writer, update)| Value::List(vec![writer.to_value(), update.to_value()]))
            .collect();
        let mut map = Map::new();
        map.insert("v", VERSION);
        map.insert("n", self.name.as_str());
        map.insert("o", self.owner.to_value());
        map.insert("e", self.entry_points.to_value());
        map.insert("i", self.identity.to_value());
        map.insert("r", self.reader.to_value());
        map.insert("b", bats);
        map.insert("p", pointers);
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "saved session")?;
        if fields.required("v")?.into_int("v")? != VERSION {
            return Err(RecordError::OutOfRange { field: "v" });
        }
        let mut list = |field: &'static str| {
            let list = fields.required(field)?.into_list(field)?;
            if list.len() > MAX_LIST {
                return Err(RecordError::OutOfRange { field });
            }
            Ok(list)
        };
        let bats = list("b")?;
        let pointers = list("p")?;
        Ok(Self {
            name: fields.required("n")?.into_text("n")?,
            owner: Owner::from_value(fields.required("o")?)?,
            entry_points: EntryPoints::from_value(fields.required("e")?)?,
            identity: SecretKeyWithHash::from_value(fields.required("i")?)?,
            reader: PublicSigningKey::from_value(fields.required("r")?)?,
            mirror_bats: bats
                .into_iter()
                .map(BatWithId::from_value)
                .collect::<Result<_, _>>()?,
            pointers: pointers
                .into_iter()
                .map(remembered)
                .collect::<Result<_, _>>()?,
        })
    }
}

fn remembered(pair: Value) -> Result<(Writer, PointerUpdate), RecordError> {
    let mut pair = pair.into_list("p")?.into_iter();
    let mut next = || pair.next().ok_or(RecordError::Missing("p"));
    let writer = Writer::from_value(next()?)?;
    Ok((writer, PointerUpdate::from_value(next()?)?))
}

impl Session {
    /// Returns the session sealed under the secret `key`, to be opened with [`Client::restore`]. Save it again at the end of
    /// a session: it grows with what was seen.
    pub fn save(&self, key: &[u8; 32]) -> Vec<u8> {
        let account = &self.account;
        let memory = account.view.memory();
        let pointers = memory
            .seen()
            .map(|(writer, update)| (writer.clone(), update.clone()));
        let saved = Saved {
            name: account.name.to_string(),
            owner: account.owner().clone(),
            entry_points: account.entry_points.clone(),
            identity: account.identity.clone(),
            reader: account.reader,
            mirror_bats: account.mirror_bats.clone(),
            pointers: pointers.collect(),
        };
        drop(memory);
        CipherText::seal(
            &SymmetricKey::from_bytes(*key),
            &saved,
            &mut *account.random(),
        )
        .encode()
    }
}

impl Client {
    /// Opens a saved session. Nothing is sent.
    ///
    /// # Errors
    /// [`ClientError::BadSession`] when the bytes are damaged, of another version, or sealed under another key.
    pub fn restore(&self, saved: &[u8], key: &[u8; 32]) -> Result<Session, ClientError> {
        if saved.len() > MAX_BYTES {
            return Err(ClientError::BadSession);
        }
        let sealed = CipherText::decode(saved).map_err(|_| ClientError::BadSession)?;
        let saved: Saved = sealed
            .open(&SymmetricKey::from_bytes(*key))
            .map_err(|_| ClientError::BadSession)?;
        let mut memory = PointerMemory::new();
        for (writer, update) in saved.pointers {
            memory.restore(writer, update);
        }
        let name = Username::parse(&saved.name).map_err(|_| ClientError::BadSession)?;
        let home = saved.entry_points.home(name.as_str());
        let mut home = home.ok_or(ClientError::BadSession)?.capability.clone();
        home.owner = saved.owner.clone();
        Ok(Session {
            account: Arc::new(Account {
                reading: Arc::new(Reading {
                    name,
                    home,
                    view: self.view(saved.owner, memory),
                    child_lists: ChildLists::default(),
                }),
                identity: saved.identity,
                reader: saved.reader,
                entry_points: saved.entry_points,
                mirror_bats: saved.mirror_bats,
                locks: WriteLocks::default(),
            }),
        })
    }
}
