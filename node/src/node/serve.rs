//! Serving a node on its listeners, until it is told to stop.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{net::TcpListener, sync::watch};

use super::Node;
use crate::{
    check::{start_scrub, start_sweep},
    http::{Transport, secure_site, serve},
    tls::{Certificates, TlsError},
};

impl Node {
    /// Serves connections until `shutdown` resolves, then lets requests in flight finish within the grace period.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        start_scrub(&self.state);
        start_sweep(&self.state);
        self.join();
        serve(
            Arc::clone(&self.state),
            listener,
            Transport::Plain,
            shutdown,
        )
        .await
    }

    /// As [`Self::serve`], over TLS: HTTP/2 or HTTP/1.1, as the client likes.
    ///
    /// # Errors
    /// When the listener cannot be used, or no certificate was configured.
    pub async fn serve_tls(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let missing = || io::Error::other("TLS is not configured");
        let certificates = self.state.tls.as_ref().ok_or_else(missing)?;
        let config = certificates.server_config().map_err(io::Error::other)?;
        serve(
            Arc::clone(&self.state),
            listener,
            Transport::Tls(config),
            shutdown,
        )
        .await
    }

    /// Sends everybody to the TLS listener on `port`, and answers certificate authorities.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn serve_redirect(
        &self,
        listener: TcpListener,
        port: u16,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let host = self
            .state
            .config
            .public_host
            .as_deref()
            .unwrap_or("localhost");
        let site = secure_site(host, port);
        serve(
            Arc::clone(&self.state),
            listener,
            Transport::Redirect(site),
            shutdown,
        )
        .await
    }

    /// Serves on `main` and on what [`Config::tls`] asks for, until `shutdown` resolves.
    ///
    /// # Errors
    /// When a listener cannot be used; the others are shut down then.
    pub async fn serve_all(
        &self,
        main: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let tls = bind(self.state.config.tls.listen).await?;
        let redirect = match &tls {
            Some(_) => bind(self.state.config.tls.redirect).await?,
            None => None,
        };
        let (stop, stopping) = watch::channel(false);
        let stopped = || {
            let mut stopping = stopping.clone();
            async move { drop(stopping.wait_for(|stop| *stop).await) }
        };
        let port = match &tls {
            Some(listener) => listener.local_addr()?.port(),
            None => 0,
        };
        // Whatever ends first, by order or by failure, ends all.
        let ended = async |served: io::Result<()>| {
            stop.send_replace(true);
            served
        };
        let (main, tls, redirect, ()) = tokio::join!(
            async { ended(self.serve(main, stopped()).await).await },
            async {
                match tls {
                    Some(listener) => ended(self.serve_tls(listener, stopped()).await).await,
                    None => Ok(()),
                }
            },
            async {
                match redirect {
                    Some(listener) => {
                        ended(self.serve_redirect(listener, port, stopped()).await).await
                    }
                    None => Ok(()),
                }
            },
            async {
                tokio::select! {
                    () = shutdown => drop(stop.send_replace(true)),
                    () = stopped() => {}
                }
            },
        );
        main.and(tls).and(redirect)
    }

    /// Looks at the certificate files now, without waiting for the next turn.
    ///
    /// # Errors
    /// When they cannot be used; the certificate before stays in use.
    pub fn reload_certificates(&self) -> Result<(), TlsError> {
        self.state.tls.as_ref().map_or(Ok(()), Certificates::look)
    }
}

async fn bind(address: Option<SocketAddr>) -> io::Result<Option<TcpListener>> {
    let Some(address) = address else {
        return Ok(None);
    };
    let bound = TcpListener::bind(address).await;
    bound.map(Some).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}
