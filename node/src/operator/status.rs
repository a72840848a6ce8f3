//! What monitoring is told: the health page and the metrics.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::{
    health::{Status, examine},
    metrics::render,
    state::State,
};

/// Answers how well the node is.
pub(crate) async fn health(state: &State) -> Response<Full<Bytes>> {
    let health = examine(state).await;
    let status = match health.status {
        Status::Ok | Status::Degraded => StatusCode::OK,
        Status::Failing => StatusCode::SERVICE_UNAVAILABLE,
    };
    let text = serde_json::to_string(&health).unwrap_or_default();
    response(status, "application/json", format!("{text}\n"))
}

/// Answers with all metrics.
pub(crate) async fn metrics(state: &State) -> Response<Full<Bytes>> {
    let text = render(state).await;
    response(StatusCode::OK, "text/plain; version=0.0.4", text)
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
