//! The store of mirror access tokens (Spec: 09 §5).

use bytes::Bytes;
use champ::{
    access::{Bat, BatId, BatWithId},
    cbor::{Record as _, RecordError, Value},
};
use pki::username::Username;

use crate::{
    directory::User,
    error::Refusal,
    migration,
    state::State,
    store::{Batch, tables},
};

/// Most tokens of one user.
const MAX_BATS: usize = 20;
/// Attempts at a change that other changes overtake.
const MAX_ATTEMPTS: usize = 10;

/// Returns a user's tokens, oldest first.
pub(crate) async fn of_user(state: &State, name: &Username) -> Result<Vec<BatWithId>, Refusal> {
    Ok(load(state, name).await?.1)
}

/// Returns the token in use: the newest one.
pub(crate) async fn newest(state: &State, name: &Username) -> Result<Option<BatWithId>, Refusal> {
    Ok(of_user(state, name).await?.pop())
}

/// Refuses an id that is not a hash of the secret in one of its two forms.
pub(crate) fn check_id(bat: &BatWithId) -> Result<(), Refusal> {
    if bat.id == bat.bat.secret_hash_id() || bat.id == bat.bat.calculated_id() {
        Ok(())
    } else {
        Err(Refusal::rule("Invalid BAT id for BAT"))
    }
}

/// Adds a token; one that is there already changes nothing.
pub(crate) async fn add(state: &State, user: &User, id: BatId, bat: Bat) -> Result<(), Refusal> {
    let guarded = user.is_local.then_some(user);
    add_as(state, &user.name, guarded, BatWithId { bat, id }).await
}

/// As [`add`], for a token that another node has kept.
pub(crate) async fn add_copy(
    state: &State,
    name: &Username,
    bat: &BatWithId,
) -> Result<(), Refusal> {
    add_as(state, name, None, bat.clone()).await
}

async fn add_as(
    state: &State,
    name: &Username,
    guarded: Option<&User>,
    added: BatWithId,
) -> Result<(), Refusal> {
    check_id(&added)?;
    let id_row = added.id.cid().to_bytes();
    for _ in 0..MAX_ATTEMPTS {
        let holder = state.store.get(tables::BAT_IDS, &id_row).await?;
        match holder {
            Some(holder) if holder == name.as_str().as_bytes() => return Ok(()),
            Some(_) => return Err(Refusal::rule("This BAT id belongs to another user")),
            None => {}
        }
        let (before, mut bats) = load(state, name).await?;
        if bats.len() >= MAX_BATS {
            return Err(Refusal::rule("Too many mirror BATs"));
        }
        bats.push(added.clone());
        let key = name.as_str().as_bytes().to_vec();
        let batch = Batch::new()
            .expect_absent(tables::BAT_IDS, id_row.clone())
            .put(tables::BAT_IDS, id_row.clone(), key.clone())
            .expect(tables::BATS, key.clone(), before)
            .put(tables::BATS, key, encode(&bats));
        let batch = match guarded {
            Some(user) => migration::guard(state, user, batch).await?,
            None => batch,
        };
        if state.store.commit(batch).await?.is_committed() {
            return Ok(());
        }
    }
    Err(Refusal::RateLimit("Too many changes of mirror BATs"))
}

/// Adds the rows of a new user's first token to a batch.
pub(crate) fn first_rows(batch: Batch, name: &Username, bat: &BatWithId) -> Batch {
    let key = name.as_str().as_bytes().to_vec();
    let id_row = bat.id.cid().to_bytes();
    batch
        .expect_absent(tables::BAT_IDS, id_row.clone())
        .put(tables::BAT_IDS, id_row, key.clone())
        .expect_absent(tables::BATS, key.clone())
        .put(tables::BATS, key, encode(std::slice::from_ref(bat)))
}

/// Returns the wire form of a list of tokens.
pub(crate) fn encode(bats: &[BatWithId]) -> Bytes {
    Value::List(bats.iter().map(champ::cbor::Record::to_value).collect())
        .encode()
        .into()
}

async fn load(state: &State, name: &Username) -> Result<(Option<Bytes>, Vec<BatWithId>), Refusal> {
    let row = state
        .store
        .get(tables::BATS, name.as_str().as_bytes())
        .await?;
    let bats = match &row {
        None => Vec::new(),
        Some(row) => champ::cbor::decode(row)
            .map_err(RecordError::from)
            .and_then(|value| value.into_list("bats"))
            .and_then(|list| list.into_iter().map(BatWithId::from_value).collect())
            .map_err(Refusal::internal)?,
    };
    Ok((row, bats))
}
