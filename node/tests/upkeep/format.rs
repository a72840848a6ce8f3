//! Data folders of every format that was ever written open in this version (REL-11).
//!
//! A fixture is a whole data folder in one file: for each file its path, a zero byte, its length as u64, its bytes;
//! all of it compressed with gzip. `cargo test -p node --test main make_fixture -- --ignored` writes
//! one of the present format; commit it under the number of that format before the number changes.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use super::world::{Files, World};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

pub(crate) fn pack(folder: &Path) -> Vec<u8> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(folder.join(&at)).unwrap() {
            let entry = entry.unwrap();
            let path = at.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if entry.file_name() != "lock" {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    for path in files {
        let bytes = fs::read(folder.join(&path)).unwrap();
        out.write_all(path.to_str().unwrap().as_bytes()).unwrap();
        out.write_all(&[0]).unwrap();
        out.write_all(&(bytes.len() as u64).to_be_bytes()).unwrap();
        out.write_all(&bytes).unwrap();
    }
    out.finish().unwrap()
}

/// Returns the files of a fixture by path.
pub(crate) fn unpack(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut all).unwrap();
    let mut rest = all.as_slice();
    let mut files = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0).unwrap();
        let path = String::from_utf8(rest[..end].to_vec()).unwrap();
        let len = u64::from_be_bytes(rest[end + 1..end + 9].try_into().unwrap()) as usize;
        files.push((path, rest[end + 9..end + 9 + len].to_vec()));
        rest = &rest[end + 9 + len..];
    }
    files
}

/// The users of a fixture, the same in every one.
pub(crate) async fn fill(world: &World) {
    world.user("alice", 7, 3).await;
    let mut bob = world.user("bob", 8, 1).await;
    bob.save(world, 2).await;
}

#[tokio::test]
#[ignore = "writes a fixture; see the top of the file"]
async fn make_fixture() {
    let world = World::new().await;
    fill(&world).await;
    world.node.node.close().await.unwrap();
    let bytes = pack(&world.data());
    let format = fs::read_to_string(world.data().join("store/format")).unwrap();
    let number = format.split_whitespace().nth(2).unwrap();
    let path = Path::new(FIXTURES).join(format!("data-format-{number}.gz"));
    fs::create_dir_all(FIXTURES).unwrap();
    assert!(bytes.len() < 200_000, "{} bytes", bytes.len());
    fs::write(path, bytes).unwrap();
}

/// Every fixture opens, everything in it is sound, and its users go on.
#[tokio::test]
async fn rel_11_data_folders_of_every_format_open_in_this_version() {
    let mut opened = 0;
    for fixture in fs::read_dir(FIXTURES).unwrap() {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in unpack(&fs::read(fixture.unwrap().path()).unwrap()) {
            let path = folder.path().join("data").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            // As the node makes them: it refuses keys that others may read.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let world = World::at(folder).await;
        let report = world.check().await;
        assert_eq!(report.findings, []);
        assert_eq!((report.partitions, report.pointers), (3, 6));
        for (name, seed, version) in [("alice", 7, 2), ("bob", 8, 3)] {
            let mut files = Files::resume(&world, name, seed).await.unwrap();
            assert_eq!(files.version(), version);
            files.assert_readable(&world).await;
            files.save(&world, 1).await;
            files.assert_readable(&world).await;
        }
        assert_eq!(world.restarted().await.check().await.total(), 0);
        opened += 1;
    }
    assert!(opened > 0);
}
