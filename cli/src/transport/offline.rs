//! No node at all: whoever asks is told so at once, and goes on with what was kept.

use std::sync::Arc;

use async_trait::async_trait;
use cryptree::transport::{ApiRequest, ApiResponse, Transport, TransportError};

/// Answers nothing.
#[derive(Debug, Clone, Copy)]
pub struct Offline;

/// Why nothing is answered.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{OFFLINE}")]
struct NotAsked;

/// What is said where the node would be needed.
pub const OFFLINE: &str = "this is not kept on this machine, and --offline asks no node";

#[async_trait]
impl Transport for Offline {
    async fn call(&self, _: ApiRequest) -> Result<ApiResponse, TransportError> {
        Err(TransportError::Unreachable(Arc::new(NotAsked)))
    }
}
