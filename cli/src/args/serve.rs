//! Options of `serve`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Folder that holds everything the node stores [default: ~/.kastro].
    #[arg(long, env = "KASTRO_DATA", hide_env_values = true, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Address to listen on. Port 0 takes any free port and prints it.
    #[arg(
        long,
        env = "KASTRO_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8000"
    )]
    pub listen: String,

    /// Host name under which others reach this node, behind a reverse proxy that ends TLS.
    #[arg(
        long,
        env = "KASTRO_PUBLIC_HOST",
        hide_env_values = true,
        value_name = "HOST"
    )]
    pub public_host: Option<String>,

    /// Folder of a web application to serve to browsers.
    ///
    /// Its files are indexed and hashed at start; what changes later is not served before a restart.
    #[arg(long, env = "KASTRO_WEB", hide_env_values = true, value_name = "DIR")]
    pub web: Option<PathBuf>,

    /// Space each new account gets, for example 500M or 2T.
    #[arg(long, env = "KASTRO_QUOTA", hide_env_values = true, value_name = "SIZE", value_parser = super::parse_size)]
    pub quota: Option<u64>,

    /// How much to log: error, warn, info, debug, trace, or a filter such as `node=debug`.
    #[arg(
        long,
        env = "KASTRO_LOG",
        hide_env_values = true,
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,

    /// Form of the log lines on standard error.
    #[arg(
        long,
        env = "KASTRO_LOG_FORMAT",
        hide_env_values = true,
        value_name = "FORM",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// Options of `web-hash`.
#[derive(Debug, Args)]
pub struct WebHashArgs {
    /// Folder of the web application.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,

    /// Print the hash of each file instead.
    #[arg(long)]
    pub files: bool,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

pub(super) const SERVE_EXAMPLES: &str = "\
Examples:
  kastro serve                                     everything under ~/.kastro, on 127.0.0.1:8000
  kastro serve --data /srv/kastro --listen 0.0.0.0:8000
  kastro serve --public-host files.example.org     behind a reverse proxy that ends TLS
  kastro serve --web webroot                       with a web application for browsers

Ctrl-C (or SIGTERM) finishes the requests under way and stops. Killing it is safe too:
whatever was acknowledged is on the disk.";

pub(super) const WEB_HASH_EXAMPLES: &str = "\
Examples:
  kastro web-hash webroot
  kastro web-hash --files webroot > manifest       one line per file, as sha256sum prints it

The hash is that of the manifest. Without this program:
  cd webroot
  find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum";
