//! From a reply that is not 200 to an error a person or a program can act on (Spec: 05 §7.3, §7.4).

use pki::wire::{
    refusal::{Refusal, text},
    trailer::decode_trailer,
};

use crate::{
    error::ClientError,
    transport::{ApiRequest, ApiResponse, TransportError},
};

/// Longest message taken over from a node, in bytes.
const MAX_MESSAGE_BYTES: usize = 1024;

/// A failed attempt.
#[derive(Debug)]
pub(super) enum Failure {
    /// Asking again later may help.
    Busy(ClientError),
    /// The reply never arrived.
    Transport(TransportError),
    /// Asking again does not help.
    Final(ClientError),
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl Failure {
    pub(super) fn into_error(self) -> ClientError {
        match self {
            Self::Busy(error) | Self::Final(error) => error,
            Self::Transport(error) => ClientError::Network(error),
        }
    }
}

/// Sorts a refusal by status and message.
pub(super) fn classify(request: &ApiRequest, response: &ApiResponse) -> Failure {
    let message = message_of(response);
    let contains = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    let is_busy = matches!(response.status, 429 | 503) || contains(&[text::QUEUE_FULL]);
    // Limits that last: waiting a moment does not help.
    let is_limit = message.starts_with("Rate Limit") || contains(&["exceeded"]);
    let error = match Refusal::of(&message) {
        Refusal::QuotaReached => ClientError::QuotaReached { message },
        Refusal::RateLimited if is_limit => ClientError::RateLimited { message },
        _ if is_busy => return Failure::Busy(ClientError::RateLimited { message }),
        // A proxy lost the node's answer: the call may have been processed.
        _ if matches!(response.status, 502 | 504) => {
            return Failure::Transport(TransportError::Interrupted(
                Box::<dyn std::error::Error + Send + Sync>::from(message).into(),
            ));
        }
        // One with the current pointer is read by whoever moved it.
        Refusal::Conflict if !message.starts_with(text::POINTER_CAS) => ClientError::Conflict,
        Refusal::BadLogin => ClientError::WrongCredentials,
        Refusal::BadCode | Refusal::UnknownCredential => {
            ClientError::SecondFactorRefused { message }
        }
        _ if contains(&[
            text::WRONG_SERVER,
            text::SUBSCRIPTION_EXPIRED,
            text::NO_HOME,
            text::WRONG_HOST,
        ]) =>
        {
            ClientError::WrongServer { message }
        }
        _ if contains(&[text::SIGNUPS_CLOSED, text::BAD_SIGNUP_TOKEN]) => {
            ClientError::SignupRefused { message }
        }
        _ => ClientError::Refused {
            call: request.path.to_string(),
            status: response.status,
            message,
        },
    };
    Failure::Final(error)
}

/// Returns the message of a refusal: the decoded `Trailer`, else the body when it is text.
pub(super) fn message_of(response: &ApiResponse) -> String {
    let mut message = match &response.trailer {
        Some(trailer) => decode_trailer(trailer),
        None => String::from_utf8_lossy(
            response
                .body
                .get(..MAX_MESSAGE_BYTES)
                .unwrap_or(&response.body),
        )
        .into_owned(),
    };
    if message.len() > MAX_MESSAGE_BYTES {
        let mut end = MAX_MESSAGE_BYTES;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
    }
    // A hostile node must not reach the terminal with control sequences; line feeds are part of real messages.
    message.retain(|c| c == '\n' || !c.is_control());
    message
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn refused(status: u16, trailer: &str) -> ClientError {
        let response = ApiResponse {
            status,
            trailer: Some(trailer.to_owned()),
            body: Bytes::new(),
        };
        classify(&ApiRequest::new("api/v0/x", 1), &response).into_error()
    }

    #[test]
    fn messages_that_clients_interpret_become_errors_of_their_own() {
        let quota = "Storage+quota+reached%21+%0AUsed+38103+out+of+1+bytes.";
        assert!(
            matches!(refused(400, quota), ClientError::QuotaReached { message } if message.contains("! \nUsed"))
        );
        assert!(matches!(
            refused(429, "Too+Many+Requests"),
            ClientError::RateLimited { .. }
        ));
        assert!(matches!(
            refused(400, "Rate+Limit%3A+slow"),
            ClientError::RateLimited { .. }
        ));
        assert!(matches!(
            refused(400, "CAS+exception+x"),
            ClientError::Conflict
        ));
        assert!(matches!(
            refused(400, "Incorrect+username+or+password"),
            ClientError::WrongCredentials
        ));
        assert!(matches!(
            refused(400, "Invalid+TOTP+code+for+credId+00"),
            ClientError::SecondFactorRefused { .. }
        ));
        assert!(matches!(
            refused(400, "Please+login+on+your+home+server"),
            ClientError::WrongServer { .. }
        ));
        assert!(matches!(
            refused(400, "Invalid+signup+token."),
            ClientError::SignupRefused { .. }
        ));
        assert!(matches!(
            refused(404, ""),
            ClientError::Refused { status: 404, .. }
        ));
    }

    #[test]
    fn messages_are_bounded_and_free_of_control_characters() {
        let ClientError::Refused { message, .. } = refused(400, &"%1B%C3%A9".repeat(5000)) else {
            panic!("wrong class");
        };
        assert!(message.len() <= MAX_MESSAGE_BYTES && !message.contains('\u{1b}'));
    }
}
