//! Messages between operator and user (Spec: 09 §6).

use champ::cbor::{Fields, Map, Record, RecordError, Value};

use super::body::record_body;

/// Longest body of a message, in UTF-16 units.
pub const MAX_MESSAGE_UNITS: usize = 4096;
/// Longest body of `send`, signature included.
pub const MAX_SEND_BYTES: usize = 10_240;
/// The id of a message that has none yet.
pub const NO_ID: i64 = -1;

/// Who sent it, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// From the operator.
    FromServer,
    /// From the user.
    FromUser,
    /// The user dismisses a message.
    Dismiss,
}

impl MessageKind {
    const fn code(self) -> i64 {
        match self {
            Self::FromServer => 1,
            Self::FromUser => 2,
            Self::Dismiss => 3,
        }
    }

    const fn from_code(code: i64) -> Option<Self> {
        match code {
            1 => Some(Self::FromServer),
            2 => Some(Self::FromUser),
            3 => Some(Self::Dismiss),
            _ => None,
        }
    }
}

/// One message. Plain text: interfaces must not render it as HTML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMessage {
    /// Given by the server; [`NO_ID`] in new ones; the message dismissed in dismissals.
    pub id: i64,
    /// Kind.
    pub kind: MessageKind,
    /// When, in UTC milliseconds since 1970.
    pub sent_epoch_millis: i64,
    /// Text, at most [`MAX_MESSAGE_UNITS`].
    pub body: String,
    /// Id of the message this one answers.
    pub reply_to: Option<i64>,
    /// Dismissed by the user.
    pub is_dismissed: bool,
}

impl Record for ServerMessage {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("b", self.body.as_str());
        map.insert("d", self.is_dismissed);
        map.insert_some("r", self.reply_to);
        map.insert("s", self.sent_epoch_millis);
        map.insert("t", self.kind.code());
        map.insert("id", self.id);
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "server message")?;
        let body = fields.required("b")?.into_text("b")?;
        if body.encode_utf16().count() > MAX_MESSAGE_UNITS {
            return Err(RecordError::WrongLength {
                field: "b",
                actual: body.len(),
            });
        }
        let kind = fields.required("t")?.into_int("t")?;
        Ok(Self {
            id: fields.required("id")?.into_int("id")?,
            kind: MessageKind::from_code(kind).ok_or(RecordError::OutOfRange { field: "t" })?,
            sent_epoch_millis: fields.required("s")?.into_int("s")?,
            body,
            reply_to: fields
                .optional("r")
                .map(|value| value.into_int("r"))
                .transpose()?,
            is_dismissed: fields.required("d")?.into_bool("d")?,
        })
    }
}

/// The reply of `retrieve`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerMessages(pub Vec<ServerMessage>);

impl Record for ServerMessages {
    fn to_value(&self) -> Value {
        Value::List(self.0.iter().map(Record::to_value).collect())
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        value
            .into_list("messages")?
            .into_iter()
            .map(ServerMessage::from_value)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

record_body! {
    ServerMessages: 16 << 20, 1 << 18;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: String) -> ServerMessage {
        ServerMessage {
            id: NO_ID,
            kind: MessageKind::FromUser,
            sent_epoch_millis: 0,
            body,
            reply_to: None,
            is_dismissed: false,
        }
    }

    #[test]
    fn length_is_counted_in_utf16_units() {
        for (unit, count) in [
            ("x", MAX_MESSAGE_UNITS),
            ("\u{1f600}", MAX_MESSAGE_UNITS / 2),
        ] {
            let longest = message(unit.repeat(count));
            assert_eq!(ServerMessage::decode(&longest.encode()), Ok(longest));
            let longer = message(unit.repeat(count + 1));
            assert!(matches!(
                ServerMessage::decode(&longer.encode()),
                Err(RecordError::WrongLength { field: "b", .. })
            ));
        }
    }

    #[test]
    fn unknown_kinds_are_refused() {
        let Value::Map(mut map) = message(String::new()).to_value() else {
            unreachable!()
        };
        map.insert("t", 4);
        assert_eq!(
            ServerMessage::from_value(Value::Map(map)),
            Err(RecordError::OutOfRange { field: "t" })
        );
    }
}
