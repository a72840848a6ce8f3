//! `kastro gateway`: published folders as web sites.

use std::sync::Arc;

use cryptree::Client;
use tokio::net::TcpListener;

use crate::{
    args::GatewayArgs,
    environment::TokioEnvironment,
    exit::{Class, Failure},
    gateway::Gateway,
    output::Output,
    transport::HttpTransport,
};

/// Runs the command until it is interrupted.
///
/// # Errors
///
/// When the address cannot be listened on, or nobody answers at the server.
pub async fn run(args: &GatewayArgs, output: Output) -> Result<(), Failure> {
    let transport = HttpTransport::new(&args.server)?;
    let server = transport.server().to_owned();
    let authority = server
        .split_once("://")
        .map_or(server.as_str(), |(_, host)| host);
    let authority = authority.split('/').next().unwrap_or_default();
    if args.public && args.domain_suffix.overlaps(authority) {
        return Err(Failure::new(
            Class::Usage,
            format!(
                "sites at {} would share a domain with {authority}",
                args.domain_suffix
            ),
        )
        .help("pages of users must not be on the domain of a node, above or below it"));
    }
    transport.probe().await?;
    let client = Client::impatient(Arc::new(transport), Arc::new(TokioEnvironment));
    let cannot = |error: std::io::Error| {
        Failure::new(
            Class::Local,
            format!("cannot listen on {}: {error}", args.listen),
        )
    };
    let listener = TcpListener::bind(&args.listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    if output.json {
        output.json(&serde_json::json!({
            "url": format!("http://{address}"), "domain_suffix": args.domain_suffix.to_string(), "server": server,
        }))?;
    } else {
        output.line(&format!(
            "Sites are at http://USER{} (listening on {address}), read through {server}; Ctrl-C stops.",
            args.domain_suffix
        ))?;
    }
    let gateway = Gateway::new(client, args.domain_suffix.clone(), args.public);
    gateway
        .serve(listener, std::future::pending())
        .await
        .map_err(cannot)
}
