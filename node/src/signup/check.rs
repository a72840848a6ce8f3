//! Every check of a sign-up's op log, before anything of it is stored (Spec: 10 §7.3).

use std::collections::{BTreeSet, HashMap};

use champ::{Cid, MemoryBlocks, SourceError, cbor::Record as _};
use pki::{
    keys::{PublicSigningKey, Writer},
    owned::{PointerSource, WalkLimits, owned_by_user},
    pointer::{PointerUpdate, SignedPointer, check_successor},
    wire::{
        op_log::{BlockWrite, NewLogin, NewMirrorBat, Op, OpLog},
        pointer_batch::PointerWrite,
    },
};

use crate::{
    auth::{Window, signed_request},
    bats, blocks,
    directory::User,
    error::Refusal,
    pointers,
    state::State,
};

/// An op log that passed every check.
#[derive(Clone)]
pub(super) struct Checked {
    pub(super) blocks: Vec<champ::Block>,
    pub(super) pointers: Vec<(Writer, SignedPointer)>,
    pub(super) writers: BTreeSet<Writer>,
    pub(super) login: Option<NewLogin>,
    pub(super) mirror_bat: Option<NewMirrorBat>,
}

/// Checks a whole op log before anything is stored.
pub(super) async fn check(state: &State, user: &User, log: OpLog) -> Result<Checked, Refusal> {
    check_at(state, user, log, Window::HOUR).await
}

/// As [`check`], with the window that signed requests in it must lie in.
pub(super) async fn check_at(
    state: &State,
    user: &User,
    log: OpLog,
    window: Window,
) -> Result<Checked, Refusal> {
    let identity = user
        .identity
        .hash()
        .inline_key()
        .ok_or_else(|| Refusal::rule("Invalid signup data!"))?;
    let mut new = MemoryBlocks::new();
    let mut blocks = Vec::new();
    let mut used = BTreeSet::from([user.identity.as_writer()]);
    let mut pointer_writes = Vec::new();
    for op in log.ops {
        match op {
            Op::Block(write) => {
                let block = check_block(&write, &new).await?;
                new.insert(block.clone());
                blocks.push(block);
                used.insert(write.writer);
            }
            Op::Pointer(write) => {
                used.insert(write.writer.clone());
                pointer_writes.push(write);
            }
        }
    }
    let pointers = check_pointers(pointer_writes, &new).await?;
    let roots = Roots(
        pointers
            .iter()
            .map(|(writer, signed)| (writer.clone(), signed.update().updated().cloned()))
            .collect(),
    );
    let owned = owned_by_user(&user.identity, &roots, &new, WalkLimits::default())
        .await
        .map_err(|error| Refusal::malformed(error.to_string()))?;
    if let Some(stranger) = used.iter().find(|writer| !owned.writers.contains(writer)) {
        return Err(Refusal::UnknownWriter(stranger.cid().clone()));
    }
    if let Some(login) = &log.login {
        check_login(user, &identity, login)?;
    }
    if let Some(mirror) = &log.mirror_bat {
        bats::check_id(&mirror.bat)?;
        signed_request(
            &identity,
            &mirror.auth,
            "peergos/v0/bats/addBat",
            state.clock.now_millis(),
            window,
        )?;
    }
    Ok(Checked {
        blocks,
        pointers,
        writers: used,
        login: log.login,
        mirror_bat: log.mirror_bat,
    })
}

async fn check_block(write: &BlockWrite, new: &MemoryBlocks) -> Result<champ::Block, Refusal> {
    let key = pointers::signing_key(&write.writer, new).await?;
    blocks::verified(&key, write.format, &write.block, &write.signature)
}

/// Plays the pointer updates through, in order, and returns the last one of each writer.
async fn check_pointers(
    writes: Vec<PointerWrite>,
    new: &MemoryBlocks,
) -> Result<Vec<(Writer, SignedPointer)>, Refusal> {
    let mut latest: Vec<(Writer, SignedPointer)> = Vec::new();
    for write in writes {
        let writer = write.writer;
        if write.signed.len() > pki::pointer::OFFICIAL_MAX_SIGNED_BYTES {
            return Err(Refusal::rule(format!(
                "Pointer update too big! {}",
                write.signed.len()
            )));
        }
        let key = pointers::signing_key(&writer, new).await?;
        let signed =
            pointers::verify(&key, &write.signed).map_err(|error| error.into_refusal(&writer))?;
        let before: Option<&PointerUpdate> = latest
            .iter()
            .find(|(known, _)| *known == writer)
            .map(|(_, signed)| signed.update());
        check_successor(before, signed.update())?;
        if let Some(target) = signed.update().updated() {
            pointers::check_root(target, &writer, new)
                .await
                .map_err(|error| error.into_refusal(&writer))?;
        }
        match latest.iter_mut().find(|(known, _)| *known == writer) {
            Some(entry) => entry.1 = signed,
            None => latest.push((writer, signed)),
        }
    }
    Ok(latest)
}

fn check_login(user: &User, identity: &PublicSigningKey, login: &NewLogin) -> Result<(), Refusal> {
    if login.data.username != user.name || login.data.root_change.is_some() {
        return Err(Refusal::rule("Invalid signup data!"));
    }
    identity
        .verify_detached(&login.data.encode(), &login.auth)
        .map_err(|_| Refusal::Signature)
}

/// The pointers of an account that does not exist yet.
struct Roots(HashMap<Writer, Option<Cid>>);

#[async_trait::async_trait]
impl PointerSource for Roots {
    async fn root(&self, writer: &Writer) -> Result<Option<Cid>, SourceError> {
        Ok(self.0.get(writer).cloned().flatten())
    }
}
