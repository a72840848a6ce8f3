//! A node whose blocks are in a bucket, its metadata on a disk or in a database, is killed while it stores them (REL-1):
//! every version that was acknowledged is there, every pointer leads to blocks, and a check of everything finds nothing.
//!
//! `KASTRO_KILL_ROUNDS=500 cargo test --release -p node --test main kill_bucket -- --nocapture` runs the long version.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, mpsc::sync_channel},
    time::{Duration, Instant},
};

use super::{
    backup_elsewhere::{Elsewhere, Place},
    kill::{acknowledge, delete},
    world::Files,
};
use crate::{
    servers::{postgres, s3},
    store::model_disk::Dice,
};

/// Folder of the victim: the one that holds `data`.
const FOLDER: &str = "KASTRO_BUCKET_VICTIM";
/// Its prefix in the bucket.
const PREFIX: &str = "KASTRO_BUCKET_VICTIM_PREFIX";
/// Folder of the database server, for a victim whose metadata is there.
const DATABASE: &str = "KASTRO_BUCKET_VICTIM_DATABASE";
/// Its data set.
const SCHEMA: &str = "killed";
const ROUNDS: &str = "KASTRO_KILL_ROUNDS";
const USERS: [(&str, u8); 2] = [("alice", 7), ("bob", 8)];

fn place(prefix: &str, database: Option<&str>) -> Option<Place> {
    Some(Place {
        rows: database.map(|folder| postgres::data_set(folder, SCHEMA)),
        bucket: Some(s3::server()?.options(prefix)),
    })
}

/// One user's session: versions one after the other, each acknowledged, the version before deleted.
async fn work(world: Arc<Elsewhere>, name: &'static str, seed: u8) {
    let mut files = match Files::resume_in(&*world.store, name, seed).await {
        Some(files) => files,
        None => {
            let files = Files::sign_up(&world.node, name, seed, 2).await;
            acknowledge(name, files.version());
            files
        }
    };
    loop {
        let old: Vec<_> = files.fragments.iter().map(|b| b.cid().clone()).collect();
        let fragments = 1 + (files.version() % 3) as u8;
        files.save_at(&world.node, fragments).await;
        acknowledge(name, files.version());
        delete(&*world.store, name, &old).await;
    }
}

/// The victim; runs until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bucket_victim() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let database = std::env::var(DATABASE).ok();
    let place = place(&std::env::var(PREFIX).unwrap(), database.as_deref()).unwrap();
    // Never removed by the victim: the parent owns it.
    let world = Arc::new(Elsewhere::on(&place, PathBuf::from(folder)).await);
    let mut tasks = tokio::task::JoinSet::new();
    for (name, seed) in USERS {
        tasks.spawn(work(world.clone(), name, seed));
    }
    tasks.join_all().await;
}

/// Lets a victim work for a while after its first acknowledgement and kills it; returns what was acknowledged.
fn run_and_kill(
    folder: &Path,
    prefix: &str,
    database: Option<&str>,
    time: Duration,
) -> [i64; USERS.len()] {
    let address = s3::server().unwrap().address;
    let mut victim = Command::new(std::env::current_exe().unwrap());
    if let Some(database) = database {
        victim.env(DATABASE, database);
    }
    let mut victim = victim
        .args([
            "--exact",
            "upkeep::kill_bucket::bucket_victim",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .env(PREFIX, prefix)
        .env(s3::OTHER_SERVER, address.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(victim.stdout.take().unwrap());
    let (sender, lines) = sync_channel(1 << 16);
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut acknowledged = [0; USERS.len()];
    let mut note = |line: &str| {
        // The test harness may print in front of a line.
        let Some(at) = line.find("acknowledged ") else {
            return false;
        };
        let mut words = line[at..].split(' ').skip(1);
        let name = words.next().unwrap();
        let user = USERS.iter().position(|(user, _)| *user == name).unwrap();
        acknowledged[user] = words.next().unwrap().parse().unwrap();
        true
    };
    let mut end: Option<Instant> = None;
    loop {
        let left = end.map_or(Duration::from_secs(120), |end| {
            end.saturating_duration_since(Instant::now())
        });
        let Ok(line) = lines.recv_timeout(left) else {
            break;
        };
        if note(&line) && end.is_none() {
            end = Some(Instant::now() + time);
        }
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    lines.iter().for_each(|line| {
        note(&line);
    });
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_1_a_node_with_its_blocks_in_a_bucket_is_killed_and_loses_nothing_acknowledged() {
    kill_again_and_again(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_1_a_node_with_a_database_and_a_bucket_is_killed_and_loses_nothing_acknowledged() {
    if std::env::var_os(FOLDER).is_none()
        && let Some(server) = postgres::shared()
    {
        kill_again_and_again(Some(server.folder())).await;
    }
}

async fn kill_again_and_again(database: Option<&str>) {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    let prefix = s3::S3Server::fresh_prefix();
    let Some(place) = place(&prefix, database) else {
        return;
    };
    let rounds = std::env::var(ROUNDS).map_or(3, |rounds| rounds.parse().unwrap());
    let root = tempfile::tempdir().unwrap();
    let mut dice = Dice(u64::from(std::process::id()));
    for round in 0..rounds {
        let time = Duration::from_millis(dice.roll(300));
        let acknowledged = run_and_kill(root.path(), &prefix, database, time);
        assert!(acknowledged.iter().any(|version| *version > 0), "{round}");
        let world = Elsewhere::on(&place, root.path().to_owned()).await;
        for ((name, seed), least) in USERS.into_iter().zip(acknowledged) {
            let Some(files) = Files::resume_in(&*world.store, name, seed).await else {
                assert_eq!(least, 0, "{name} is gone");
                continue;
            };
            assert!(
                files.version() >= least,
                "{name}: {} of {least}",
                files.version()
            );
            // Killed between the sign-up and the first version, there is nothing to read yet.
            if files.version() > 1 {
                files.assert_readable_at(&world.node).await;
            }
        }
        world.assert_sound().await;
        world.node.node.close().await.unwrap();
    }
}
