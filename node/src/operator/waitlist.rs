//! The waiting list: addresses of people who want to be told when there is room (Spec: 09 §2).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Failed, FailedKind, Operation, Report};
use crate::{
    node::Node,
    store::{Batch, tables},
};

/// Rows read at once.
const PAGE: usize = 1000;

/// Lists the addresses. Items: [`Waiting`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListWaiting {}

/// How many addresses there are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitingListed {
    /// Number of addresses.
    pub addresses: u64,
}

/// An address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Waiting {
    /// The mail address, as a stranger typed it.
    pub address: String,
}

impl Operation for ListWaiting {
    const NAME: &'static str = "waitlist-list";
    type Outcome = WaitingListed;

    async fn run(self, node: &Node, report: &Report) -> Result<WaitingListed, Failed> {
        let store = &node.state().store;
        let mut addresses = 0;
        let mut after: Option<Bytes> = None;
        loop {
            let table = tables::WAITING_LIST;
            let page = store.scan(table, b"", after.as_deref(), PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(WaitingListed { addresses });
            };
            after = Some(last.clone());
            for (address, _) in page {
                let address = String::from_utf8_lossy(&address).into_owned();
                report.item(&Waiting { address }).await;
                addresses += 1;
            }
        }
    }
}

/// Takes an address off the list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveWaiting {
    /// The address.
    pub address: String,
}

impl Operation for RemoveWaiting {
    const NAME: &'static str = "waitlist-remove";
    type Outcome = ();

    async fn run(self, node: &Node, _: &Report) -> Result<(), Failed> {
        let store = &node.state().store;
        let row = self.address.into_bytes();
        let absent = || Failed::new(FailedKind::NotFound, "that address is not on the list");
        if store.get(tables::WAITING_LIST, &row).await?.is_none() {
            return Err(absent());
        }
        let _ = store
            .commit(Batch::new().remove(tables::WAITING_LIST, row))
            .await?;
        Ok(())
    }
}
