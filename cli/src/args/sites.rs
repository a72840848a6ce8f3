//! Commands about what is public: publishing, and serving it as web sites.

use clap::Args;

use super::Connection;
use crate::{gateway::DomainSuffix, remote_path::RemotePath};

/// Options of `publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// File or folder that anybody may read from now on, with everything below it.
    #[arg(value_name = "PATH")]
    pub path: RemotePath,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `unpublish`.
#[derive(Debug, Args)]
pub struct UnpublishArgs {
    /// The file or folder, as it was published.
    #[arg(value_name = "PATH")]
    pub path: RemotePath,

    /// How to reach the node.
    #[command(flatten)]
    pub connection: Connection,
}

/// Options of `gateway`.
#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// Address to listen on.
    #[arg(
        long,
        env = "KASTRO_GATEWAY_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9000"
    )]
    pub listen: String,

    /// What stands after the user's name in the host name of a site.
    ///
    /// It must not be on the domain of a node, above or below it: pages of users must not reach the page that
    /// handles keys.
    #[arg(
        long,
        env = "KASTRO_DOMAIN_SUFFIX",
        hide_env_values = true,
        value_name = "SUFFIX",
        default_value = ".peergos.localhost:9000"
    )]
    pub domain_suffix: DomainSuffix,

    /// The node to read through.
    #[arg(
        long,
        env = "KASTRO_SERVER",
        hide_env_values = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:8000"
    )]
    pub server: String,

    /// Browsers come over TLS, which ends in front of the gateway: tell them to stay with it.
    #[arg(long)]
    pub public: bool,
}

pub(super) const PUBLISH_EXAMPLES: &str = "\
Examples:
  kastro publish photos/cat.png          NODE/public/alice/photos/cat.png leads to it
  kastro publish website                 a web site, once the next line was said too:
  echo /alice/website | kastro put - .profile/webroot && kastro publish .profile/webroot
  kastro unpublish photos/cat.png";

pub(super) const GATEWAY_EXAMPLES: &str = "\
Examples:
  kastro gateway                                   http://USER.peergos.localhost:9000
  kastro gateway --server https://files.example.org --domain-suffix .sites.example.net --public

The site of a user is the folder named in the published file /USER/.profile/webroot, which must
be published itself. In it, 404.html is shown for what is missing, and headers.json may hold
a \"content-security-policy\".";
