//! A disk that takes names for the same which the account tells apart (Spec: 40 FS-2), against a node in this process.
//!
//! On a real one: `KASTRO_FOLDING_FOLDER=/mnt/folding cargo test -p cli --lib folding -- --ignored`, with a folder on ext4
//! that folds case (`mkfs.ext4 -O casefold`, `chattr +F`), on exFAT or the like.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use cryptree::client::{Client, Detail, Session, UploadOptions};
use node::{Config, Node};
use tempfile::TempDir;

use super::{
    plan::Direction,
    report::Report,
    run::{Memory, Task},
    state::{Pair, State},
};
use crate::{
    environment::TokioEnvironment, local::folder::NameRules, output::Output,
    thumbnail::Thumbnailer, transport::InProcess,
};

pub(crate) const QUIET: Output = Output {
    json: false,
    quiet: true,
};
/// Names of which some meet on such a disk.
pub(crate) const NAMES: [&str; 7] = ["A", "a", "\u{e9}", "e\u{301}", "x.", "x", "con"];

/// Signs somebody up at a node of their own.
pub(crate) async fn session() -> Session {
    let node = Node::open(Config::default()).await.unwrap();
    let network = Arc::new(InProcess::of(node));
    let client = Client::new(network, Arc::new(TokioEnvironment));
    let password = "a password that is long enough";
    client.sign_up("alice", password, "").await.unwrap()
}

/// Writes a small file, new or not.
pub(crate) async fn put(session: &Session, path: &str, content: &str) {
    let mut source = futures_util::io::Cursor::new(content.as_bytes());
    let options = UploadOptions {
        if_exists: cryptree::client::IfExists::Replace,
        ..UploadOptions::default()
    };
    let size = Some(content.len() as u64);
    let mut told = |_, _| {};
    let sent = session.upload(path, &mut source, size, &options, &mut told);
    sent.await.unwrap();
}

/// Returns what is in a local folder, without what is hidden: name and content, a folder with a slash.
pub(crate) fn here(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let below = here(&path).into_iter();
            found.extend(below.map(|(below, content)| (format!("{name}/{below}"), content)));
        } else {
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
    found
}

/// Returns what is in a remote folder.
async fn there(session: &Session, folder: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in session.list(folder, Detail::Full).await.unwrap().entries {
        let path = format!("{folder}/{}", entry.name);
        if entry.is_directory {
            let below = Box::pin(there(session, &path)).await.into_iter();
            let name = entry.name;
            found.extend(below.map(|(below, content)| (format!("{name}/{below}"), content)));
        } else {
            let content = session.read(&path, 1 << 20).await.unwrap();
            found.insert(entry.name, String::from_utf8(content).unwrap());
        }
    }
    found
}

/// Somebody with a folder on such a disk.
struct World {
    session: Session,
    folder: PathBuf,
    states: TempDir,
    _disk: TempDir,
    names: NameRules,
}

impl World {
    async fn new() -> Self {
        let disk = TempDir::new().unwrap();
        let folder = disk.path().join("t");
        fs::create_dir(&folder).unwrap();
        let session = session().await;
        session.make_folder("/alice/t").await.unwrap();
        Self {
            session,
            folder,
            states: TempDir::new().unwrap(),
            _disk: disk,
            names: NameRules::Folding,
        }
    }

    /// Synchronizes as a new process.
    async fn sync(&self) {
        let pair = Pair {
            local: "t".to_owned(),
            node: "n".to_owned(),
            remote: "/alice/t".to_owned(),
        };
        let mut state = State::open(self.states.path(), pair).unwrap();
        let task = Task {
            local: self.folder.clone(),
            names: self.names,
            remote: "/alice/t".to_owned(),
            direction: Direction::Both,
            is_dry: false,
            keep_free: 0,
            may_delete_all: false,
            device: "laptop".to_owned(),
            thumbnails: Thumbnailer::new(false),
        };
        let (mut report, mut memory) = (Report::new(QUIET), Memory::default());
        let (session, memory) = (&self.session, &mut memory);
        let run = task.run(session, &mut state, &mut report, memory, QUIET);
        run.await.unwrap();
        report.finish().unwrap();
    }

    async fn there(&self) -> BTreeMap<String, String> {
        there(&self.session, "/alice/t").await
    }

    fn path(&self, content: &str) -> PathBuf {
        let all = here(&self.folder);
        let (name, _) = all.iter().find(|(_, found)| *found == content).unwrap();
        self.folder.join(name)
    }

    async fn all_survive(&self) {
        let mut expected = BTreeMap::new();
        for name in NAMES {
            put(&self.session, &format!("/alice/t/{name}"), name).await;
            expected.insert(name.to_owned(), name.to_owned());
        }
        for _ in 0..2 {
            self.sync().await;
            let found = here(&self.folder);
            let mut contents: Vec<&str> = found.values().map(String::as_str).collect();
            contents.sort_unstable();
            let mut names = NAMES;
            names.sort_unstable();
            assert_eq!(contents, names, "{found:?}");
            assert_eq!(
                self.there().await,
                expected,
                "the round trip changes nothing"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fs_2_names_that_meet_on_the_disk_all_survive_and_stay_what_they_are() {
    let world = World::new().await;
    world.all_survive().await;
    let before = here(&world.folder);
    assert_eq!(before["A"], "A");
    assert!(
        before.keys().any(|name| name.starts_with("a~")),
        "{before:?}"
    );
    // A change of either side goes to its own counterpart.
    fs::write(world.path("a"), "changed here").unwrap();
    put(&world.session, "/alice/t/A", "changed there").await;
    fs::remove_file(world.path("x")).unwrap();
    world.session.delete("/alice/t/e\u{301}").await.unwrap();
    world.sync().await;
    let mut expected = BTreeMap::new();
    for (name, content) in [
        ("A", "changed there"),
        ("a", "changed here"),
        ("\u{e9}", "\u{e9}"),
        ("x.", "x."),
        ("con", "con"),
    ] {
        expected.insert(name.to_owned(), content.to_owned());
    }
    assert_eq!(world.there().await, expected);
    assert_eq!(here(&world.folder).len(), 5);
    world.sync().await;
    assert_eq!(world.there().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn fs_2_what_was_made_on_both_sides_survives_also_in_folders() {
    let world = World::new().await;
    fs::create_dir(world.folder.join("docs")).unwrap();
    fs::write(world.folder.join("docs/b"), "here").unwrap();
    fs::write(world.folder.join("Readme"), "here").unwrap();
    world.session.make_folder("/alice/t/Docs").await.unwrap();
    for path in ["Docs/B", "Docs/b", "README"] {
        put(&world.session, &format!("/alice/t/{path}"), path).await;
    }
    world.sync().await;
    let mut expected = BTreeMap::new();
    for (path, content) in [
        ("Docs/B", "Docs/B"),
        ("Docs/b", "Docs/b"),
        ("docs/b", "here"),
        ("README", "README"),
        ("Readme", "here"),
    ] {
        expected.insert(path.to_owned(), content.to_owned());
    }
    assert_eq!(world.there().await, expected);
    let found = here(&world.folder);
    assert_eq!(found.len(), 5, "{found:?}");
    assert_eq!((&*found["docs/b"], &*found["Readme"]), ("here", "here"));
    world.sync().await;
    assert_eq!(
        (here(&world.folder), world.there().await),
        (found, expected)
    );
    // Another spelling of the same item is no second item.
    world.session.delete("/alice/t/README").await.unwrap();
    world
        .session
        .rename("/alice/t/Readme", "ReadMe")
        .await
        .unwrap();
    world.sync().await;
    let found = here(&world.folder);
    assert_eq!((found.len(), &*found["ReadMe"]), (4, "here"), "{found:?}");
    world.sync().await;
    assert!(world.there().await.contains_key("ReadMe"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a folder on a disk that folds case"]
async fn fs_2_the_same_on_a_real_disk() {
    let disk = std::env::var_os("KASTRO_FOLDING_FOLDER").unwrap();
    let mut world = World::new().await;
    world._disk = TempDir::new_in(disk).unwrap();
    world.folder = world._disk.path().join("t");
    world.names = NameRules::OfTheDisk;
    fs::create_dir(&world.folder).unwrap();
    fs::write(world.folder.join("probe"), "").unwrap();
    assert!(
        world.folder.join("PROBE").exists(),
        "this disk does not fold case"
    );
    fs::remove_file(world.folder.join("probe")).unwrap();
    world.all_survive().await;
}
