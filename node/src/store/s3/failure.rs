//! What an object store says when it refuses, sorted by what to do about it.

use std::{error::Error, fmt::Write as _, sync::Arc};

use crate::store::StoreError;

/// Status and code of an answer, as far as an error tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// HTTP status.
    pub(super) status: Option<u16>,
    /// Code of the service, as in `NoSuchKey`.
    pub(super) code: Option<String>,
}

impl Answer {
    /// Reads the answer out of an error.
    ///
    /// The library keeps status and body of an answer in a private type, so they are taken from its text.
    pub(super) fn of(error: &object_store::Error) -> Self {
        let text = chain(error);
        let after = |mark: &str| text.find(mark).and_then(|at| text.get(at + mark.len()..));
        let status = after("status code: ")
            .and_then(|rest| rest.get(..3))
            .and_then(|digits| digits.parse().ok());
        let code = after("<Code>")
            .and_then(|rest| rest.split_once("</Code>"))
            .map(|(code, _)| code.to_owned())
            .filter(|code| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric()));
        Self { status, code }
    }

    pub(super) fn is_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// Returns true for an answer that is about one object which is not there.
    pub(super) fn is_absent_object(&self, error: &object_store::Error) -> bool {
        matches!(error, object_store::Error::NotFound { .. }) && !self.is_code("NoSuchBucket")
    }

    /// Returns true when the service does not know the call at all.
    pub(super) fn is_unknown_call(&self) -> bool {
        matches!(self.status, Some(405 | 501))
            || ["NotImplemented", "MethodNotAllowed"]
                .iter()
                .any(|code| self.is_code(code))
    }
}

/// Turns an error into a failure of the store.
pub(super) fn failed(operation: &'static str, error: object_store::Error) -> StoreError {
    StoreError::Objects {
        operation,
        source: Arc::new(error),
    }
}

/// Tells an operator what is wrong with the settings, as far as an answer shows it.
pub(super) fn explained(error: &object_store::Error, bucket: &str, place: &str) -> StoreError {
    let answer = Answer::of(error);
    let text = chain(error);
    let known = match answer.code.as_deref() {
        Some("InvalidAccessKeyId" | "NotSignedUp") => {
            Some("it does not know the access key; check the credentials".to_owned())
        }
        Some("SignatureDoesNotMatch") => Some(
            "it refuses the signature: the secret of the access key is wrong, or something between changes requests"
                .to_owned(),
        ),
        Some("InvalidToken" | "ExpiredToken" | "TokenRefreshRequired") => {
            Some("the session of the credentials has ended; get new ones".to_owned())
        }
        Some("NoSuchBucket") => Some(format!(
            "there is no bucket {bucket}; create it, or correct its name"
        )),
        Some("RequestTimeTooSkewed") => Some(
            "its clock and the clock of this machine differ by more than 15 minutes; set the time".to_owned(),
        ),
        Some("AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException") => {
            Some(format!("bucket {bucket} is in another region; set the region"))
        }
        Some("AccessDenied" | "AllAccessDisabled") => Some(format!(
            "the access key may not read, write and delete in bucket {bucket}; give it s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket"
        )),
        _ => None,
    };
    let reason = known.unwrap_or_else(|| match answer.status {
        Some(301 | 302 | 307 | 308) => {
            format!("{place} sends requests elsewhere, which is not followed; set region and endpoint")
        }
        _ if text.contains("redirect without LOCATION") => {
            format!("bucket {bucket} is in another region; set the region")
        }
        Some(status) => match &answer.code {
            Some(code) => format!("{place} answered {status} {code}"),
            None => format!("{place} answered {status}"),
        },
        None if text.contains("InstanceCredential") || text.contains("169.254.169.254") => {
            "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
                .to_owned()
        }
        None => format!("{place} gives no answer: {}", innermost(error)),
    });
    StoreError::Unusable { reason }
}

fn innermost(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let _ = write!(text, ": {error}");
        next = error.source();
    }
    text
}
