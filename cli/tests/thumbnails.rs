//! Small pictures of what is uploaded, and what comes of pictures that are none (Spec: 20 §5, 40 FS-12).

use std::{
    fs,
    io::{Cursor, Read as _, Write as _},
    process::{Command, Stdio},
};

use image::{ImageFormat, RgbImage};

use crate::{World, json_lines, text};

fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| {
        let [_, _, _, x] = x.to_be_bytes();
        let [_, _, _, y] = y.to_be_bytes();
        image::Rgb([x, y, x ^ y])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// 64k x 64k pixels in 57 bytes, the header with a right checksum.
const BOMB: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xff\xff\0\0\xff\xff\x08\x06\0\0\0\xb6\x05\xd9\x50\
    \0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82";

#[test]
fn pictures_get_a_thumbnail_and_everything_else_is_uploaded_without() {
    let world = World::new();
    let alice = world.signed_up("alice", "laptop");
    let home = world.path("laptop");
    let folder = home.join("p");
    fs::create_dir_all(&folder).unwrap();
    let photo = picture(1000, 500, ImageFormat::Jpeg);
    for (name, bytes) in [
        ("photo.jpg", photo.clone()),
        ("named wrongly.txt", picture(300, 600, ImageFormat::Png)),
        ("b.gif", picture(64, 64, ImageFormat::Gif)),
        ("cut.jpg", photo[..photo.len() / 3].to_vec()),
        ("header only.jpg", photo[..60].to_vec()),
        ("bomb.png", BOMB.to_vec()),
        ("tiny.gif", b"GIF89a".to_vec()),
        (
            "text.jpg",
            b"a text of more than forty bytes that calls itself a picture".to_vec(),
        ),
        (
            "recursive.svg",
            b"<svg id='a' xmlns='http://www.w3.org/2000/svg'><use href='#a'/></svg>".to_vec(),
        ),
        (
            "broken.mp4",
            [b"\0\0\0\x18ftypmp42".to_vec(), vec![0xff; 100]].concat(),
        ),
    ] {
        fs::write(folder.join(name), bytes).unwrap();
    }
    alice.ok(&["put", "p", "/alice/"]);
    let size = |path: &str| {
        let row = &json_lines(&alice.ok(&["stat", "--json", path]))[0];
        row["thumbnail_size"].as_u64()
    };
    for name in ["photo.jpg", "named wrongly.txt", "b.gif"] {
        let bytes = size(&format!("/alice/p/{name}")).unwrap_or_else(|| panic!("{name}"));
        assert!(bytes <= 102_400, "{name}: {bytes}");
    }
    for name in [
        "header only.jpg",
        "bomb.png",
        "tiny.gif",
        "text.jpg",
        "recursive.svg",
        "broken.mp4",
    ] {
        assert_eq!(size(&format!("/alice/p/{name}")), None, "{name}");
    }
    alice.ok(&["get", "/alice/p", "back"]);
    tests::assert_same(&folder, &home.join("back"));
    // It is a picture of the right shape, wherever it was.
    alice.ok(&["get", "--thumbnail", "/alice/p/photo.jpg", "small.jpg"]);
    let small = fs::read(home.join("small.jpg")).unwrap();
    let decoded = image::load_from_memory_with_format(&small, ImageFormat::Jpeg).unwrap();
    assert_eq!((decoded.width(), decoded.height()), (400, 200));
    let message = alice.fails(
        8,
        &["get", "--thumbnail", "/alice/p/photo.jpg", "small.jpg"],
    );
    assert!(message.contains("--force"), "{message}");
    alice.fails(7, &["get", "--thumbnail", "/alice/p/text.jpg", "x.jpg"]);
    let shown = alice.ok(&["stat", "/alice/p/photo.jpg"]);
    assert!(shown.contains("thumbnail"), "{shown}");
    // Alone, replaced, moved, copied, and when it is not wanted.
    let one = text(&folder.join("photo.jpg")).to_owned();
    alice.ok(&["put", &one, "/alice/one.jpg"]);
    alice.ok(&["cp", "/alice/one.jpg", "/alice/two.jpg"]);
    alice.ok(&["mv", "/alice/two.jpg", "/alice/three.jpg"]);
    for path in ["/alice/one.jpg", "/alice/three.jpg"] {
        assert_eq!(size(path), Some(small.len() as u64), "{path}");
    }
    let other = text(&folder.join("text.jpg")).to_owned();
    alice.ok(&["put", "--force", &other, "/alice/one.jpg"]);
    assert_eq!(
        size("/alice/one.jpg"),
        None,
        "the picture of what was there before"
    );
    alice.ok(&["put", "--no-thumbnails", &one, "/alice/plain.jpg"]);
    assert_eq!(size("/alice/plain.jpg"), None);
    alice.ok(&["sync", "p", "/alice/synced"]);
    assert!(size("/alice/synced/photo.jpg").is_some());
    alice.ok(&["sync", "--no-thumbnails", "p", "/alice/synced plainly"]);
    assert_eq!(size("/alice/synced plainly/photo.jpg"), None);
}

#[test]
fn fs_12_the_process_that_decodes_can_open_nothing_and_has_little_memory() {
    let mut worker = Command::new(crate::program())
        .arg("--make-thumbnails")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (worker.stdin.take().unwrap(), worker.stdout.take().unwrap());
    let mut ask = |picture: &[u8]| {
        input
            .write_all(&(picture.len() as u64).to_le_bytes())
            .unwrap();
        input.write_all(picture).unwrap();
        input.flush().unwrap();
        let mut length = [0; 4];
        output.read_exact(&mut length).unwrap();
        let mut made = vec![0; u32::from_le_bytes(length) as usize];
        output.read_exact(&mut made).unwrap();
        made
    };
    assert!(ask(b"rubbish").is_empty());
    assert!(ask(BOMB).is_empty());
    assert!(!ask(&picture(20, 20, ImageFormat::WebP)).is_empty());
    let limits = fs::read_to_string(format!("/proc/{}/limits", worker.id())).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..]
            .split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert_eq!(limit("Max open files"), 3);
    assert_eq!(limit("Max file size"), 0);
    assert_eq!(limit("Max core file size"), 0);
    assert!(limit("Max data size") <= 1 << 30);
    assert!(limit("Max cpu time") <= 600);
    drop(input);
    assert!(worker.wait().unwrap().success(), "it ends with its input");
}
