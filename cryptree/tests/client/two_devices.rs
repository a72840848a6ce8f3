//! Two devices that change the same things at the same time: nothing is silently lost (Spec: 21 §13.2).

use cryptree::{
    ClientError, Session,
    client::{IfExists, UploadOptions, Uploaded},
    properties::Timestamp,
};
use futures_util::{future::join, io::Cursor};

use super::{
    alice,
    files::{content, get, names, put, put_with, replace},
    machine, tree_entries,
};
use crate::fake::Fault;

const CHUNK: usize = 5 << 20;

async fn write(
    session: &Session,
    path: &str,
    bytes: &[u8],
    if_exists: IfExists,
) -> Result<Uploaded, ClientError> {
    let options = UploadOptions {
        if_exists,
        device: "laptop".to_owned(),
        ..UploadOptions::default()
    };
    let size = Some(bytes.len() as u64);
    session
        .upload(
            path,
            &mut Cursor::new(bytes),
            size,
            &options,
            &mut |_, _| {},
        )
        .await
}

#[tokio::test]
async fn both_versions_stay_when_both_overwrite_a_file() {
    let sizes = [10, CHUNK + 10, 3 * CHUNK];
    for (old, new) in [(0, 0), (0, 1), (1, 0), (1, 2), (2, 1)] {
        let (node, first) = alice().await;
        let second = machine(&node, 2).await;
        put(&first, "/alice/a.txt", &content(sizes[old], 1))
            .await
            .unwrap();
        let link = first.capability_link("/alice/a.txt").await.unwrap();
        let (one, two) = (content(sizes[new], 2), content(sizes[new] + 1, 3));
        let (a, b) = join(
            write(&first, "/alice/a.txt", &one, IfExists::Replace),
            write(&second, "/alice/a.txt", &two, IfExists::Replace),
        )
        .await;
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_ne!(a.is_conflict_copy, b.is_conflict_copy, "{old} {new}");
        let copy = if a.is_conflict_copy { &a } else { &b };
        assert_eq!(copy.path, "/alice/a (conflict 2026-11-21 laptop).txt");
        let again = machine(&node, 3).await;
        for (uploaded, bytes) in [(&a, &one), (&b, &two)] {
            assert!(get(&again, &uploaded.path).await == *bytes, "{old} {new}");
            let version = again.stat(&uploaded.path).await.unwrap().version;
            assert_eq!(version, Some(uploaded.version));
        }
        assert_eq!(again.capability_link("/alice/a.txt").await.unwrap(), link);
        let chunks = |bytes: &[u8]| bytes.len().div_ceil(CHUNK) as u64;
        assert_eq!(tree_entries(&node).await, 4 + chunks(&one) + chunks(&two));
        assert!(again.unfinished_uploads().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn both_new_files_of_one_name_stay() {
    for size in [10, CHUNK + 10] {
        let (node, first) = alice().await;
        let second = machine(&node, 2).await;
        let (one, two) = (content(size, 2), content(size + 1, 3));
        let (a, b) = join(
            write(&first, "/alice/new", &one, IfExists::Replace),
            write(&second, "/alice/new", &two, IfExists::Replace),
        )
        .await;
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_ne!(a.is_conflict_copy, b.is_conflict_copy, "{size}");
        let again = machine(&node, 3).await;
        for (uploaded, bytes) in [(&a, &one), (&b, &two)] {
            assert!(get(&again, &uploaded.path).await == *bytes, "{size}");
        }
        assert!(again.unfinished_uploads().await.unwrap().is_empty());
        let all = names(&again, "/alice").await;
        assert_eq!(all.iter().filter(|name| name.starts_with("new")).count(), 2);
    }
}

/// The same large file, put by both: nothing is sent or kept twice for longer than it takes.
#[tokio::test]
async fn one_new_file_that_both_upload_is_one() {
    const SIZE: usize = 12 * CHUNK + 10;
    let (node, first) = alice().await;
    node.state.lock().unwrap().unchecked = true;
    let second = machine(&node, 2).await;
    let bytes = content(SIZE, 2);
    let upload = async |session: &Session| {
        let options = UploadOptions {
            if_exists: IfExists::Beside,
            modified: Some(Timestamp::from_epoch_seconds(1_700_000_000)),
            ..UploadOptions::default()
        };
        let mut source = Cursor::new(&bytes);
        let size = Some(SIZE as u64);
        session
            .upload("/alice/new", &mut source, size, &options, &mut |_, _| {})
            .await
    };
    let (a, b) = join(upload(&first), upload(&second)).await;
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(
        (&a.path, &b.path),
        (&"/alice/new".into(), &"/alice/new".into())
    );
    let again = machine(&node, 3).await;
    assert!(get(&again, "/alice/new").await == bytes);
    assert!(again.unfinished_uploads().await.unwrap().is_empty());
    let all = names(&again, "/alice").await;
    assert_eq!(all.iter().filter(|name| name.starts_with("new")).count(), 1);
}

#[tokio::test]
async fn a_version_is_replaced_only_while_it_is_there() {
    let (node, first) = alice().await;
    let second = machine(&node, 2).await;
    let v1 = write(&first, "/alice/f", b"1", IfExists::Fail)
        .await
        .unwrap();
    let v2 = write(
        &first,
        "/alice/f",
        b"2",
        IfExists::ReplaceVersion(v1.version),
    );
    let v2 = v2.await.unwrap();
    assert!(!v2.is_conflict_copy && v2.path == "/alice/f");
    for number in ["", " 2"] {
        let late = write(
            &second,
            "/alice/f",
            b"3",
            IfExists::ReplaceVersion(v1.version),
        );
        let late = late.await.unwrap();
        let expected = format!("/alice/f (conflict 2026-11-21 laptop{number})");
        assert_eq!((late.is_conflict_copy, late.path), (true, expected));
    }
    assert_eq!(get(&first, "/alice/f").await, b"2");
    let error = second
        .delete_version("/alice/f", v1.version)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClientError::ChangedElsewhere { .. }),
        "{error:?}"
    );
    second.delete_version("/alice/f", v2.version).await.unwrap();
    // Deleted elsewhere: what is written now is kept.
    let back = write(
        &first,
        "/alice/f",
        b"4",
        IfExists::ReplaceVersion(v2.version),
    );
    assert!(!back.await.unwrap().is_conflict_copy);
    assert_eq!(get(&second, "/alice/f").await, b"4");
    // Every change that this client makes is another version.
    let mut seen = vec![v1.version, v2.version];
    for step in 0..4 {
        match step {
            0 => first.append("/alice/f", b"5", None).await.map(|_| ()),
            1 => first.set_size("/alice/f", 1).await,
            2 => first.write_at("/alice/f", 0, b"4").await,
            _ => {
                first
                    .set_modified("/alice/f", Timestamp::from_epoch_seconds(1))
                    .await
            }
        }
        .unwrap();
        let version = first.stat("/alice/f").await.unwrap().version.unwrap();
        assert!(!seen.contains(&version), "{step}");
        seen.push(version);
    }
}

#[tokio::test]
async fn what_is_written_while_it_is_deleted_is_not_deleted() {
    for turn in 0..2 {
        let (node, first) = alice().await;
        let second = machine(&node, 2).await;
        first.make_folders("/alice/f/g").await.unwrap();
        put(&first, "/alice/f/g/old", b"old").await.unwrap();
        // The deletion has looked at everything when its commit is held up.
        let mut is_first = true;
        node.lie(move |request| {
            let is_commit = request.path.ends_with("setPointers");
            match is_commit && std::mem::take(&mut is_first) {
                true => Fault::Slow(500, 0),
                false => Fault::Honest,
            }
        });
        let write = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            match turn {
                0 => put(&second, "/alice/f/g/new", b"new").await,
                _ => second
                    .append("/alice/f/g/old", b" new", None)
                    .await
                    .map(|_| ()),
            }
        };
        let (deleted, written) = join(first.delete("/alice/f"), write).await;
        written.unwrap();
        let error = deleted.unwrap_err();
        assert!(
            matches!(error, ClientError::ChangedElsewhere { .. }),
            "{error:?}"
        );
        let again = machine(&node, 9).await;
        let (name, expected): (_, &[u8]) = match turn {
            0 => ("new", b"new"),
            _ => ("old", b"old new"),
        };
        assert_eq!(get(&again, &format!("/alice/f/g/{name}")).await, expected);
        // Asked again, it is deleted as it is now.
        first.delete("/alice/f").await.unwrap();
        assert_eq!(tree_entries(&node).await, 4);
    }
}

#[tokio::test]
async fn an_item_that_both_rename_has_one_name() {
    let (node, first) = alice().await;
    let second = machine(&node, 2).await;
    put(&first, "/alice/x", b"x").await.unwrap();
    let (a, b) = join(
        first.rename("/alice/x", "y"),
        second.move_to("/alice/x", "/alice/z"),
    )
    .await;
    assert!(a.is_ok() != b.is_ok());
    let name = if a.is_ok() { "y" } else { "z" };
    let again = machine(&node, 3).await;
    assert_eq!(get(&again, &format!("/alice/{name}")).await, b"x");
    assert_eq!(tree_entries(&node).await, 5);
}

/// The two moves touch no node in common, and together they would cut both folders off.
#[tokio::test]
async fn folders_that_are_moved_into_each_other_are_not_lost() {
    let (node, first) = alice().await;
    let second = machine(&node, 2).await;
    first.make_folders("/alice/p/f/inner").await.unwrap();
    first.make_folders("/alice/q/g/inner").await.unwrap();
    put(&first, "/alice/p/f/inner/1", b"1").await.unwrap();
    put(&first, "/alice/q/g/inner/2", b"2").await.unwrap();
    let entries = tree_entries(&node).await;
    let (a, b) = join(
        first.move_to("/alice/p/f", "/alice/q/g/inner/f"),
        second.move_to("/alice/q/g", "/alice/p/f/inner/g"),
    )
    .await;
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    let again = machine(&node, 3).await;
    let mut files = Vec::new();
    let mut walk = again.walk("/alice").await.unwrap();
    while let Some(page) = walk.next().await.unwrap() {
        let found = page
            .entries
            .iter()
            .filter(|found| !found.entry.is_directory);
        files.extend(found.map(|found| found.entry.name.clone()));
    }
    files.sort();
    assert_eq!(files, ["1", "2"]);
    assert_eq!(tree_entries(&node).await, entries);
}

#[tokio::test]
async fn folders_that_both_make_are_one() {
    let (node, first) = alice().await;
    let second = machine(&node, 2).await;
    let (a, b) = join(
        first.make_folders("/alice/a/b/c"),
        second.make_folders("/alice/a/b/d"),
    )
    .await;
    a.unwrap();
    b.unwrap();
    // In bulk, with what is in them.
    let upload = async |session: &Session, n: u64| {
        let mut bulk = session.bulk("/alice").await.unwrap().from_device("desk");
        for name in ["x/y/same", "x/y/other", "x/top"] {
            let name = if name.ends_with("same") {
                name.to_owned()
            } else {
                format!("{name}{n}")
            };
            let bytes = content(5000, n);
            let mut source = Cursor::new(&bytes);
            bulk.file(&name, &mut source, Some(5000), None)
                .await
                .unwrap();
        }
        bulk.flush().await.unwrap();
        let copies = bulk.conflict_copies().to_vec();
        assert_eq!(
            bulk.finish().await.unwrap() % 2,
            1,
            "three files, and folders unless they were there"
        );
        copies
    };
    let (a, b) = join(upload(&first, 1), upload(&second, 2)).await;
    let copies = [a, b].concat();
    assert_eq!(copies.len(), 1);
    assert_eq!(copies[0].path, "/alice/x/y/same");
    assert_eq!(copies[0].copy, "/alice/x/y/same (conflict 2026-11-21 desk)");
    let again = machine(&node, 3).await;
    assert_eq!(names(&again, "/alice/a/b").await, ["c", "d"]);
    assert_eq!(names(&again, "/alice/x").await, ["top1", "top2", "y"]);
    let inner = [
        "other1",
        "other2",
        "same",
        "same (conflict 2026-11-21 desk)",
    ];
    assert_eq!(names(&again, "/alice/x/y").await, inner);
    for name in ["other1", "other2"] {
        let n = name[5..].parse().unwrap();
        assert!(get(&again, &format!("/alice/x/y/{name}")).await == content(5000, n));
    }
    let mut both = Vec::new();
    for name in [inner[2], inner[3]] {
        both.push(get(&again, &format!("/alice/x/y/{name}")).await);
    }
    assert!(both.contains(&content(5000, 1)) && both.contains(&content(5000, 2)));
    assert_eq!(tree_entries(&node).await, 4 + 4 + 2 + 6);
    // What was joined can be moved and deleted like anything else.
    again.move_to("/alice/x/y", "/alice/moved").await.unwrap();
    again.delete("/alice/x").await.unwrap();
    again.delete("/alice/moved").await.unwrap();
    assert_eq!(tree_entries(&node).await, 4 + 4);
}

#[tokio::test]
async fn only_empty_folders_are_removed_as_such() {
    let (node, session) = alice().await;
    session.make_folders("/alice/a/b").await.unwrap();
    put(&session, "/alice/file", b"").await.unwrap();
    let error = session.remove_folder("/alice/a").await.unwrap_err();
    assert!(matches!(error, ClientError::NotEmpty { .. }), "{error:?}");
    let error = session.remove_folder("/alice/file").await.unwrap_err();
    assert!(
        matches!(error, ClientError::NotADirectory { .. }),
        "{error:?}"
    );
    session.remove_folder("/alice/a/b").await.unwrap();
    session.remove_folder("/alice/a").await.unwrap();
    assert_eq!(tree_entries(&node).await, 5);
}

/// An answer is lost, and before the client looks, another device has gone on from what it wrote.
#[tokio::test]
async fn rel_24_an_append_whose_answer_was_lost_is_not_done_twice() {
    let (node, first) = alice().await;
    put(&first, "/alice/f", b"0").await.unwrap();
    for seed in 0..40 {
        let second = machine(&node, 10 + seed).await;
        let mut left = 2;
        node.lie(move |request| {
            if request.path.ends_with("setPointers") && left > 0 {
                left -= 1;
                return Fault::DropReply;
            }
            Fault::Honest
        });
        let (a, b) = join(
            first.append("/alice/f", b"a", None),
            second.append("/alice/f", b"b", None),
        )
        .await;
        node.tell_the_truth();
        a.unwrap();
        b.unwrap();
        let found = get(&machine(&node, 5).await, "/alice/f").await;
        let count = |letter| found.iter().filter(|byte| **byte == letter).count() as u64;
        assert_eq!((count(b'a'), count(b'b')), (seed + 1, seed + 1));
    }
    put_with(&first, "/alice/f", b"", &replace()).await.unwrap();
}
