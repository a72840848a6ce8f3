//! Options of `serve`, which are those of a node's settings.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::config::{FlagValue, Flags};

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The node's settings.
    #[command(flatten)]
    pub node: NodeOptions,

    /// Start with a new identity when the one of the data folder is lost. See docs/operator.md first.
    #[arg(long, hide_short_help = true)]
    pub new_identity: bool,
}

/// The settings of a node that have a flag of their own, and `--set` for all others.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeOptions {
    /// Folder that holds everything the node stores [env: KASTRO_DATA] [default: ~/.kastro].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// File with settings [env: KASTRO_CONFIG] [default: config.toml in the data folder].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address to listen on [env: KASTRO_LISTEN] [default: 127.0.0.1:8000]. Port 0 takes any free port and prints it.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,

    /// Host name under which others reach this node [env: KASTRO_PUBLIC_HOST].
    #[arg(long, value_name = "HOST")]
    pub public_host: Option<String>,

    /// Space each new account gets, for example 500M or 2T [env: KASTRO_QUOTA] [default: 1T].
    #[arg(long, value_name = "SIZE")]
    pub quota: Option<String>,

    /// Folder of a web application to serve to browsers [env: KASTRO_WEB].
    ///
    /// Its files are indexed and hashed at start; what changes later is not served before a restart.
    #[arg(long, value_name = "DIR")]
    pub web: Option<String>,

    /// How much to log: error, warn, info, debug, trace, or a filter such as `node=debug` [env: KASTRO_LOG]
    /// [default: info].
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,

    /// Form of the log lines on standard error: text or json [env: KASTRO_LOG_FORMAT] [default: text].
    #[arg(long, value_name = "FORM")]
    pub log_format: Option<String>,

    /// Any other setting, as often as needed: `--set max_users=20`. `kastro config` lists them all.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
}

impl NodeOptions {
    /// Returns what was given as values of settings.
    #[must_use]
    pub fn flags(&self) -> Flags {
        let own = [
            ("listen", &self.listen),
            ("public_host", &self.public_host),
            ("quota", &self.quota),
            ("web", &self.web),
            ("log", &self.log),
            ("log_format", &self.log_format),
        ];
        let own = own.into_iter().filter_map(|(key, value)| {
            Some(FlagValue {
                key: key.to_owned(),
                value: value.clone()?,
                flag: format!("--{}", key.replace('_', "-")),
            })
        });
        let set = self.set.iter().map(|(key, value)| FlagValue {
            key: key.clone(),
            value: value.clone(),
            flag: format!("--set {key}"),
        });
        Flags {
            data: self.data.clone(),
            config: self.config.clone(),
            values: own.chain(set).collect(),
        }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    // Arguments are visible to every process of the machine.
    let is_secret = crate::config::KEYS
        .iter()
        .any(|known| known.is_secret && known.name == key.trim().replace('-', "_"));
    if is_secret {
        return Err(format!(
            "{} is a secret: put it into the file or the environment",
            key.trim()
        ));
    }
    Ok((key.trim().to_owned(), value.trim().to_owned()))
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

/// Options of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Print a file to start from: every setting with what it does and its built-in value, as comments.
    #[arg(long = "default")]
    pub template: bool,

    /// Print the table of docs/configuration.md.
    #[arg(long, hide = true, conflicts_with = "template")]
    pub table: bool,

    /// The node's settings, as for `serve`.
    #[command(flatten)]
    pub node: NodeOptions,
}

pub(super) const CONFIG_EXAMPLES: &str = "\
Examples:
  kastro config                                    every setting and where it came from
  kastro config --default > ~/.kastro/config.toml  a file to start from
  kastro config --data /srv/kastro --set max_users=20

A flag counts more than an environment variable, that more than the file. Every setting has a
variable: KASTRO_ and its name in capitals, with _ for the dot (KASTRO_LIMITS_CONNECTIONS).
Settings are read when the node starts: restart it to change them.";

pub(super) const SERVE_EXAMPLES: &str = "\
Examples:
  kastro serve                                     everything under ~/.kastro, on 127.0.0.1:8000
  kastro serve --data /srv/kastro --listen 0.0.0.0:8000
  kastro serve --public-host files.example.org     behind a reverse proxy that ends TLS
  kastro serve --web webroot                       with a web application for browsers
  kastro serve --set max_users=20

All settings: kastro config. Ctrl-C (or SIGTERM) finishes the requests under way and stops.
Killing it is safe too: whatever was acknowledged is on the disk.";

pub(super) const WEB_HASH_EXAMPLES: &str = "\
Examples:
  kastro web-hash webroot
  kastro web-hash --files webroot > manifest       one line per file, as sha256sum prints it

The hash is that of the manifest. Without this program:
  cd webroot
  find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum";
