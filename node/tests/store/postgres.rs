//! The PostgreSQL engine: the contract, batches that race, a server that goes away.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use node::store::{
    Batch, BlockStore as _, CommitOutcome, MetaStore as _, PostgresOptions, PostgresStore, Store,
    StoreError, tables,
};
use tokio::{
    net::{TcpListener, UnixStream},
    task::JoinSet,
};

use super::contract::{alice, check, raw, transaction};
use crate::servers::postgres::{Server, shared};

async fn open(options: PostgresOptions) -> PostgresStore {
    PostgresStore::open(options).await.unwrap()
}

#[tokio::test]
async fn postgres_keeps_the_contract() {
    let Some(server) = shared() else { return };
    check(async |clock| {
        let mut options = server.new_data_set();
        options.clock = clock;
        Arc::new(open(options).await) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test]
async fn several_processes_make_the_schema_once() {
    let Some(server) = shared() else { return };
    let options = server.new_data_set();
    let mut tasks = JoinSet::new();
    for n in 0..8_u8 {
        let options = options.clone();
        tasks.spawn(async move {
            let store = open(options).await;
            let batch = Batch::new().put(tables::NODE, vec![n], "x");
            assert!(store.commit(batch).await.unwrap().is_committed());
        });
    }
    tasks.join_all().await;
    let store = open(options).await;
    assert_eq!(
        store.scan(tables::NODE, b"", None, 99).await.unwrap().len(),
        8
    );
    assert!(store.is_shared());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_batches_over_the_same_keys_neither_deadlock_nor_lose_an_update() {
    let Some(server) = shared() else { return };
    let options = server.new_data_set();
    let stores = [
        Arc::new(open(options.clone()).await),
        Arc::new(open(options).await),
    ];
    const KEYS: [&str; 4] = ["a", "b", "c", "d"];
    let value = |row: Option<bytes::Bytes>| {
        row.map_or(0, |row| {
            String::from_utf8_lossy(&row).parse::<u64>().unwrap()
        })
    };
    let mut tasks = JoinSet::new();
    for n in 0..50_usize {
        let store = stores[n % 2].clone();
        tasks.spawn(async move {
            // Each takes the keys in an order of its own; a few lock the whole data set.
            let mut done = 0;
            while done < 4 {
                let mut batch = Batch::new();
                for at in 0..KEYS.len() {
                    let key = KEYS[(at * 3 + n) % KEYS.len()];
                    let before = store.get(tables::USAGE, key.as_bytes()).await.unwrap();
                    let next = (value(before.clone()) + 1).to_string();
                    batch = batch
                        .expect(tables::USAGE, key, before)
                        .put(tables::USAGE, key, next);
                }
                if n % 10 == 0 {
                    for extra in 0..40_u8 {
                        batch = batch.put(tables::BATS, vec![extra], vec![extra]);
                    }
                }
                if store.commit(batch).await.unwrap().is_committed() {
                    done += 1;
                }
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(120), tasks.join_all())
        .await
        .unwrap();
    for key in KEYS {
        let row = stores[0].get(tables::USAGE, key.as_bytes()).await.unwrap();
        assert_eq!(value(row), 200);
    }
}

#[tokio::test]
async fn a_batch_that_waits_too_long_for_a_lock_changes_nothing() {
    let Some(server) = shared() else { return };
    let mut options = server.new_data_set();
    options.lock_timeout = Duration::from_millis(100);
    let store = open(options.clone()).await;
    let socket = server.socket();
    let config = format!(
        "host={} user=kastro dbname=postgres",
        socket.parent().unwrap().display()
    );
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let batch = Batch::new().put(tables::NODE, "k", "v");
    assert!(store.commit(batch.clone()).await.unwrap().is_committed());
    // Somebody sits on all keys of the data set.
    client.batch_execute("BEGIN").await.unwrap();
    let locked: i32 = client
        .query_one(
            "SELECT (('x' || substr(encode(sha256(convert_to($1, 'UTF8')), 'hex'), 1, 8))::bit(32)::int & 2147483647)",
            &[&options.schema_name()],
        )
        .await
        .unwrap()
        .get(0);
    client
        .execute("SELECT pg_advisory_xact_lock($1, -1)", &[&locked])
        .await
        .unwrap();
    let late = store
        .commit(Batch::new().put(tables::NODE, "k", "late"))
        .await;
    assert!(matches!(late, Err(StoreError::Busy)), "{late:?}");
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(store.get(tables::NODE, b"k").await.unwrap().unwrap(), "v");
    assert!(store.commit(batch).await.unwrap().is_committed());
}

#[tokio::test]
async fn a_server_that_does_not_flush_is_refused() {
    let Some(server) = shared() else { return };
    let mut options = server.new_data_set();
    options.require_fsync = true;
    let refused = PostgresStore::open(options).await;
    assert!(matches!(refused, Err(StoreError::NotDurable)));
}

#[tokio::test]
async fn a_schema_of_a_newer_version_is_refused() {
    let Some(server) = shared() else { return };
    let options = server.new_data_set();
    open(options.clone()).await;
    let config = format!(
        "host={} user=kastro dbname=postgres",
        server.socket().parent().unwrap().display()
    );
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let insert = format!(
        "INSERT INTO {}.schema_version (version) VALUES (1000)",
        options.schema_name()
    );
    client.batch_execute(&insert).await.unwrap();
    assert!(matches!(
        PostgresStore::open(options).await,
        Err(StoreError::NewerFormat { found: 1000, .. })
    ));
}

#[tokio::test]
async fn a_canceled_request_leaves_nothing_behind_that_stops_others() {
    let Some(server) = shared() else { return };
    let mut options = server.new_data_set();
    options.connections = 1;
    let store = Arc::new(open(options).await);
    let (partition, open_transaction) = (alice(), transaction("t"));
    for n in 0..50_u64 {
        let put = store.put_blocks(&partition, vec![raw(n, 50_000)], Some(&open_transaction));
        let _ = tokio::time::timeout(Duration::from_micros(n * 40), put).await;
        let batch = Batch::new().put(tables::NODE, "k", n.to_string());
        assert!(store.commit(batch).await.unwrap().is_committed());
    }
    for info in store.list_blocks(&alice(), None, 100).await.unwrap() {
        assert!(store.block(&alice(), &info.cid).await.unwrap().is_some());
    }
}

/// Every acknowledged increment of a counter survives kills of the server in the middle of commits; one that was not
/// acknowledged happened or not, as a whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    const WRITERS: usize = 8;
    const KILLS: usize = 4;
    let Some(mut server) = Server::start() else {
        return;
    };
    let store = Arc::new(open(server.data_set("torture")).await);
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for n in 0..WRITERS {
        let (store, stop) = (store.clone(), stop.clone());
        let acknowledged = acknowledged.clone();
        tasks.spawn(async move {
            let key = [n as u8];
            let (mut sure, mut asked) = (0_u64, 0_u64);
            while !stop.load(Ordering::Relaxed) {
                let next = asked + 1;
                let batch = Batch::new()
                    .put(tables::POINTERS, key.to_vec(), next.to_string())
                    .put(tables::USAGE, key.to_vec(), next.to_string())
                    .put(
                        tables::WRITERS,
                        [&key[..], &next.to_be_bytes()].concat(),
                        "",
                    );
                asked = next;
                match store.commit(batch).await {
                    Ok(outcome) => {
                        assert!(outcome.is_committed());
                        sure = next;
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                        let block = raw(next, 2_000 + n);
                        let _ = store.put_blocks(&alice(), vec![block], None).await;
                    }
                    Err(
                        StoreError::Undecided(_) | StoreError::Unreachable(_) | StoreError::Busy,
                    ) => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
            (n, sure, asked)
        });
    }
    let mut before = 0;
    for _ in 0..KILLS {
        // Each round gets some work done first.
        while acknowledged.load(Ordering::Relaxed) < before + 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        before = acknowledged.load(Ordering::Relaxed);
        server = tokio::task::spawn_blocking(move || {
            server.kill();
            server.resume();
            server
        })
        .await
        .unwrap();
    }
    while acknowledged.load(Ordering::Relaxed) < before + 50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let outcomes: BTreeMap<_, _> = tasks
        .join_all()
        .await
        .into_iter()
        .map(|(n, sure, asked)| (n, (sure, asked)))
        .collect();
    for (n, (sure, asked)) in outcomes {
        let key = [n as u8];
        let get = async |table| {
            let row = store.get(table, &key).await.unwrap().unwrap();
            String::from_utf8_lossy(&row).parse::<u64>().unwrap()
        };
        let found = get(tables::POINTERS).await;
        assert!((sure..=asked).contains(&found), "{sure} {found} {asked}");
        assert_eq!(get(tables::USAGE).await, found, "half a batch");
        let all = store
            .scan(tables::WRITERS, &key, None, 10_000)
            .await
            .unwrap();
        assert!(all.iter().any(|(row, _)| row[1..] == found.to_be_bytes()));
    }
    for info in store.list_blocks(&alice(), None, 10_000).await.unwrap() {
        assert!(store.block(&alice(), &info.cid).await.unwrap().is_some());
    }
}

/// Connections that are cut while a commit waits for its answer: the outcome is reported as unknown, and what is
/// stored is one of the two.
#[tokio::test]
async fn a_cut_connection_is_never_taken_for_success() {
    let Some(server) = shared() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = server.socket();
    let cut_after = Arc::new(AtomicU64::new(u64::MAX));
    let limit = cut_after.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(cut(client, server, limit.clone()));
        }
    });
    let direct = open(server.data_set("cut")).await;
    let mut options = PostgresOptions::new(&format!("postgres://kastro@127.0.0.1:{port}/postgres"))
        .unwrap()
        .schema("cut")
        .unwrap();
    options.require_fsync = false;
    let store = open(options).await;
    let mut unknown = 0;
    for n in 0..60_u64 {
        let before = direct.get(tables::NODE, b"k").await.unwrap();
        // The answer to the n-th statement breaks off after some bytes.
        cut_after.store(n % 20 * 4, Ordering::SeqCst);
        let batch = Batch::new().expect(tables::NODE, "k", before.clone()).put(
            tables::NODE,
            "k",
            n.to_string(),
        );
        let outcome = store.commit(batch).await;
        cut_after.store(u64::MAX, Ordering::SeqCst);
        match outcome {
            Ok(CommitOutcome::Committed) => {
                let now = direct.get(tables::NODE, b"k").await.unwrap();
                assert_eq!(now.unwrap(), n.to_string());
            }
            Err(StoreError::Undecided(_) | StoreError::Unreachable(_)) => {
                unknown += 1;
                // A commit under way ends before the key can be locked again.
                let probe = Batch::new()
                    .put(tables::USAGE, "k", "")
                    .put(tables::NODE, "p", "");
                assert!(direct.commit(probe).await.unwrap().is_committed());
                let now = direct.get(tables::NODE, b"k").await.unwrap();
                let new = bytes::Bytes::from(n.to_string());
                assert!(now == before || now == Some(new));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(unknown >= 5, "{unknown}");
    assert!(store.get(tables::NODE, b"k").await.unwrap().is_some());
}

/// Copies both ways; answers are cut off after a number of bytes that may change meanwhile.
async fn cut(client: tokio::net::TcpStream, server: UnixStream, limit: Arc<AtomicU64>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    };
    let down = async {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            let left = limit.load(Ordering::SeqCst);
            let whole = (n as u64) <= left;
            let n = n.min(usize::try_from(left).unwrap_or(usize::MAX));
            let sent = to_client.write_all(&buffer[..n]).await;
            if !whole || sent.is_err() {
                limit.store(u64::MAX, Ordering::SeqCst);
                return;
            }
            if left != u64::MAX {
                limit.fetch_sub(n as u64, Ordering::SeqCst);
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}
