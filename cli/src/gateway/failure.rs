//! Why there is no page, as status and text (Spec: 13 §9.1).

use cryptree::{ClientError, TransportError};
use http::StatusCode;

/// Why a request has no page.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SiteFailure {
    /// The host is no owner's.
    #[error("Incorrect domain! A site is at <user>{0}")]
    Domain(String),
    /// Neither GET nor HEAD.
    #[error("Method not allowed")]
    Method,
    /// No such owner, or nothing published.
    #[error("{0}")]
    Absent(String),
    /// Too much at once.
    #[error("Too Many Requests")]
    Busy,
    /// The server did not answer in time.
    #[error("Timed out")]
    TimedOut,
    /// The server is away, or does not give what it should.
    #[error("The site cannot be read")]
    Client(#[source] ClientError),
}

impl From<ClientError> for SiteFailure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Network(TransportError::TimedOut) => Self::TimedOut,
            other => Self::Client(other),
        }
    }
}

impl SiteFailure {
    /// Returns true when the owner's data say that there is nothing.
    pub(super) const fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Client(
                ClientError::NotFound { .. }
                    | ClientError::NotADirectory { .. }
                    | ClientError::IsADirectory { .. }
            )
        )
    }

    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Domain(_) => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Absent(_) => StatusCode::NOT_FOUND,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Client(_) => StatusCode::BAD_GATEWAY,
        }
    }
}
