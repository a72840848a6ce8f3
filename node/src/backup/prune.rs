//! Letting old snapshots go, and the space that only they needed.

use std::{collections::HashSet, fs};

use champ::Cid;

use super::{
    error::BackupError,
    folder::{DRAFT_PREFIX, Folder, remove, sync},
    pack::{Entry, Known, Pack, PackWriter, numbers},
    rows::RowReader,
};

/// Removes all snapshots but the newest `keep`, at least one; returns the removed ones. Packs that nobody needs
/// go, and those of which less than half is needed are written anew.
pub(super) fn prune(folder: &Folder, keep: usize) -> Result<Vec<String>, BackupError> {
    let mut names = folder.snapshot_names()?;
    let kept = names.split_off(names.len().saturating_sub(keep.max(1)));
    // What is needed first: a list that cannot be read stops everything before anything is gone.
    let mut needed: HashSet<Cid> = HashSet::new();
    for name in &kept {
        let manifest = folder.manifest(Some(name))?;
        let list = folder.snapshot(name).join("blocks");
        let mut rows = RowReader::open(&list, &manifest.blocks)?;
        while let Some((_, cid, _)) = rows.block()? {
            needed.insert(cid);
        }
    }
    for name in &names {
        let draft = folder.snapshots().join(format!("{DRAFT_PREFIX}{name}"));
        let path = folder.snapshot(name);
        fs::rename(&path, &draft).map_err(BackupError::io("rename", &path))?;
        sync(&folder.snapshots())?;
        remove(&draft)?;
    }
    if names.is_empty() {
        return Ok(names);
    }
    let packs = folder.packs();
    let next = Known::read(&packs)?.next;
    let mut writer = PackWriter::new(packs.clone(), next);
    let mut emptied = Vec::new();
    let mut moved: HashSet<Cid> = HashSet::new();
    for number in numbers(&packs)? {
        let pack = Pack::open(&packs, number)?;
        // A damaged pack stays: somebody may want to look at it.
        let Ok(entries) = pack.entries() else {
            continue;
        };
        let live: Vec<&Entry> = entries.iter().filter(|e| needed.contains(&e.cid)).collect();
        let bytes = |entries: &[&Entry]| entries.iter().map(|e| u64::from(e.bytes)).sum::<u64>();
        if bytes(&live) * 2 >= bytes(&entries.iter().collect::<Vec<_>>()) {
            continue;
        }
        for entry in live {
            if moved.insert(entry.cid.clone()) {
                writer.add(&pack.block(entry)?)?;
            }
        }
        emptied.push(pack.path().to_owned());
    }
    writer.close()?;
    for path in emptied {
        remove(&path)?;
    }
    sync(&packs)?;
    Ok(names)
}
