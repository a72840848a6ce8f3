//! Signed pointers, and that a root is only published with everything below it (Spec: 07).

use std::collections::HashSet;

use bytes::Bytes;
use champ::{Cid, cbor::Record};
use pki::{
    keys::{Owner, Writer},
    owned::OwnerProof,
    pointer::{PointerUpdate, SignedPointer, check_successor},
    wire::pointer_batch::PointerWrite,
    writer_data::WriterData,
};

use super::node::{FakeNode, State, text};

impl FakeNode {
    pub(super) fn set_pointers(
        &self,
        owner: &Owner,
        updates: Vec<PointerWrite>,
    ) -> Result<Bytes, String> {
        let mut state = self.state.lock().unwrap();
        let mut checked = Vec::new();
        for write in updates {
            if state.writers.get(&write.writer) != Some(owner) {
                return Err("writer is not owned".to_owned());
            }
            checked.push((state.check_pointer(owner, &write)?, write));
        }
        for (update, write) in checked {
            state.apply_pointer(owner, &update, write);
        }
        Ok(Bytes::from_static(&[1]))
    }
}

impl State {
    pub(super) fn check_pointer(
        &self,
        owner: &Owner,
        write: &PointerWrite,
    ) -> Result<PointerUpdate, String> {
        let key = write.writer.0.inline_key().unwrap();
        let new = SignedPointer::verify(&key, write.signed.clone()).map_err(text)?;
        let current = self.current(&write.writer);
        check_successor(current.as_ref(), new.update()).map_err(|error| error.to_string())?;
        if let Some(root) = new.update().updated() {
            let block = self.blocks.get(owner).and_then(|space| space.get(root));
            let block =
                block.ok_or_else(|| format!("Couldn't retrieve WriterData from dht! {root}"))?;
            WriterData::in_block(block, &write.writer).map_err(text)?;
            if !self.unchecked {
                self.check_complete(owner, root);
            }
        }
        Ok(new.update().clone())
    }

    /// Nothing may ever be reachable from a pointer and not be there.
    fn check_complete(&self, owner: &Owner, root: &Cid) {
        self.reach(owner, root.clone(), &mut HashSet::new());
    }

    /// Adds everything reachable from `root` to `seen`.
    pub(super) fn reach(&self, owner: &Owner, root: Cid, seen: &mut HashSet<Cid>) {
        let space = &self.blocks[owner];
        let mut todo = vec![root];
        while let Some(cid) = todo.pop() {
            if cid.identity_content().is_some() || !seen.insert(cid.clone()) {
                continue;
            }
            let block = space
                .get(&cid)
                .unwrap_or_else(|| panic!("dangling link {cid}"));
            if cid.codec() == champ::Codec::DagCbor {
                champ::cbor::decode(block.bytes())
                    .unwrap()
                    .links_into(&mut todo);
            }
        }
    }

    pub(crate) fn current(&self, writer: &Writer) -> Option<PointerUpdate> {
        let signed = self.pointers.get(writer)?;
        let key = writer.0.inline_key().unwrap();
        Some(
            SignedPointer::verify(&key, signed.clone())
                .unwrap()
                .update()
                .clone(),
        )
    }

    pub(crate) fn apply_pointer(
        &mut self,
        owner: &Owner,
        update: &PointerUpdate,
        write: PointerWrite,
    ) {
        self.pointers.insert(write.writer.clone(), write.signed);
        let Some(root) = update.updated() else { return };
        let space = &self.blocks[owner];
        let data = WriterData::decode(space[root].bytes()).unwrap();
        let mut todo: Vec<Cid> = data.owned.into_iter().collect();
        let mut found = Vec::new();
        while let Some(cid) = todo.pop() {
            let Some(block) = space.get(&cid) else {
                continue;
            };
            if let Ok(proof) = OwnerProof::decode(block.bytes()) {
                found.push(Writer(proof.owned().clone()));
            } else if let Ok(value) = champ::cbor::decode(block.bytes()) {
                value.links_into(&mut todo);
            }
        }
        for writer in found {
            self.writers.insert(writer, owner.clone());
        }
    }
}
