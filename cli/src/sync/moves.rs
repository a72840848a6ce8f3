//! Finds what was renamed or moved, so that it is moved on the other side too instead of being sent again.
//!
//! A local item is the same when its number on the disk is (and, for a file, its size and time), or when its content is; a
//! remote one when its place in the account is. A wrong guess costs a detour and nothing else: afterwards everything is
//! compared as if it had always been there.

use std::collections::{HashMap, HashSet};

use super::{
    plan::{Action, Direction},
    tree::{Hash, Id, Known, Local, Remote, Trees, is_remote_same, parent, shift},
};

/// Returns the moves to be made, with the trees as they will be after them.
pub(super) fn detect(trees: &mut Trees, direction: Direction) -> Vec<Action> {
    let mut moves = Vec::new();
    if direction.changes_remote() {
        folders_moved_here(trees, &mut moves);
        files_moved_here(trees, &mut moves);
    }
    if direction.changes_local() {
        moved_there(trees, &mut moves);
    }
    moves
}

fn folders_moved_here(trees: &mut Trees, moves: &mut Vec<Action>) {
    let mut by_inode: HashMap<u64, String> = trees
        .known
        .iter()
        .filter_map(|(path, known)| match known {
            Known::Folder { inode, .. } if *inode != 0 && !trees.local.contains_key(path) => {
                Some((*inode, path.clone()))
            }
            _ => None,
        })
        .collect();
    if by_inode.is_empty() {
        return;
    }
    let candidates: Vec<(String, u64)> = trees
        .local
        .iter()
        .filter_map(|(path, local)| match local {
            Local::Folder { inode } if by_inode.contains_key(inode) => Some((path.clone(), *inode)),
            _ => None,
        })
        .collect();
    for (to, inode) in candidates {
        let Some(from) = by_inode.get(&inode).cloned() else {
            continue;
        };
        let is_free = !trees.known.contains_key(&to) && !trees.remote.contains_key(&to);
        let is_free = is_free && has_way(&to, |path| is_remote_file(trees, path));
        let is_there = matches!(trees.remote.get(&from), Some(Remote::Folder { .. }));
        if !is_free || !is_there || trees.local.contains_key(&from) {
            continue;
        }
        by_inode.remove(&inode);
        move_remote(trees, &from, &to, moves);
        // What was below it is now looked for below its new path.
        for path in by_inode.values_mut() {
            if let Some(rest) = path.strip_prefix(&format!("{from}/")) {
                *path = format!("{to}/{rest}");
            }
        }
    }
}

fn files_moved_here(trees: &mut Trees, moves: &mut Vec<Action>) {
    let mut by_inode: HashMap<u64, String> = HashMap::new();
    let mut by_hash: HashMap<(Hash, u64), String> = HashMap::new();
    for (path, known) in &trees.known {
        let Known::File {
            stamp,
            remote,
            hash,
        } = known
        else {
            continue;
        };
        // What was changed there meanwhile keeps its name.
        let is_same_there = matches!(trees.remote.get(path), Some(Remote::File(now)) if is_remote_same(remote, now));
        if trees.local.contains_key(path) || !is_same_there {
            continue;
        }
        if stamp.inode != 0 {
            by_inode.insert(stamp.inode, path.clone());
        }
        if let (Some(hash), true) = (hash, stamp.size > 0) {
            by_hash.insert((*hash, stamp.size), path.clone());
        }
    }
    if by_inode.is_empty() && by_hash.is_empty() {
        return;
    }
    let mut taken: HashSet<String> = HashSet::new();
    let mut found = Vec::new();
    for (to, local) in &trees.local {
        let Local::File { stamp, hash } = local else {
            continue;
        };
        let is_free = !trees.known.contains_key(to) && !trees.remote.contains_key(to);
        if !is_free || !has_way(to, |path| is_remote_file(trees, path)) {
            continue;
        }
        let same_file = by_inode.get(&stamp.inode).filter(|from| {
            matches!(trees.known.get(*from), Some(Known::File { stamp: known, .. }) if known == stamp)
        });
        let same_content = || hash.and_then(|hash| by_hash.get(&(hash, stamp.size)));
        if let Some(from) = same_file.or_else(same_content)
            && taken.insert(from.clone())
        {
            found.push((from.clone(), to.clone()));
        }
    }
    for (from, to) in found {
        move_remote(trees, &from, &to, moves);
    }
}

/// Finds what has another path in the account than at the last agreement. Folders come before what they hold.
fn moved_there(trees: &mut Trees, moves: &mut Vec<Action>) {
    let mut by_id: HashMap<Id, String> = trees
        .known
        .iter()
        .filter(|(path, _)| !trees.remote.contains_key(*path))
        .filter_map(|(path, known)| {
            let id = match known {
                Known::Folder { id, .. } => *id,
                Known::File { remote, .. } => remote.id,
            };
            Some((id?, path.clone()))
        })
        .collect();
    if by_id.is_empty() {
        return;
    }
    let candidates: Vec<(String, Id)> = trees
        .remote
        .iter()
        .filter_map(|(path, remote)| {
            let id = match remote {
                Remote::Folder { id } => *id,
                Remote::File(file) => file.id,
            };
            let id = id.filter(|id| by_id.contains_key(id))?;
            Some((path.clone(), id))
        })
        .collect();
    for (to, id) in candidates {
        let Some(from) = by_id.get(&id).cloned() else {
            continue;
        };
        let same_kind = matches!(
            (trees.local.get(&from), trees.remote.get(&to)),
            (Some(Local::Folder { .. }), Some(Remote::Folder { .. }))
                | (Some(Local::File { .. }), Some(Remote::File(_)))
        );
        let is_free = !trees.known.contains_key(&to) && !trees.local.contains_key(&to);
        let is_local_file = |path: &str| matches!(trees.local.get(path), Some(Local::File { .. }));
        let is_free = is_free && has_way(&to, is_local_file);
        if !same_kind || !is_free || trees.remote.contains_key(&from) {
            continue;
        }
        by_id.remove(&id);
        moves.push(Action::MoveLocal {
            from: from.clone(),
            to: to.clone(),
        });
        shift(&mut trees.known, &from, &to);
        shift(&mut trees.local, &from, &to);
        shift_kept(trees, &from, &to);
        for path in by_id.values_mut() {
            if let Some(rest) = path.strip_prefix(&format!("{from}/")) {
                *path = format!("{to}/{rest}");
            }
        }
    }
}

/// Returns false when a file is where a folder above `path` would have to be: that is decided first.
fn has_way(path: &str, is_file: impl Fn(&str) -> bool) -> bool {
    let mut above = parent(path);
    while let Some(folder) = above {
        if is_file(folder) {
            return false;
        }
        above = parent(folder);
    }
    true
}

fn is_remote_file(trees: &Trees, path: &str) -> bool {
    matches!(trees.remote.get(path), Some(Remote::File(_)))
}

fn move_remote(trees: &mut Trees, from: &str, to: &str, moves: &mut Vec<Action>) {
    moves.push(Action::MoveRemote {
        from: from.to_owned(),
        to: to.to_owned(),
    });
    shift(&mut trees.known, from, to);
    shift(&mut trees.remote, from, to);
    shift_kept(trees, from, to);
}

fn shift_kept(trees: &mut Trees, from: &str, to: &str) {
    let prefix = format!("{from}/");
    let moved: Vec<String> = trees
        .kept
        .iter()
        .filter(|path| *path == from || path.starts_with(&prefix))
        .map(|path| format!("{to}{}", path.get(from.len()..).unwrap_or_default()))
        .collect();
    // Both places may hold what takes no part now.
    trees.kept.extend(moved);
}
