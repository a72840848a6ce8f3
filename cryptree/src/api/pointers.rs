//! Mutable pointers (Spec: 07).

use bytes::Bytes;
use champ::cbor::Record;
use pki::{
    keys::{Owner, Writer},
    pointer::{MAX_SIGNED_BYTES, PointerCas},
    wire::pointer_batch::{PointerBatch, PointerWrite},
};

use super::{Api, Repeat};
use crate::{
    error::ClientError,
    transport::{ApiRequest, TransportError},
};

/// What became of a pointer write.
#[derive(Debug)]
pub enum PointerAnswer {
    /// The update is durable.
    Done,
    /// Another update came first; the current state as the node reports it, when it does.
    Overtaken(Option<PointerCas>),
    /// No answer: it may have been done or not.
    Unknown(TransportError),
}

impl Api {
    /// Returns the signed update of a writer as stored; `None` when it never had one.
    pub async fn pointer(
        &self,
        owner: &Owner,
        writer: &Writer,
    ) -> Result<Option<Bytes>, ClientError> {
        let request = ApiRequest::new("peergos/v0/mutable/getPointer", MAX_SIGNED_BYTES)
            .with("owner", owner.to_string())
            .with("writer", writer.to_string());
        let body = self.call(request, Repeat::Safe).await?;
        Ok((!body.is_empty()).then_some(body))
    }

    /// Sends one update.
    pub async fn set_pointer(
        &self,
        owner: &Owner,
        update: &PointerWrite,
    ) -> Result<PointerAnswer, ClientError> {
        let request = ApiRequest::new("peergos/v0/mutable/setPointer", 16)
            .with("owner", owner.to_string())
            .with("writer", update.writer.to_string())
            .with_body(update.signed.clone());
        self.move_pointers(request).await
    }

    /// Sends updates of several writers that are applied all or none.
    pub async fn set_pointers(
        &self,
        owner: &Owner,
        updates: Vec<PointerWrite>,
    ) -> Result<PointerAnswer, ClientError> {
        let batch = PointerBatch::new(updates)
            .map_err(|_| ClientError::Internal("a pointer batch could not be built"))?;
        let request = ApiRequest::new("peergos/v0/mutable/setPointers", 16)
            .with("owner", owner.to_string())
            .with_body(batch.encode());
        self.move_pointers(request).await
    }

    async fn move_pointers(&self, request: ApiRequest) -> Result<PointerAnswer, ClientError> {
        let path = request.path.clone();
        match self.call_for_pointer(request).await {
            Ok(Ok(body)) => match body.as_ref() {
                [1] => {
                    self.counters().commit();
                    Ok(PointerAnswer::Done)
                }
                // Rejected by signature or controller, or lost in a race (Spec: 07 §3.2, §4).
                [0] => Ok(PointerAnswer::Overtaken(None)),
                _ if path.ends_with("setPointers") => {
                    Err(ClientError::malformed("peergos/v0/mutable/setPointers"))
                }
                _ => Err(ClientError::malformed("peergos/v0/mutable/setPointer")),
            },
            Ok(Err(cas)) => Ok(PointerAnswer::Overtaken(Some(cas))),
            Err(ClientError::Network(
                error @ (TransportError::Interrupted(_) | TransportError::TimedOut),
            )) => Ok(PointerAnswer::Unknown(error)),
            Err(ClientError::Conflict) => Ok(PointerAnswer::Overtaken(None)),
            Err(error) => Err(error),
        }
    }

    /// Makes the call; the inner error is a compare-and-swap refusal.
    async fn call_for_pointer(
        &self,
        request: ApiRequest,
    ) -> Result<Result<Bytes, PointerCas>, ClientError> {
        match self.call(request, Repeat::Never).await {
            Ok(body) => Ok(Ok(body)),
            Err(ClientError::Refused {
                message,
                call,
                status,
            }) => match message.parse::<PointerCas>() {
                Ok(cas) => Ok(Err(cas)),
                Err(_) => Err(ClientError::Refused {
                    call,
                    status,
                    message,
                }),
            },
            Err(error) => Err(error),
        }
    }
}
