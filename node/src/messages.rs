//! Messages between operator and user, kept per user (Spec: 09 §6).

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use champ::cbor::{Record, RecordError, Value};
use pki::{
    username::Username,
    wire::message::{MessageKind, ServerMessage, ServerMessages},
};
use sha2::{Digest as _, Sha256};

use crate::{
    auth::Window,
    error::Refusal,
    state::State,
    store::{Batch, tables},
};

/// Stored messages of one user in the last hour that still allow another one.
const MAX_PER_HOUR: usize = 21;
/// Most messages of one user.
const MAX_MESSAGES: usize = 2000;
/// Attempts at a change that other changes overtake.
const MAX_ATTEMPTS: usize = 10;
const HOUR_MILLIS: i64 = 3_600_000;

/// A message as it is stored, with the digest of what the user signed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    message: ServerMessage,
    digest: [u8; 32],
}

impl Record for Stored {
    fn to_value(&self) -> Value {
        Value::List(vec![self.message.to_value(), Value::from(&self.digest)])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut items = value.into_list("message")?.into_iter();
        let mut next = || items.next().ok_or(RecordError::Missing("message"));
        Ok(Self {
            message: ServerMessage::from_value(next()?)?,
            digest: next()?.into_array("digest")?,
        })
    }
}

/// Returns the conversations that wait for the user: all messages of each whose last one is not dismissed and
/// not from the user, in order of sending.
pub(crate) async fn retrieve(state: &State, name: &Username) -> Result<ServerMessages, Refusal> {
    let (_, stored) = load(state, name).await?;
    Ok(ServerMessages(waiting(
        stored.into_iter().map(|stored| stored.message).collect(),
    )))
}

fn waiting(mut messages: Vec<ServerMessage>) -> Vec<ServerMessage> {
    messages.sort_by_key(|message| (message.sent_epoch_millis, message.id));
    let mut conversation_of: HashMap<i64, i64> = HashMap::new();
    let mut last_of: HashMap<i64, bool> = HashMap::new();
    for message in &messages {
        let conversation = message
            .reply_to
            .and_then(|id| conversation_of.get(&id).copied())
            .unwrap_or(message.id);
        conversation_of.insert(message.id, conversation);
        let is_waiting = !message.is_dismissed && message.kind != MessageKind::FromUser;
        last_of.insert(conversation, is_waiting);
    }
    let shown: HashSet<i64> = last_of
        .into_iter()
        .filter_map(|(conversation, is_waiting)| is_waiting.then_some(conversation))
        .collect();
    messages.retain(|message| {
        conversation_of
            .get(&message.id)
            .is_some_and(|conversation| shown.contains(conversation))
    });
    messages
}

/// Stores or dismisses a message that the user signed; a repetition of the same bytes changes nothing.
pub(crate) async fn send(state: &State, name: &Username, signed: &[u8]) -> Result<(), Refusal> {
    let message = ServerMessage::decode(signed)
        .map_err(|error| Refusal::malformed(format!("Invalid server message: {error}")))?;
    let now = state.clock.now_millis();
    let digest: [u8; 32] = Sha256::digest(signed).into();
    if message.kind == MessageKind::FromServer {
        return Err(Refusal::rule(
            "Invalid message type sent from user: FromServer",
        ));
    }
    Window::HOUR
        .check(message.sent_epoch_millis, now)
        .map_err(|_| Refusal::rule("Invalid send time on message!"))?;
    for _ in 0..MAX_ATTEMPTS {
        let (before, mut stored) = load(state, name).await?;
        if stored.iter().any(|known| known.digest == digest) {
            return Ok(());
        }
        match message.kind {
            MessageKind::Dismiss => {
                let known = stored
                    .iter_mut()
                    .find(|known| known.message.id == message.id);
                let Some(known) = known.filter(|known| !known.message.is_dismissed) else {
                    return Ok(());
                };
                known.message.is_dismissed = true;
            }
            _ => {
                let recent = stored
                    .iter()
                    .filter(|known| now - known.message.sent_epoch_millis < HOUR_MILLIS)
                    .count();
                if recent >= MAX_PER_HOUR || stored.len() >= MAX_MESSAGES {
                    return Err(Refusal::rule("Please wait before sending more messages!"));
                }
                let id = next_id(&stored);
                stored.push(Stored {
                    message: ServerMessage {
                        id,
                        is_dismissed: false,
                        ..message.clone()
                    },
                    digest,
                });
            }
        }
        if store(state, name, before, &stored).await? {
            return Ok(());
        }
    }
    Err(Refusal::RateLimit("Too many messages at once"))
}

/// Stores a message of the operator and returns its id; operators are not limited by the hour.
pub(crate) async fn send_from_operator(
    state: &State,
    name: &Username,
    body: &str,
    reply_to: Option<i64>,
) -> Result<i64, Refusal> {
    for _ in 0..MAX_ATTEMPTS {
        let (before, mut stored) = load(state, name).await?;
        if stored.len() >= MAX_MESSAGES {
            return Err(Refusal::rule("the mailbox of this user is full"));
        }
        if let Some(id) = reply_to
            && !stored.iter().any(|known| known.message.id == id)
        {
            return Err(Refusal::rule("there is no message with the id to answer"));
        }
        let message = ServerMessage {
            id: next_id(&stored),
            kind: MessageKind::FromServer,
            sent_epoch_millis: state.clock.now_millis(),
            body: body.to_owned(),
            reply_to,
            is_dismissed: false,
        };
        let id = message.id;
        // Nobody signs these, so no signed message can have the same digest.
        let digest = Sha256::digest(message.encode()).into();
        stored.push(Stored { message, digest });
        if store(state, name, before, &stored).await? {
            return Ok(id);
        }
    }
    Err(Refusal::RateLimit("Too many messages at once"))
}

/// Returns all messages of a user in order of sending.
pub(crate) async fn all(state: &State, name: &Username) -> Result<Vec<ServerMessage>, Refusal> {
    let (_, stored) = load(state, name).await?;
    let mut messages: Vec<_> = stored.into_iter().map(|stored| stored.message).collect();
    messages.sort_by_key(|message| (message.sent_epoch_millis, message.id));
    Ok(messages)
}

fn next_id(stored: &[Stored]) -> i64 {
    stored
        .iter()
        .map(|known| known.message.id)
        .max()
        .unwrap_or(0)
        .saturating_add(1)
}

async fn load(state: &State, name: &Username) -> Result<(Option<Bytes>, Vec<Stored>), Refusal> {
    let row = state
        .store
        .get(tables::MESSAGES, name.as_str().as_bytes())
        .await?;
    let stored = match &row {
        None => Vec::new(),
        Some(row) => champ::cbor::decode(row)
            .map_err(RecordError::from)
            .and_then(|value| value.into_list("messages"))
            .and_then(|list| list.into_iter().map(Stored::from_value).collect())
            .map_err(Refusal::internal)?,
    };
    Ok((row, stored))
}

async fn store(
    state: &State,
    name: &Username,
    before: Option<Bytes>,
    stored: &[Stored],
) -> Result<bool, Refusal> {
    let key = name.as_str().as_bytes().to_vec();
    let row = Value::List(stored.iter().map(Record::to_value).collect()).encode();
    let batch = Batch::new()
        .expect(tables::MESSAGES, key.clone(), before)
        .put(tables::MESSAGES, key, row);
    Ok(state.store.commit(batch).await?.is_committed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(
        id: i64,
        kind: MessageKind,
        reply_to: Option<i64>,
        dismissed: bool,
    ) -> ServerMessage {
        ServerMessage {
            id,
            kind,
            sent_epoch_millis: id,
            body: String::new(),
            reply_to,
            is_dismissed: dismissed,
        }
    }

    #[test]
    fn conversations_that_wait_for_the_user_are_shown_whole() {
        use MessageKind::{FromServer, FromUser};
        let shown = waiting(vec![
            message(3, FromServer, Some(2), false),
            message(1, FromServer, None, false),
            message(2, FromUser, Some(1), false),
            message(4, FromServer, None, true),
            message(5, FromUser, None, false),
        ]);
        let ids: Vec<_> = shown.iter().map(|message| message.id).collect();
        assert_eq!(ids, [1, 2, 3]);
    }
}
