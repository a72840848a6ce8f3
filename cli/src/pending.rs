//! Calls of the client that are still to come.

use cryptree::{
    ClientError,
    client::{Client, Session},
};

/// Space of an account.
#[derive(Debug)]
pub struct Space {
    /// Bytes used.
    pub used_bytes: u64,
    /// Bytes allowed.
    pub quota_bytes: u64,
}

const LATER: ClientError = ClientError::Internal("not part of this build yet");

/// Calls of a session that are still to come.
#[async_trait::async_trait]
pub trait PendingSession {
    /// Seals the session.
    async fn save(&self, _key: &[u8; 32]) -> Result<Vec<u8>, ClientError> {
        Err(LATER)
    }
    /// Changes the password.
    async fn change_password(&self, _old: &str, _new: &str) -> Result<(), ClientError> {
        Err(LATER)
    }
    /// Asks for the space.
    async fn space(&self) -> Result<Space, ClientError> {
        Err(LATER)
    }
}
impl PendingSession for Session {}

/// Calls of a client that are still to come.
#[async_trait::async_trait]
pub trait PendingClient {
    /// Opens a session.
    async fn restore(&self, _sealed: &[u8], _key: &[u8; 32]) -> Result<Session, ClientError> {
        Err(LATER)
    }
}
impl PendingClient for Client {}
