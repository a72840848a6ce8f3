//! What protects a node and its people on their own machines, by the rows of the security checklist.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tests::{Kastro, NodeProcess};

use crate::{World, program, text};

const CANARY: &str = "canary-of-the-password-9f3c";

/// Waits until `is_true`, with a deadline.
fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_true() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn proc_file(process: u32, name: &str) -> String {
    let bytes = fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What `/proc` shows of the environment; `None` where it shows that to nobody but root (SC-5).
fn environment(process: u32) -> Option<String> {
    match fs::read(format!("/proc/{process}/environ")) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
        read => Some(String::from_utf8_lossy(&read.unwrap_or_default()).into_owned()),
    }
}

/// The words of one line of `/proc/PID/NAME`.
fn proc_line(process: u32, name: &str, begins: &str) -> Vec<String> {
    let text = proc_file(process, name);
    let line = text.lines().find(|line| line.starts_with(begins));
    let words = line.unwrap_or_default().split_whitespace();
    words.map(str::to_owned).collect()
}

/// Who owns the files that `/proc` has of a process: root, if its memory is nobody else's business.
fn owner_in_proc(process: u32) -> Option<u32> {
    let status = fs::metadata(format!("/proc/{process}/status"));
    status.ok().map(|status| status.uid())
}

/// Starts an upload to `/alice/f`, which waits for its standard input, so that the process can be looked at.
fn waiting_upload(person: &Kastro) -> Child {
    let mut command = person.command(&["put", "-", "/alice/f"]);
    command.stdin(Stdio::piped()).spawn().unwrap()
}

/// A node and a client that waits in the middle of an upload.
#[test]
fn sc_5_processes_that_hold_keys_leave_no_core_and_are_not_debugged() {
    let world = World::new();
    let person = world.person("alice", "laptop");
    person.ok(&["signup", "--no-session"]);
    let mut upload = waiting_upload(&person);
    let node = world.node.as_ref().unwrap().id();
    for process in [upload.id(), node] {
        wait_for("no core dump", || {
            let words = proc_line(process, "limits", "Max core file size");
            words.get(4..6).is_some_and(|both| both == ["0", "0"])
        });
    }
    drop(upload.stdin.take());
    assert!(upload.wait().unwrap().success());
}

/// The kernel shows the files of a process whose memory is private as those of root.
#[test]
fn sc_5_other_programs_of_the_same_person_cannot_look_into_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    // Root sees no difference, so it starts the program as somebody else.
    let own = fs::metadata(folder.path()).unwrap().uid();
    let somebody = if own == 0 { 65_534 } else { own };
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // It never answers.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let start = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", folder.path())
            .env("KASTRO_SERVER", &url)
            .env("KASTRO_USER", "alice")
            .env("KASTRO_PASSWORD", CANARY)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if own == 0 {
            command.uid(somebody).gid(somebody).current_dir("/");
        }
        command.spawn()
    };
    let mut control = start(Path::new("cat"), &[]).unwrap();
    assert_eq!(owner_in_proc(control.id()), Some(somebody));
    drop(control.stdin.take());
    control.wait().unwrap();
    let Ok(mut client) = start(program(), &["ls", "/alice"]) else {
        eprintln!("SKIP: {} is not for everybody", program().display());
        return;
    };
    wait_for("the files are root's", || {
        owner_in_proc(client.id()) == Some(0)
    });
    server.set_nonblocking(true).unwrap();
    let mut asking = None;
    wait_for("it asks", || {
        asking = asking.take().or_else(|| server.accept().ok());
        asking.is_some()
    });
    assert_eq!(client.try_wait().unwrap(), None, "it is at work");
    assert_eq!(owner_in_proc(client.id()), Some(0));
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn sc_6_a_password_in_the_environment_is_taken_out_of_it() {
    let world = World::new();
    let person = world
        .person("alice", "laptop")
        .with("KASTRO_PASSWORD", CANARY);
    person.ok(&["signup", "--no-session"]);
    let mut upload = waiting_upload(&person);
    let process = upload.id();
    wait_for(
        "the process shows its environment without the secret, if at all",
        || {
            let seen = environment(process);
            seen.is_none_or(|seen| {
                seen.contains("KASTRO_USER=alice") && !seen.contains("KASTRO_PASSWORD=")
            })
        },
    );
    assert!(environment(process).is_none_or(|seen| !seen.contains(CANARY)));
    assert!(!proc_file(process, "cmdline").contains(CANARY));
    // Empty for a moment while the program starts itself again.
    wait_for("its arguments are shown", || {
        proc_file(process, "cmdline").contains("/alice/f")
    });
    drop(upload.stdin.take());
    assert!(upload.wait().unwrap().success(), "the password arrived");
    assert_eq!(person.ok(&["cat", "/alice/f"]), "");
}

#[test]
fn sc_6_a_nodes_secrets_in_the_environment_are_taken_out_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut node = Command::new(program())
        .args(["serve", "--json", "--listen", "127.0.0.1:0", "--data"])
        .arg(&data)
        .args(["--set", "max_users=0"])
        .env_clear()
        .env("KASTRO_SIGNUP_TOKENS", CANARY)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(node.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let announced: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(environment(node.id()).is_none_or(|seen| !seen.contains(CANARY)));
    assert!(!proc_file(node.id(), "cmdline").contains(CANARY));
    let person = Kastro::new(program(), folder.path())
        .with("KASTRO_SERVER", announced["url"].as_str().unwrap())
        .with("KASTRO_PASSWORD", "the password of alice");
    person.fails(18, &["signup", "alice"]);
    person
        .clone()
        .with("KASTRO_SIGNUP_TOKEN", CANARY)
        .ok(&["signup", "alice"]);
    let _ = node.kill();
    let _ = node.wait();
    // And nowhere on the command line is there a place for one.
    let secret = format!("signup_tokens={CANARY}");
    let message = person.fails(2, &["serve", "--set", &secret]);
    assert!(message.contains("is a secret"), "{message}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn key_files(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| path.extension().is_some_and(|end| end == "key"))
        .collect()
}

#[test]
fn sc_7_a_generous_umask_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // A shell sets the umask of what it starts.
    let script = format!(
        "umask 000; exec {} serve --json --listen 127.0.0.1:0 --data {} --set monitoring=127.0.0.1:0",
        program().display(),
        data.display()
    );
    let mut node = Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(node.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("url"), "{line}");
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("admin.sock")), 0o600);
    assert_eq!(mode(&data.join("admin.token")), 0o600);
    let keys = key_files(&data);
    assert!(keys.len() >= 3, "{keys:?}");
    for key in keys {
        assert_eq!(mode(&key), 0o600, "{}", key.display());
    }
    let _ = node.kill();
    let _ = node.wait();
}

#[test]
fn sc_7_a_node_refuses_keys_that_others_can_read_and_closes_an_open_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    assert!(NodeProcess::start(program(), &data, &[]).stop());
    let operator = Kastro::new(program(), folder.path()).with("KASTRO_DATA", text(&data));
    for key in key_files(&data) {
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let message = operator.fails(16, &["serve", "--listen", "127.0.0.1:0"]);
        assert!(
            message.contains("can be read or changed by others"),
            "{message}"
        );
        assert!(
            message.contains(&format!("chmod 600 {}", key.display())),
            "{message}"
        );
        operator.fails(16, &["users", "list"]);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let node = NodeProcess::start(program(), &data, &[]);
    assert_eq!(mode(&data), 0o700);
    assert!(node.stop());
}

#[test]
fn rel_22_one_process_has_a_data_folder_and_a_crash_frees_it() {
    let mut world = World::new();
    let data = world.data();
    let second = Kastro::new(program(), world.data().parent().unwrap());
    for _ in 0..3 {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--data", text(&data)];
        let message = second.fails(20, &arguments);
        assert!(message.contains("in use by another process"), "{message}");
        // Commands of the operator do not need the lock: they ask the process that has it.
        second.ok(&["users", "list", "--data", text(&data)]);
        world.restart_after_kill();
    }
    world.node.take().unwrap().kill();
    second.ok(&["users", "list", "--data", text(&data)]);
}

#[test]
fn rel_22_a_process_that_does_not_answer_is_told_apart() {
    let mut world = World::new();
    let data = world.data();
    let operator = Kastro::new(program(), data.parent().unwrap()).with("KASTRO_DATA", text(&data));
    let socket = data.join("admin.sock");
    fs::remove_file(&socket).unwrap();
    let message = operator.fails(20, &["users", "list"]);
    assert!(message.contains("does not answer on"), "{message}");
    world.node.take().unwrap().kill();
    operator.ok(&["users", "list"]);
}

#[test]
fn rel_23_a_lost_identity_is_not_replaced_unless_asked_for() {
    let mut world = World::new();
    let alice = world.signed_up("alice", "laptop");
    fs::write(world.path("laptop/f"), "kept").unwrap();
    alice.ok(&["put", "f", "/alice/"]);
    assert!(world.node.take().unwrap().stop());
    let data = world.data();
    let operator = Kastro::new(program(), data.parent().unwrap()).with("KASTRO_DATA", text(&data));
    let key = data.join("node.key");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let message = operator.fails(16, &serve);
    assert!(message.contains("node.key is missing"), "{message}");
    assert!(message.contains("--new-identity"), "{message}");
    assert!(!key.exists(), "no key was made");

    // Its users are still at home under the new one.
    world.node = Some(NodeProcess::start(program(), &data, &["--new-identity"]));
    assert_ne!(fs::read(&key).unwrap(), kept);
    assert_eq!(
        world.person("alice", "laptop").ok(&["cat", "/alice/f"]),
        "kept"
    );
    world.restart_after_kill();
    assert_eq!(
        world.person("alice", "laptop").ok(&["cat", "/alice/f"]),
        "kept"
    );
    let bob = world.signed_up("bob", "phone");
    bob.ok(&["ls"]);
}
