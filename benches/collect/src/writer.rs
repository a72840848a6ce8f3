//! Writers that go on while something else happens, and how long each write takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use champ::Cid;
use node::Node;
use tokio::{sync::Mutex, task::JoinHandle};

use crate::account::Account;

/// Pause after each write: the machine is not to be full without the collection.
const PAUSE: Duration = Duration::from_millis(5);

/// Times of writes.
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the time below which this many percent are.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// One writer for each account.
pub(crate) struct Writers {
    node: Node,
    accounts: Vec<Arc<Mutex<Account>>>,
    stop: Arc<AtomicBool>,
    running: Vec<JoinHandle<Result<Vec<Duration>>>>,
}

impl Writers {
    pub(crate) fn start(node: &Node, accounts: Vec<Account>) -> Self {
        Self {
            node: node.clone(),
            accounts: accounts
                .into_iter()
                .map(|a| Arc::new(Mutex::new(a)))
                .collect(),
            stop: Arc::default(),
            running: Vec::new(),
        }
    }

    /// Lets the writers write.
    pub(crate) fn begin(&mut self) {
        self.stop.store(false, Ordering::Relaxed);
        for account in &self.accounts {
            let (node, account, stop) = (self.node.clone(), account.clone(), self.stop.clone());
            self.running.push(tokio::spawn(async move {
                let mut times = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let mut account = account.lock().await;
                    let started = Instant::now();
                    account.write(&node).await?;
                    times.push(started.elapsed());
                    drop(account);
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(times)
            }));
        }
    }

    /// Stops them and returns their times in ascending order.
    pub(crate) async fn end(&mut self) -> Vec<Latencies> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for writer in self.running.drain(..) {
            let mut times = match writer.await {
                Ok(Ok(times)) => times,
                Ok(Err(error)) => {
                    println!("a writer failed: {error}");
                    Vec::new()
                }
                Err(error) => {
                    println!("a writer was lost: {error}");
                    Vec::new()
                }
            };
            times.sort_unstable();
            all.push(Latencies(times));
        }
        all
    }

    /// Makes these shares the whole tree of an account.
    pub(crate) async fn keep(&self, account: usize, shares: &[Cid]) -> Result<()> {
        if let Some(account) = self.accounts.get(account) {
            account.lock().await.commit(&self.node, shares, &[]).await?;
        }
        Ok(())
    }
}
