//! Stands between node and object store and spoils what passes.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::Notify};

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Passed on.
    Pass,
    /// Answered with this status and code; never passed on.
    Refuse(u16, &'static str),
    /// Passed on, and then no answer comes.
    Hang,
    /// Passed on; the answer is lost and the status sent instead.
    LoseAnswer(u16),
    /// Sent elsewhere.
    Redirect(String),
}

/// A running proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    plan: Arc<Plan>,
}

#[derive(Default)]
struct Plan {
    /// For the next requests whose method and query match.
    faults: Mutex<VecDeque<(String, Fault)>>,
    /// For all requests of a method, after those above.
    always: Mutex<Vec<(String, Fault)>>,
    requests: AtomicU64,
    /// Told with every request.
    arrived: Notify,
}

impl Proxy {
    /// Starts one in front of `behind`; it ends with the test.
    pub(crate) async fn start(behind: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::new(Plan::default());
        let shared = plan.clone();
        tokio::spawn(async move {
            let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (plan, client) = (shared.clone(), client.clone());
                tokio::spawn(async move {
                    let answer = service_fn(move |request| {
                        let (plan, client) = (plan.clone(), client.clone());
                        async move { pass(&plan, &client, behind, request).await }
                    });
                    let builder = Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(socket), answer).await;
                });
            }
        });
        Self { address, plan }
    }

    /// The next request of this method meets `fault`; `POST` is the deletion of many objects.
    pub(crate) fn next(&self, method: &str, fault: Fault) {
        self.plan
            .faults
            .lock()
            .push_back((method.to_owned(), fault));
    }

    /// Every request of this method meets `fault` from now on.
    pub(crate) fn always(&self, method: &str, fault: Fault) {
        self.plan.always.lock().push((method.to_owned(), fault));
    }

    pub(crate) fn heal(&self) {
        self.plan.always.lock().clear();
        self.plan.faults.lock().clear();
    }

    pub(crate) fn requests(&self) -> u64 {
        self.plan.requests.load(Ordering::SeqCst)
    }
}

async fn pass(
    plan: &Plan,
    client: &Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    behind: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    plan.requests.fetch_add(1, Ordering::SeqCst);
    plan.arrived.notify_waiters();
    let method = request.method().as_str().to_owned();
    let fault = {
        let mut faults = plan.faults.lock();
        let at = faults.iter().position(|(wanted, _)| *wanted == method);
        at.and_then(|at| faults.remove(at)).map(|(_, fault)| fault)
    };
    let fault = fault.or_else(|| {
        let always = plan.always.lock();
        let found = always.iter().find(|(wanted, _)| *wanted == method);
        found.map(|(_, fault)| fault.clone())
    });
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    match fault.unwrap_or(Fault::Pass) {
        Fault::Refuse(status, code) => return Ok(refusal(status, code)),
        Fault::Redirect(location) => {
            let mut response = refusal(307, "TemporaryRedirect");
            let headers = response.headers_mut();
            headers.insert("location", location.parse().unwrap());
            return Ok(response);
        }
        Fault::Hang => {
            let _ = forward(client, behind, &mut parts, body).await;
            std::future::pending::<()>().await;
        }
        Fault::LoseAnswer(status) => {
            let _ = forward(client, behind, &mut parts, body).await;
            return Ok(refusal(status, "InternalError"));
        }
        Fault::Pass => return Ok(forward(client, behind, &mut parts, body).await),
    }
    unreachable!("a request that hangs never gets here")
}

/// Passes a request on as it is, its `Host` included: the signature covers it.
async fn forward(
    client: &Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    behind: SocketAddr,
    parts: &mut http::request::Parts,
    body: Bytes,
) -> Response<Full<Bytes>> {
    let path = parts.uri.path_and_query().unwrap().as_str();
    let uri: http::Uri = format!("http://{behind}{path}").parse().unwrap();
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = parts.headers.clone();
    let response = client.request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, Full::new(body.collect().await.unwrap().to_bytes()))
}

fn refusal(status: u16, code: &str) -> Response<Full<Bytes>> {
    let body = format!("<Error><Code>{code}</Code><Message>planned</Message></Error>");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}
