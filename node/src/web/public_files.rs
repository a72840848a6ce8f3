//! Links to published files: the name of a file becomes a link that the page can open (Spec: 13 §8).
//!
//! Only the owner's public data is read, without access tokens, and never any content.

use bytes::Bytes;
use champ::BlockSource as _;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use pki::{
    published::{PublishedPath, find},
    wire::trailer::encode_trailer,
    writer_data::WriterData,
};

use crate::{
    blocks::{AuthorisedBlocks, source_refusal},
    error::Refusal,
    http::Origin,
    pointers,
    state::State,
};

/// Answers a request for what follows `/public/`, percent-decoded.
pub(crate) async fn answer(
    state: &State,
    parts: &Parts,
    wanted: &str,
    origin: Origin,
) -> Result<Response<Full<Bytes>>, Refusal> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(Refusal::Method);
    }
    let now = state.clock.steady_seconds();
    if let Some(address) = origin.address()
        && !state.guards.public_files.record(&address, now)
    {
        return Err(Refusal::RateLimit("Too many links to published files"));
    }
    let path = PublishedPath::parse(wanted)
        .map_err(|error| Refusal::malformed(format!("Invalid path: {error}")))?;
    let link = link(state, &path).await?;
    let opens = parts
        .uri
        .query()
        .is_some_and(|query| query.contains("open=true"));
    let location = location(&path, &link, opens);
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(
        header::LOCATION,
        HeaderValue::from_str(&location).map_err(Refusal::internal)?,
    );
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    Ok(response)
}

/// Returns the address of the page with the link behind `#`; braces and quotes stand there as they are.
fn location(path: &PublishedPath, link: &str, opens: bool) -> String {
    let path = encode_trailer(&path.to_string());
    let open = if opens { "%2c\"open\":true" } else { "" };
    format!("/#{{\"secretLink\":true%2c\"path\":\"{path}\"{open}%2c\"link\":\"{link}\"}}")
}

/// Returns the link text of the first published item on the path.
async fn link(state: &State, path: &PublishedPath) -> Result<String, Refusal> {
    let user = path.owner();
    let chain = state.directory.chain(user).await?;
    let Some(owner) = chain.identity() else {
        return Err(Refusal::rule(format!(
            "Owner doesn't exist for path {path}"
        )));
    };
    let user_row = state.directory.local(owner).await?;
    let blocks = AuthorisedBlocks {
        state,
        user: &user_row,
    };
    let none = || Refusal::rule(format!("User {user} has not made any files public."));
    let writer = owner.as_writer();
    let update = pointers::stored_update(state, &writer).await?;
    let root = update.and_then(|update| update.updated().cloned());
    let root = blocks
        .block(&root.ok_or_else(none)?, None)
        .await
        .map_err(source_refusal)?
        .ok_or_else(none)?;
    let root = WriterData::in_block(&root, &writer).map_err(unreadable)?;
    let public = root.public.ok_or_else(none)?;
    let found = find(&public, path, &blocks).await.map_err(unreadable)?;
    found
        .map(|found| found.capability.link_text())
        .ok_or_else(|| Refusal::rule(format!("User {user} has not published a file at {path}")))
}

/// The owner's data is not what it should be: nothing that this machine could mend.
fn unreadable(error: impl std::error::Error) -> Refusal {
    tracing::debug!(%error, "published files of a user cannot be read");
    Refusal::rule("The user's published files cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_location_holds_nothing_that_was_not_encoded() {
        let path = PublishedPath::parse("alice/a b&\"{}%\u{e4}").unwrap();
        assert_eq!(
            location(&path, "#o/w/m/k", false),
            "/#{\"secretLink\":true%2c\"path\":\"%2Falice%2Fa+b%26%22%7B%7D%25%C3%A4\"%2c\"link\":\"#o/w/m/k\"}"
        );
        assert_eq!(
            location(&path, "#l", true),
            "/#{\"secretLink\":true%2c\"path\":\"%2Falice%2Fa+b%26%22%7B%7D%25%C3%A4\"%2c\"open\":true%2c\"link\":\"#l\"}"
        );
    }
}
