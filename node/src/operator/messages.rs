//! The operator's side of the mailbox between operator and user (Spec: 09 §6).

use pki::wire::message::{MAX_MESSAGE_UNITS, MessageKind, ServerMessage};
use serde::{Deserialize, Serialize};

use super::{Failed, FailedKind, Operation, Report};
use crate::{messages, node::Node};

/// Writes to a user of this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendMessage {
    /// User name.
    pub name: String,
    /// Plain text, at most 4096 UTF-16 units.
    pub text: String,
    /// Id of the user's message that this one answers.
    #[serde(default)]
    pub reply_to: Option<i64>,
}

/// A message that was sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MessageSent {
    /// Its id.
    pub id: i64,
}

impl Operation for SendMessage {
    const NAME: &'static str = "messages-send";
    type Outcome = MessageSent;

    async fn run(self, node: &Node, _: &Report) -> Result<MessageSent, Failed> {
        let state = node.state();
        let units = self.text.encode_utf16().count();
        if units == 0 || units > MAX_MESSAGE_UNITS {
            return Err(Failed::new(
                FailedKind::NotAllowed,
                format!("a message has 1 to {MAX_MESSAGE_UNITS} characters, this one has {units}"),
            ));
        }
        let user = state.directory.named_local(&self.name).await?;
        let id = messages::send_from_operator(state, &user.name, &self.text, self.reply_to).await?;
        tracing::info!(
            user = user.name.as_str(),
            id,
            "message sent by the operator"
        );
        Ok(MessageSent { id })
    }
}

/// Lists all messages of a user, in both directions. Items: [`Message`], in order of sending.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListMessages {
    /// User name.
    pub name: String,
}

/// How many messages there are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MessagesListed {
    /// Number of messages.
    pub messages: u64,
}

/// A message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: i64,
    /// True when the user wrote it.
    pub is_from_user: bool,
    /// When, in UTC milliseconds since 1970.
    pub sent_epoch_millis: i64,
    /// Plain text of somebody else: never to be rendered as anything but text.
    pub text: String,
    /// Id of the message that this one answers.
    pub reply_to: Option<i64>,
    /// The user dismissed it.
    pub is_dismissed: bool,
}

impl From<ServerMessage> for Message {
    fn from(message: ServerMessage) -> Self {
        Self {
            id: message.id,
            is_from_user: message.kind == MessageKind::FromUser,
            sent_epoch_millis: message.sent_epoch_millis,
            text: message.body,
            reply_to: message.reply_to,
            is_dismissed: message.is_dismissed,
        }
    }
}

impl Operation for ListMessages {
    const NAME: &'static str = "messages-list";
    type Outcome = MessagesListed;

    async fn run(self, node: &Node, report: &Report) -> Result<MessagesListed, Failed> {
        let state = node.state();
        let user = state.directory.named_local(&self.name).await?;
        let all = messages::all(state, &user.name).await?;
        let listed = MessagesListed {
            messages: all.len() as u64,
        };
        for message in all {
            report.item(&Message::from(message)).await;
        }
        Ok(listed)
    }
}
