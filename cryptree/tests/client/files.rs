//! Files and folders (Spec: 21 §7 to §12).

use cryptree::{
    ClientError, Session,
    client::{Detail, IfExists, UploadOptions},
    properties::Timestamp,
};
use futures_util::io::Cursor;

use super::{alice, machine};

/// Bytes that differ everywhere, the same for the same seed.
pub(crate) fn content(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

pub(crate) async fn put(session: &Session, path: &str, bytes: &[u8]) -> Result<(), ClientError> {
    put_with(session, path, bytes, &UploadOptions::default()).await
}

pub(crate) async fn put_with(
    session: &Session,
    path: &str,
    bytes: &[u8],
    options: &UploadOptions,
) -> Result<(), ClientError> {
    let size = Some(bytes.len() as u64);
    session
        .upload(path, &mut Cursor::new(bytes), size, options, &mut |_, _| {})
        .await
        .map(|_| ())
}

pub(crate) async fn get(session: &Session, path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut seen = Vec::new();
    let n = session
        .download(path, &mut out, &mut |done, total| seen.push((done, total)))
        .await
        .unwrap();
    assert_eq!(n, out.len() as u64);
    assert_eq!(*seen.last().unwrap(), (n, n));
    out
}

pub(crate) async fn names(session: &Session, path: &str) -> Vec<String> {
    let listing = session.list(path, Detail::Full).await.unwrap();
    assert!(listing.damaged.is_empty(), "{:?}", listing.damaged);
    let mut names: Vec<String> = listing.entries.into_iter().map(|e| e.name).collect();
    names.sort();
    names
}

pub(crate) fn replace() -> UploadOptions {
    UploadOptions {
        if_exists: IfExists::Replace,
        ..UploadOptions::default()
    }
}

#[tokio::test]
async fn files_of_every_size_around_a_boundary_come_back_unchanged() {
    const MIB: usize = 1 << 20;
    let (node, session) = alice().await;
    session.make_folder("/alice/sizes").await.unwrap();
    let sizes = [
        0,
        1,
        4093,
        4094,
        4095,
        4096,
        4099,
        4100,
        8192,
        102_400,
        MIB,
        5 * MIB - 1,
        5 * MIB,
        5 * MIB + 1,
        11 * MIB,
    ];
    for size in sizes {
        let bytes = content(size, size as u64);
        put(&session, &format!("/alice/sizes/{size}"), &bytes)
            .await
            .unwrap();
    }
    let again = machine(&node, 2).await;
    for size in sizes {
        let path = format!("/alice/sizes/{size}");
        assert!(
            get(&again, &path).await == content(size, size as u64),
            "{size}"
        );
        assert_eq!(
            again.stat(&path).await.unwrap().size_bytes,
            Some(size as u64)
        );
    }
    // No record is left of the large ones.
    assert!(again.unfinished_uploads().await.unwrap().is_empty());
    assert_eq!(
        names(&again, "/alice/.transactions").await,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn content_of_unknown_size_is_uploaded_too() {
    let (node, session) = alice().await;
    for size in [0, 100, 5 << 20, (5 << 20) + 1, 12 << 20] {
        let path = format!("/alice/{size}");
        let bytes = content(size, 3);
        let options = UploadOptions::default();
        session
            .upload(
                &path,
                &mut Cursor::new(&bytes),
                None,
                &options,
                &mut |_, _| {},
            )
            .await
            .unwrap();
        let again = machine(&node, 4).await;
        assert!(get(&again, &path).await == bytes, "{size}");
    }
}

#[tokio::test]
async fn a_source_of_another_length_than_announced_is_refused() {
    let (_, session) = alice().await;
    for (size, announced) in [
        (10, 11),
        (10, 9),
        (6 << 20, (6 << 20) + 1),
        (6 << 20, (6 << 20) - 1),
    ] {
        let bytes = content(size, 1);
        let options = UploadOptions::default();
        let error = session
            .upload(
                "/alice/x",
                &mut Cursor::new(&bytes),
                Some(announced),
                &options,
                &mut |_, _| {},
            )
            .await
            .unwrap_err();
        assert!(
            matches!(error, ClientError::SourceChanged { .. }),
            "{error:?}"
        );
        assert!(!session.exists("/alice/x").await.unwrap());
    }
}

#[tokio::test]
async fn names_in_every_script_and_with_odd_characters_are_kept_exactly() {
    let (node, session) = alice().await;
    let mut odd = vec![
        "\u{4f60}\u{597d} \u{fc}\u{f1}\u{ee}c\u{f8}d\u{e9} \u{1f600}.txt".to_owned(),
        "\u{645}\u{631}\u{62d}\u{628}\u{627}".to_owned(),
        "\u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947}".to_owned(),
        "caf\u{e9}".to_owned(),
        "cafe\u{301}".to_owned(),
        "back\\slash".to_owned(),
        " spaces ".to_owned(),
        "\u{7}bell".to_owned(),
        "CON".to_owned(),
        "con".to_owned(),
        "...".to_owned(),
        "\u{1f600}".repeat(127),
        "x".repeat(255),
    ];
    for name in &odd {
        put(&session, &format!("/alice/{name}"), name.as_bytes())
            .await
            .unwrap();
    }
    let again = machine(&node, 2).await;
    for name in &odd {
        assert_eq!(
            get(&again, &format!("/alice/{name}")).await,
            name.as_bytes()
        );
    }
    odd.extend(["shared", ".transactions", ".capabilitycache"].map(str::to_owned));
    odd.sort();
    assert_eq!(names(&again, "/alice").await, odd);
    for name in ["x".repeat(256), "a/..".to_owned(), ".".to_owned()] {
        let error = put(&session, &format!("/alice/{name}"), b"")
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::IllegalName { .. }));
    }
}

#[tokio::test]
async fn folders_are_made_listed_and_not_made_twice() {
    let (node, session) = alice().await;
    session.make_folder("/alice/docs").await.unwrap();
    node.take_calls();
    session.make_folder("/alice/docs/inner").await.unwrap();
    // Everything else is in memory.
    assert_eq!(
        node.take_calls(),
        [
            "mutable/getPointer",
            "transaction/start",
            "block/put/bulk",
            "mutable/setPointers",
            "transaction/close",
        ]
    );
    let error = session.make_folder("/alice/docs").await.unwrap_err();
    assert!(matches!(error, ClientError::Exists { path } if path == "/alice/docs"));
    let error = session.make_folder("/alice/no/such").await.unwrap_err();
    assert!(matches!(error, ClientError::NotFound { path } if path == "/alice/no"));
    session.make_folders("/alice/docs/a/b/c").await.unwrap();
    session.make_folders("/alice/docs/a/b/c").await.unwrap();
    put(&session, "/alice/docs/file", b"x").await.unwrap();
    let error = session
        .make_folders("/alice/docs/file/x")
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::NotADirectory { .. }));
    let error = session
        .list("/alice/docs/file", Detail::Full)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::NotADirectory { .. }));
    assert!(matches!(
        session.open_file("/alice/docs").await.unwrap_err(),
        ClientError::IsADirectory { .. }
    ));
    assert!(matches!(
        session.stat("/bob/x").await.unwrap_err(),
        ClientError::NotFound { .. }
    ));
    let again = machine(&node, 2).await;
    assert_eq!(names(&again, "/alice/docs").await, ["a", "file", "inner"]);
    let quick = again.list("/alice/docs", Detail::Quick).await.unwrap();
    let file = quick.entries.iter().find(|e| e.name == "file").unwrap();
    assert!(!file.is_directory && file.size_bytes.is_none());
}

#[tokio::test]
async fn existing_files_are_kept_or_replaced_as_asked() {
    const MIB: usize = 1 << 20;
    let (node, session) = alice().await;
    for (from, to) in [
        (10, 20),
        (12 * MIB, 3),
        (3, 11 * MIB),
        (11 * MIB, 6 * MIB),
        (100_000, 0),
    ] {
        let path = format!("/alice/{from}-{to}");
        put(&session, &path, &content(from, 1)).await.unwrap();
        let before = session.capability_link(&path).await.unwrap();
        let error = put(&session, &path, b"other").await.unwrap_err();
        assert!(matches!(error, ClientError::Exists { .. }));
        put_with(&session, &path, &content(to, 2), &replace())
            .await
            .unwrap();
        let again = machine(&node, 5).await;
        assert!(get(&again, &path).await == content(to, 2), "{path}");
        assert_eq!(again.capability_link(&path).await.unwrap(), before);
    }
    session.make_folder("/alice/folder").await.unwrap();
    let error = put_with(&session, "/alice/folder", b"", &replace())
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::IsADirectory { .. }));
}

#[tokio::test]
async fn renaming_and_moving_keep_content_and_capability() {
    let (node, session) = alice().await;
    session.make_folders("/alice/a/b").await.unwrap();
    session.make_folder("/alice/c").await.unwrap();
    put(&session, "/alice/a/b/file", &content(6 << 20, 1))
        .await
        .unwrap();
    let link = session.capability_link("/alice/a/b/file").await.unwrap();
    session.rename("/alice/a/b/file", "renamed").await.unwrap();
    assert!(!session.exists("/alice/a/b/file").await.unwrap());
    session
        .move_to("/alice/a/b/renamed", "/alice/c/moved")
        .await
        .unwrap();
    session.move_to("/alice/a", "/alice/c/a").await.unwrap();
    let again = machine(&node, 2).await;
    assert_eq!(names(&again, "/alice/c").await, ["a", "moved"]);
    assert_eq!(names(&again, "/alice/c/a").await, ["b"]);
    assert!(names(&again, "/alice/c/a/b").await.is_empty());
    assert_eq!(again.capability_link("/alice/c/moved").await.unwrap(), link);
    assert!(get(&again, "/alice/c/moved").await == content(6 << 20, 1));
    let into_itself = again.move_to("/alice/c", "/alice/c/a/c").await.unwrap_err();
    assert!(matches!(into_itself, ClientError::IntoItself { .. }));
    put(&again, "/alice/x", b"x").await.unwrap();
    assert!(matches!(
        again.rename("/alice/x", "c").await.unwrap_err(),
        ClientError::Exists { .. }
    ));
    assert!(matches!(
        again
            .move_to("/alice/x", "/alice/c/moved")
            .await
            .unwrap_err(),
        ClientError::Exists { .. }
    ));
    assert!(matches!(
        again.rename("/alice/none", "y").await.unwrap_err(),
        ClientError::NotFound { .. }
    ));
    assert!(matches!(
        again.rename("/alice", "y").await.unwrap_err(),
        ClientError::ReadOnly { .. }
    ));
    let earlier = Timestamp::from_epoch_seconds(1_000_000);
    again.set_modified("/alice/c/moved", earlier).await.unwrap();
    assert_eq!(
        again.stat("/alice/c/moved").await.unwrap().modified,
        Some(earlier)
    );
}

#[tokio::test]
async fn copies_have_keys_of_their_own() {
    let (node, session) = alice().await;
    session.make_folders("/alice/a/b").await.unwrap();
    put(&session, "/alice/a/b/large", &content(11 << 20, 1))
        .await
        .unwrap();
    put(&session, "/alice/a/small", b"small").await.unwrap();
    session.copy("/alice/a", "/alice/copy").await.unwrap();
    session.delete("/alice/a").await.unwrap();
    let again = machine(&node, 2).await;
    assert!(get(&again, "/alice/copy/b/large").await == content(11 << 20, 1));
    assert_eq!(get(&again, "/alice/copy/small").await, b"small");
}

#[tokio::test]
async fn deleting_leaves_nothing_in_the_tree() {
    let (node, session) = alice().await;
    session.make_folder("/alice/kept").await.unwrap();
    let before = session.usage();
    let tree = |node: &crate::fake::FakeNode| {
        let state = node.state.lock().unwrap();
        let pointers: Vec<_> = state
            .writers
            .keys()
            .filter_map(|w| state.current(w))
            .collect();
        pointers.len()
    };
    session.make_folders("/alice/doomed/inner").await.unwrap();
    put(&session, "/alice/doomed/inner/large", &content(11 << 20, 1))
        .await
        .unwrap();
    put(&session, "/alice/doomed/small", b"x").await.unwrap();
    session.delete("/alice/doomed").await.unwrap();
    assert!(session.usage().since(before).commits > 0);
    assert!(!session.exists("/alice/doomed").await.unwrap());
    assert!(matches!(
        session.delete("/alice/doomed").await.unwrap_err(),
        ClientError::NotFound { .. }
    ));
    assert!(matches!(
        session.delete("/alice").await.unwrap_err(),
        ClientError::ReadOnly { .. }
    ));
    assert_eq!(tree(&node), 2);
    // Home, three system folders and the kept one are all that is left.
    assert_eq!(super::tree_entries(&node).await, 5);
}

#[tokio::test]
async fn any_part_of_a_file_is_read_with_one_lookup_and_its_fragments() {
    let (node, session) = alice().await;
    let bytes = content(23 << 20, 9);
    put(&session, "/alice/f", &bytes).await.unwrap();
    let again = machine(&node, 2).await;
    let file = again.open_file("/alice/f").await.unwrap();
    node.take_calls();
    let at = (21 << 20) + 5;
    assert_eq!(
        file.read_at(at as u64, 100).await.unwrap(),
        bytes[at..at + 100]
    );
    let calls = node.take_calls();
    assert_eq!(calls.iter().filter(|c| *c == "champ/get/bulk").count(), 1);
    assert_eq!(calls.len(), 1 + 3, "{calls:?}");
    assert_eq!(
        file.read_at(at as u64 + 100, 10).await.unwrap(),
        bytes[at + 100..at + 110]
    );
    assert!(node.take_calls().is_empty(), "the chunk is in memory");
    assert!(file.read_at(23 << 20, 1).await.unwrap().is_empty());
    assert!(file.read_at((23 << 20) + 1, 1).await.is_err());
}

#[tokio::test]
async fn a_folder_of_1201_children_has_three_pages() {
    let (node, session) = alice().await;
    session.make_folder("/alice/many").await.unwrap();
    let mut bulk = session.bulk("/alice/many").await.unwrap();
    for n in 0..1201 {
        let bytes = format!("content {n}");
        bulk.file(
            &format!("file {n:04}"),
            &mut Cursor::new(bytes.as_bytes()),
            Some(bytes.len() as u64),
            None,
        )
        .await
        .unwrap();
    }
    bulk.finish().await.unwrap();
    let again = machine(&node, 2).await;
    let expected: Vec<String> = (0..1201).map(|n| format!("file {n:04}")).collect();
    assert_eq!(names(&again, "/alice/many").await, expected);
    assert_eq!(get(&again, "/alice/many/file 1200").await, b"content 1200");
    let mut reader = again
        .read_folder("/alice/many", Detail::Quick)
        .await
        .unwrap();
    let mut pages = Vec::new();
    while let Some(page) = reader.next().await.unwrap() {
        pages.push(page.entries.len());
    }
    assert_eq!(pages, [500, 500, 201]);
    // A page with room again is filled first.
    again.delete("/alice/many/file 0003").await.unwrap();
    put(&again, "/alice/many/new", b"").await.unwrap();
    let error = put(&again, "/alice/many/file 0700", b"").await.unwrap_err();
    assert!(matches!(error, ClientError::Exists { .. }));
    again.rename("/alice/many/file 1100", "zzz").await.unwrap();
    let third = machine(&node, 3).await;
    assert_eq!(names(&third, "/alice/many").await.len(), 1201);
    third.delete("/alice/many").await.unwrap();
    assert_eq!(super::tree_entries(&node).await, 4);
}

/// How deep folders are is for whoever writes in them to say: neither the stack nor the time grows without bound.
#[tokio::test]
async fn folders_64_deep_are_copied_moved_and_deleted() {
    let (node, session) = alice().await;
    node.state.lock().unwrap().unchecked = true;
    let mut bulk = session.bulk("/alice").await.unwrap();
    let path = vec!["d"; 64].join("/");
    let mut source = Cursor::new(b"x");
    bulk.file(&format!("{path}/f"), &mut source, Some(1), None)
        .await
        .unwrap();
    assert_eq!(bulk.finish().await.unwrap(), 65);
    session.copy("/alice/d", "/alice/copy").await.unwrap();
    let copied = format!("/alice/copy{}/f", &path[1..]);
    assert_eq!(get(&session, &copied).await, b"x");
    session
        .move_to("/alice/d", "/alice/copy/moved")
        .await
        .unwrap();
    session.delete("/alice/copy").await.unwrap();
    assert_eq!(super::tree_entries(&node).await, 4);
}
