//! Why something with a peer did not work, in words for the log and the operator.

use std::{error::Error, io};

use libp2p::{TransportError, relay::outbound::hop, swarm::DialError};

const NO_RELAY: &str = "the node there is no relay: it is not reachable from outside itself, or does not want to be one";

/// Says why a peer could not be dialed.
pub(super) fn not_dialed(error: &DialError) -> String {
    match error {
        DialError::NoAddresses => "no address is known".to_owned(),
        DialError::WrongPeerId { .. } => "another node answers at its address".to_owned(),
        DialError::Transport(errors) => errors
            .first()
            .map_or_else(|| error.to_string(), |(_, error)| of_transport(error)),
        _ => error.to_string(),
    }
}

/// Says why an address cannot be used.
pub(super) fn of_transport(error: &TransportError<io::Error>) -> String {
    match error {
        TransportError::MultiaddrNotSupported(address) => format!("{address} is not dialed"),
        TransportError::Other(error) => innermost(error),
    }
}

/// Says why a listener was closed.
pub(super) fn of_listener(error: &io::Error) -> String {
    let mut inner: &(dyn Error + 'static) = error;
    loop {
        if let Some(refusal) = inner.downcast_ref::<hop::ReserveError>() {
            return of_relay(refusal);
        }
        // An error made of another one is not its source.
        let held = inner
            .downcast_ref::<io::Error>()
            .and_then(|error| error.get_ref());
        inner = match held {
            Some(held) => held,
            None => match inner.source() {
                Some(source) => source,
                None => return innermost(error),
            },
        };
    }
}

fn of_relay(refusal: &hop::ReserveError) -> String {
    use hop::{ProtocolViolation, ReserveError};
    // The request is sent with the name of the protocol; that nobody speaks it is seen when the answer is read, and the
    // library keeps nothing of that but the text.
    let is_unknown = innermost(refusal).contains("negotiation failed");
    let words = match refusal {
        ReserveError::Refused | ReserveError::ResourceLimitExceeded => {
            "the relay has no place left"
        }
        ReserveError::Unsupported => NO_RELAY,
        _ if is_unknown => NO_RELAY,
        ReserveError::Protocol(ProtocolViolation::NoAddressesInReservation) => {
            "the relay does not know under which address it is reached"
        }
        ReserveError::Protocol(_) => "the relay gave no proper answer",
        ReserveError::Io(_) => "the connection with the relay broke",
    };
    words.to_owned()
}

/// Libraries wrap an error several times, each in words and lines of its own; the innermost says why.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string().replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use libp2p::{core::upgrade::NegotiationError, relay};

    use super::*;

    #[test]
    fn refusals_of_relays_are_told_in_words() {
        let wrapped = |error: hop::ReserveError| {
            io::Error::other(io::Error::other(relay::client::transport::Error::from(
                error,
            )))
        };
        for (error, words) in [
            (hop::ReserveError::Refused, "no place"),
            (hop::ReserveError::ResourceLimitExceeded, "no place"),
            (hop::ReserveError::Unsupported, "no relay"),
            (
                io::Error::other(NegotiationError::Failed).into(),
                "no relay",
            ),
            (
                hop::ProtocolViolation::NoAddressesInReservation.into(),
                "which address",
            ),
            (
                hop::ProtocolViolation::UnexpectedTypeReserve.into(),
                "proper",
            ),
            (io::Error::other("x").into(), "broke"),
        ] {
            let told = of_listener(&wrapped(error));
            assert!(told.contains(words), "{told}");
        }
        assert_eq!(of_listener(&io::Error::other("two\nlines")), "two lines");
    }
}
