//! A web application beside the API.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use crate::{World, text};

/// PGS-01-010: the hash that the program prints is the one that standard tools compute, and one byte changes it.
#[test]
fn pgs_01_010_the_bundle_can_be_compared_with_other_tools() {
    let world = World::new();
    let person = world.person("alice", "home");
    let web = world.path("webroot");
    fs::create_dir_all(web.join("js")).unwrap();
    fs::write(web.join("index.html"), "page").unwrap();
    fs::write(web.join("js/a b.js"), "script").unwrap();
    fs::write(web.join("js-x"), "order").unwrap();
    let hash = || person.ok(&["web-hash", text(&web)]);
    let ours = hash();
    let theirs = Command::new("sh")
        .arg("-c")
        .arg("find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum")
        .current_dir(&web)
        .output()
        .unwrap();
    let theirs = String::from_utf8(theirs.stdout).unwrap();
    assert_eq!(ours.trim(), theirs.split(' ').next().unwrap());
    let manifest = person.ok(&["web-hash", "--files", text(&web)]);
    assert_eq!(manifest.lines().count(), 3);
    fs::write(web.join("js/a b.js"), "scripT").unwrap();
    assert_ne!(hash(), ours);
    let error = person.fails(16, &["web-hash", text(&world.path("nothing"))]);
    assert!(error.contains("nothing"), "{error}");
}

#[test]
fn serve_hands_out_the_folder_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("index.html"), "the page").unwrap();
    let world = World::with_options(&["--web", text(folder.path())]);
    let host = world.node().url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nthe page"), "{answer}");
}
