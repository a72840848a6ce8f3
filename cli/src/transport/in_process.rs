//! A node opened in this process on a local data folder: no daemon, no socket.
//!
//! The folder's lock keeps a second node out, so a client never works beside a running daemon on the same data.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use cryptree::transport::{ApiRequest, ApiResponse, Transport, TransportError};
use http::{Method, Request, header};
use node::Node;

use crate::{commands::serve::open_node, exit::Failure};

/// A node that answers calls of this process.
#[derive(Debug)]
pub struct InProcess {
    node: Node,
}

impl InProcess {
    /// Opens the node that keeps its data in `folder`.
    ///
    /// # Errors
    ///
    /// When the folder cannot be used, for example because a daemon is using it.
    pub async fn open(folder: &Path) -> Result<Self, Failure> {
        let config = crate::config::of_folder(folder)?;
        Ok(Self {
            node: open_node(config).await?,
        })
    }

    /// Takes calls to a node that is open already; closing it is left to the caller.
    #[must_use]
    pub const fn of(node: Node) -> Self {
        Self { node }
    }

    /// Finishes what was accepted and lets go of the folder.
    pub async fn close(&self) {
        if let Err(error) = self.node.close().await {
            tracing::warn!(%error, "the data folder was not closed cleanly");
        }
    }
}

#[async_trait]
impl Transport for InProcess {
    async fn call(&self, request: ApiRequest) -> Result<ApiResponse, TransportError> {
        let max = request.max_reply_bytes;
        let target = format!("/{}", request.target());
        let request = Request::builder()
            .method(Method::POST)
            .uri(target)
            .body(request.body.unwrap_or_default())
            .map_err(|error| TransportError::Unreachable(Arc::new(error)))?;
        let response = self.node.call(request).await;
        let trailer = response
            .headers()
            .get(header::TRAILER)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let status = response.status().as_u16();
        let body = response.into_body();
        if body.len() > max {
            return Err(TransportError::ReplyTooLarge { max });
        }
        Ok(ApiResponse {
            status,
            trailer,
            body,
        })
    }
}
