//! `kastro serve`: runs a node until it is told to stop.

use std::{
    error::Error,
    io::{self, IsTerminal},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use node::{
    Config, Node, OpenError,
    identity::KeyFileError,
    operator::listener::{Door, DoorError},
    p2p::Multiaddr,
    store::StoreError,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use tracing_subscriber::EnvFilter;

use crate::{
    args::{LogFormat, ServeArgs},
    config::{self, Settings},
    exit::{Class, Failure},
    human, log,
    output::Output,
};

/// Runs the command.
///
/// # Errors
///
/// When the node cannot start, or its disk fails.
pub async fn run(args: &ServeArgs, output: Output) -> Result<(), Failure> {
    let effective = config::load(&args.node.flags())?;
    start_log(&effective.settings)?;
    for variable in config::unknown_variables() {
        tracing::warn!(variable, "environment variable is set and means nothing");
    }
    let data = effective.data().to_path_buf();
    let mut config = effective.settings.node;
    config.allows_new_identity = args.new_identity;
    let quota_bytes = config.default_quota_bytes;
    // The address first: a second node must not touch anything.
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| bind_failure(config.listen, &error))?;
    let address = listener
        .local_addr()
        .map_err(|error| bind_failure(config.listen, &error))?;
    config.listen = address;
    let node = open_node(config).await?;
    let stop = StopSignals::listen()?;
    let door = open_door(&node, &data).await?;
    node.join();
    // Where others reach it is worth a moment, not the start.
    let peers = tokio::time::timeout(PEER_ADDRESSES, node.peer_addresses()).await;
    let place = Place {
        address,
        data: &data,
        peers: peers.unwrap_or_default(),
    };
    announce(&place, quota_bytes, &node, output)?;
    let (stopping, mut stopped) = watch::channel(());
    let mut door_stopped = stopped.clone();
    let ended = Notify::new();
    let (served, (), ()) = tokio::join!(
        async {
            let served = node.serve_all(listener, async {
                let _ = stopped.changed().await;
            });
            let served = served.await;
            ended.notify_one();
            served
        },
        door.serve(node.clone(), async {
            let _ = door_stopped.changed().await;
        }),
        async {
            tokio::select! {
                () = stop.wait() => {}
                () = ended.notified() => {}
            }
            stopping.send_replace(());
        },
    );
    tracing::info!("stopping");
    let closed = node.close().await;
    served.map_err(|error| Failure::new(Class::Local, format!("the listener failed: {error}")))?;
    closed.map_err(|error| {
        Failure::new(
            Class::Local,
            format!("the data folder was not closed cleanly: {error}"),
        )
        .help("nothing acknowledged is lost; the next start repairs the rest")
    })
}

/// Opens a node and says what is wrong when it cannot be.
///
/// # Errors
///
/// `InUse` when another process has the data folder, `Local` otherwise.
pub async fn open_node(config: Config) -> Result<Node, Failure> {
    let data = config.data.clone().unwrap_or_default();
    Node::open(config).await.map_err(|error| {
        if matches!(error, OpenError::Store(StoreError::InUse { .. })) {
            return Failure::new(
                Class::InUse,
                format!(
                    "the data folder {} is in use by another process",
                    data.display()
                ),
            )
            .help("is a node running on it already? then reach it with --server");
        }
        let help = what_to_do(&error);
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        let failure = Failure::new(Class::Local, text);
        match help {
            Some(help) => failure.help(help),
            None => failure,
        }
    })
}

/// Returns what the operator can do about a data folder that a node refuses to start on.
fn what_to_do(error: &OpenError) -> Option<String> {
    if let OpenError::Key(error) = error {
        return about_key(error);
    }
    let help: Option<&str> = match error {
        OpenError::OtherNames => Some(
            "a node stays with the names it began with: put `name_authority` back to what it was \
             (KASTRO_NAME_AUTHORITY or config.toml, so that commands of the operator know it too), or start with an \
             empty data folder",
        ),
        OpenError::Restoring(_) => Some(
            "run the same `kastro restore` again: it goes on where it broke off; or remove the folder and \
             begin anew",
        ),
        OpenError::Store(StoreError::NewerFormat { .. }) => Some(
            "a newer version of kastro has used this folder: start that one; nothing has been changed",
        ),
        OpenError::Store(
            StoreError::BadFolder { .. } | StoreError::Database(_) | StoreError::DamagedRow { .. },
        ) => Some(
            "nothing has been changed. If the disk is sound, put the missing or damaged file back; else make \
             a new folder from a backup (`kastro restore`) and keep this one until all is well: its blocks \
             are still there",
        ),
        _ => return None,
    };
    help.map(str::to_owned)
}

/// Returns what the operator can do about a key file.
fn about_key(error: &KeyFileError) -> Option<String> {
    match error {
        KeyFileError::Exposed { path } => Some(format!(
            "if nobody else has seen it: chmod 600 {}",
            path.display()
        )),
        KeyFileError::Missing { .. } | KeyFileError::Exchanged { .. } => Some(
            "put the file back from a backup; if node.key is lost for good, start once with \
             `kastro serve --new-identity`"
                .to_owned(),
        ),
        KeyFileError::Damaged { .. } => Some("put the file back from a backup".to_owned()),
        _ => None,
    }
}

/// Opens the door for the operator's commands.
async fn open_door(node: &Node, data: &Path) -> Result<Door, Failure> {
    let config = node.config();
    Door::open(data, config.monitoring, config.monitoring_is_open)
        .await
        .map_err(|error| {
            let failure = Failure::new(
                Class::Local,
                error
                    .source()
                    .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
            );
            match error {
                DoorError::NotLoopback(_) => failure.help(
                    "use an address of 127.0.0.0/8 or ::1, or set monitoring_is_open if the network is yours alone",
                ),
                DoorError::Exposed(path) => {
                    failure.help(format!("chmod 600 {}", path.display()))
                }
                _ => failure,
            }
        })
}

/// Where a node is.
struct Place<'a> {
    address: SocketAddr,
    data: &'a Path,
    /// For other nodes.
    peers: Vec<Multiaddr>,
}

/// Tells where to point a browser and a client.
fn announce(
    place: &Place<'_>,
    quota_bytes: u64,
    node: &Node,
    output: Output,
) -> Result<(), Failure> {
    let Place {
        address,
        data,
        peers,
    } = place;
    let (address, data) = (*address, *data);
    let url = format!("http://{}", reachable(address));
    let web = node.web_root().map(|root| champ::text::to_hex(root.hash()));
    if output.json {
        return output.json(&serde_json::json!({
            "url": url, "address": address.to_string(), "data": data, "id": node.id().to_string(),
            "web": web, "peers": peers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }));
    }
    let server = if address.port() == DEFAULT_PORT && address.ip().is_loopback() {
        String::new()
    } else {
        format!(" --server {url}")
    };
    output.line(&format!(
        "Kastro {} is running; Ctrl-C stops it.\n\
         \n  browser   {}\n  client    kastro signup NAME{server}\n  data      {} ({} for each account)\n{}{}",
        env!("CARGO_PKG_VERSION"),
        url.replace("127.0.0.1", "localhost"),
        data.display(),
        human::size(quota_bytes),
        peers.first().map_or_else(String::new, |_| {
            format!("  node      {} (`kastro config` has its ports)\n", node.id().bare_multihash_text())
        }),
        web.map_or_else(String::new, |hash| format!("  web       sha256 {hash}\n")),
    ))
}

/// Returns an address to connect to: a node that listens everywhere is reached here too.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr = if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        address.set_ip(loopback);
    }
    address
}

fn bind_failure(listen: SocketAddr, error: &io::Error) -> Failure {
    let failure = |class| Failure::new(class, format!("cannot listen on {listen}: {error}"));
    match error.kind() {
        io::ErrorKind::AddrInUse => failure(Class::InUse)
            .help("another program has that port; is a node running already? `--listen 127.0.0.1:0` takes a free one"),
        io::ErrorKind::PermissionDenied => {
            failure(Class::Local).help("ports below 1024 need privileges: use one above, behind a proxy")
        }
        _ => failure(Class::Local),
    }
}

fn start_log(settings: &Settings) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(log::capped(&settings.log)).map_err(|error| {
        Failure::new(
            Class::Usage,
            format!("`{}` is no log filter: {error}", settings.log),
        )
        .help(
            "write a level (error, warn, info, debug, trace) or MODULE=LEVEL, separated by commas",
        )
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(log::Limited::stderr());
    match settings.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
    .map_err(|error| Failure::new(Class::Other, format!("cannot start the log: {error}")))?;
    log::log_panics_by_place();
    Ok(())
}

/// Ctrl-C and SIGTERM.
struct StopSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    /// A file that reaches the limit of the process must fail the write, not end the process.
    #[cfg(unix)]
    _too_large: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Takes over the signals; from here on they no longer end the process.
    fn listen() -> Result<Self, Failure> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let failure = |error: io::Error| {
                Failure::new(Class::Local, format!("cannot listen to signals: {error}"))
            };
            Ok(Self {
                terminate: signal(SignalKind::terminate()).map_err(failure)?,
                interrupt: signal(SignalKind::interrupt()).map_err(failure)?,
                _too_large: signal(SignalKind::from_raw(libc::SIGXFSZ)).map_err(failure)?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Resolves at the first signal; a second one ends the process at once.
    async fn wait(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(i32::from(Class::Interrupted.code()));
        });
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}

const DEFAULT_PORT: u16 = 8000;
/// Longest wait for the addresses of the peer side.
const PEER_ADDRESSES: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_listens_everywhere_is_reached_on_loopback() {
        let shown = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(shown("0.0.0.0:8000"), "127.0.0.1:8000");
        assert_eq!(shown("[::]:8000"), "[::1]:8000");
        assert_eq!(shown("192.168.1.2:80"), "192.168.1.2:80");
    }
}
