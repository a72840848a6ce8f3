//! What monitoring is told: whether the node can serve, and a few numbers.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::{state::State, store::tables};

/// Answers whether the store can be read.
pub(crate) async fn health(state: &State) -> Response<Full<Bytes>> {
    let is_healthy = state.store.get(tables::NODE, b"health").await.is_ok();
    let text = serde_json::json!({
        "status": if is_healthy { "ok" } else { "failing" },
        "version": env!("CARGO_PKG_VERSION"),
        "id": state.identity.current().to_string(),
    });
    let status = match is_healthy {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    response(status, "application/json", format!("{text}\n"))
}

/// Answers with the number of users.
pub(crate) async fn metrics(state: &State) -> Response<Full<Bytes>> {
    let Ok(users) = state.users.count(state).await else {
        return response(StatusCode::SERVICE_UNAVAILABLE, "text/plain", String::new());
    };
    let text = format!(
        "# HELP kastro_users Accounts with space.\n# TYPE kastro_users gauge\nkastro_users {users}\n"
    );
    response(StatusCode::OK, "text/plain; version=0.0.4", text)
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
