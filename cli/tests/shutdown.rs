//! SIGTERM while there is work (Spec: 40 REL-21).

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tests::{NodeProcess, write};

use crate::{World, program};

const ROUNDS: usize = 5;

/// Each round: uploads and a flood of small requests, SIGTERM in the middle, and a look at what was acknowledged.
#[test]
fn rel_21_a_node_that_is_told_to_stop_under_load_keeps_what_it_acknowledged() {
    let mut world = World::new();
    let person = world.signed_up("alice", "laptop");
    person.ok(&["mkdir", "/alice/up"]);
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let authority = world.node().authority().to_owned();
        let is_over = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let uploaded = Arc::new(AtomicUsize::new(0));
        let flood: Vec<_> = (0..4)
            .map(|_| {
                let (authority, is_over) = (authority.clone(), Arc::clone(&is_over));
                let answered = Arc::clone(&answered);
                thread::spawn(move || {
                    while !is_over.load(Ordering::SeqCst) {
                        answered.fetch_add(usize::from(ask(&authority)), Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let uploader = {
            let person = world.person("alice", "laptop");
            let folder = world.path("laptop");
            let (is_over, uploaded) = (Arc::clone(&is_over), Arc::clone(&uploaded));
            thread::spawn(move || {
                let mut done = Vec::new();
                for number in 0.. {
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    let name = format!("r{round}-{number}");
                    write(&folder.join(&name), format!("content of {name}").as_bytes());
                    let mut upload = person
                        .command(&["put", &name, "/alice/up/"])
                        .stdout(Stdio::null())
                        .stderr(Stdio::null())
                        .spawn()
                        .unwrap();
                    let status = loop {
                        if let Some(status) = upload.try_wait().unwrap() {
                            break status;
                        }
                        if is_over.load(Ordering::SeqCst) {
                            // It would go on trying for a while, where nobody listens any more.
                            let _ = upload.kill();
                        }
                        thread::sleep(Duration::from_millis(5));
                    };
                    if !status.success() {
                        break;
                    }
                    done.push(name);
                    uploaded.fetch_add(1, Ordering::SeqCst);
                }
                done
            })
        };
        // In the middle of it: at least one upload, and some requests.
        while answered.load(Ordering::SeqCst) < 200 || uploaded.load(Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(100 * u64::try_from(round).unwrap()));
        let node = world.node.take().unwrap();
        assert!(node.stop(), "ends with success within the grace period");
        is_over.store(true, Ordering::SeqCst);
        for thread in flood {
            thread.join().unwrap();
        }
        world.node = Some(NodeProcess::start(program(), &world.data(), &[]));
        let log = world.node().log();
        assert!(!log.contains("repair") && !log.contains("recover"), "{log}");
        acknowledged.extend(uploader.join().unwrap());
    }
    assert!(acknowledged.len() >= ROUNDS);
    let person = world.person("alice", "phone");
    for name in &acknowledged {
        assert_eq!(
            person.ok(&["cat", &format!("/alice/up/{name}")]),
            format!("content of {name}")
        );
    }
}

/// One request; whoever gets an answer gets all of it.
fn ask(authority: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(authority) else {
        return false;
    };
    let text =
        format!("POST /api/v0/id HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    if stream.write_all(text.as_bytes()).is_err() {
        return false;
    }
    let mut out = String::new();
    if stream.read_to_string(&mut out).is_err() || out.is_empty() {
        return false;
    }
    assert!(
        out.starts_with("HTTP/1.1 200 ") && out.ends_with("\"}"),
        "{out}"
    );
    true
}
