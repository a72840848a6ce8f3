//! The table of names: who gives it out, how following it goes, and taking it over (Spec: 10 §8).

use std::path::{Path, PathBuf};

use pki::keys::SecretSigningKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Failed, FailedKind, Operation, Report, peer_id, this_node};
use crate::{
    error::chain,
    identity::{is_exposed, write_durably},
    names::{self, NameAuthority, Status},
    node::Node,
    node_keys::{TableKeys, install_table_keys},
    p2p::PeerId,
};

/// First line of a file with the keys of a table of names.
const KEY_FILE_HEAD: &str = "kastro names keys 1";

/// Shows where this node's names come from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ShowNames {
    /// Look at the authority's table first, instead of within the next minute.
    #[serde(default)]
    pub sync: bool,
}

/// Where names come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamesShown {
    /// True on the node that gives names out.
    pub is_authority: bool,
    /// What other nodes are told as `name_authority` to join the network: `KEY@NODE`.
    pub network: String,
    /// Nodes that are asked for the table, in this order.
    pub asked: Vec<String>,
    /// Names that are known.
    pub names: u64,
    /// How following goes; empty on the authority.
    pub status: Status,
    /// Sign-ups that wait for the authority.
    pub waiting_signups: u64,
    /// On the authority: the node that was found to have gone on with the table.
    pub overtaken_by: Option<String>,
}

impl Operation for ShowNames {
    const NAME: &'static str = "names-show";
    type Outcome = NamesShown;

    async fn run(self, node: &Node, _: &Report) -> Result<NamesShown, Failed> {
        let state = node.state();
        if self.sync && state.names.follows.is_some() {
            names::round(state).await.map_err(|error| {
                Failed::new(
                    FailedKind::Refused,
                    format!("the table of names was not taken over: {}", chain(&error)),
                )
                .help("look-ups go on with the table as it is here")
            })?;
        }
        let here = PeerId::from_cid(state.identity.current())
            .map_err(|error| Failed::of(FailedKind::Internal, &error))?;
        let network = match &state.names.follows {
            Some(network) => network.clone(),
            None => NameAuthority {
                owner: state.names.owner.hash().clone(),
                node: here,
            },
        };
        let asked = names::authorities(state).await?;
        Ok(NamesShown {
            is_authority: state.names.follows.is_none(),
            network: network.to_string(),
            asked: match state.names.follows {
                Some(_) => asked.iter().map(ToString::to_string).collect(),
                None => Vec::new(),
            },
            names: state.directory.names().await?.len() as u64,
            status: state.names.status(),
            waiting_signups: names::waiting(state).await?,
            overtaken_by: state.names.overtaken.lock().clone(),
        })
    }
}

/// Gets the table of names from another node than the settings say: after the authority has moved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FollowNames {
    /// The node's id; `None` goes back to what the table and the settings say.
    pub node: Option<String>,
}

impl Operation for FollowNames {
    const NAME: &'static str = "names-follow";
    type Outcome = NamesShown;

    async fn run(self, node: &Node, report: &Report) -> Result<NamesShown, Failed> {
        let state = node.state();
        if state.names.follows.is_none() {
            return Err(
                Failed::new(FailedKind::Refused, "this node gives out the names itself")
                    .help("a node joins a network when it is first started: `name_authority`"),
            );
        }
        let peer = self.node.as_deref().map(peer_id).transpose()?;
        if peer.is_some_and(|peer| state.identity.is_own(&peer.to_cid())) {
            return Err(
                this_node().help("`kastro names take-over FILE` makes it give out the names")
            );
        }
        names::set_source(state, peer.as_ref()).await?;
        ShowNames::default().run(node, report).await
    }
}

/// Writes the keys of the table to a file, so that another node can take over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExportNames {
    /// File to make, readable by its owner only.
    pub file: PathBuf,
}

/// What was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamesExported {
    /// The file.
    pub file: PathBuf,
    /// The network that the keys are of.
    pub network: String,
}

impl Operation for ExportNames {
    const NAME: &'static str = "names-export";
    type Outcome = NamesExported;

    async fn run(self, node: &Node, report: &Report) -> Result<NamesExported, Failed> {
        let registrar = node.state().registrar()?;
        let (owner, writer) = registrar.keys();
        let hex = |key: &SecretSigningKey| Zeroizing::new(champ::text::to_hex(&*key.seed()));
        let (owner, writer) = (hex(owner.secret()), hex(writer.secret()));
        let text = Zeroizing::new(format!(
            "{KEY_FILE_HEAD}\n{}\n{}\n",
            owner.as_str(),
            writer.as_str()
        ));
        if self.file.exists() {
            return Err(Failed::new(
                FailedKind::Refused,
                format!("{} exists already", self.file.display()),
            ));
        }
        let local = |error: std::io::Error| Failed::of(FailedKind::Local, &error);
        let folder = self.file.parent().filter(|f| !f.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let file = self.file.file_name().and_then(|name| name.to_str());
        let file = file.ok_or_else(|| Failed::new(FailedKind::NotAllowed, "not a file name"))?;
        write_durably(folder, file, text.as_bytes()).map_err(local)?;
        let shown = ShowNames::default().run(node, report).await?;
        Ok(NamesExported {
            file: self.file,
            network: shown.network,
        })
    }
}

/// Makes this node the authority of the network it follows, with the table as it has it.
///
/// The old authority must be gone for good.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakeOverNames {
    /// The file that [`ExportNames`] wrote.
    pub file: PathBuf,
}

/// What was taken over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamesTakenOver {
    /// Names in the table.
    pub names: u64,
    /// What other nodes are told from now on, as `name_authority` or by `kastro names follow`.
    pub network: String,
}

impl Operation for TakeOverNames {
    const NAME: &'static str = "names-take-over";
    type Outcome = NamesTakenOver;

    async fn run(self, node: &Node, _: &Report) -> Result<NamesTakenOver, Failed> {
        let state = node.state();
        let Some(network) = &state.names.follows else {
            return Err(Failed::new(
                FailedKind::Refused,
                "this node gives out the names already",
            ));
        };
        let keys = read_keys(&self.file)?;
        let owner = pki::keys::PublicKeyHash::of(&keys.owner.public());
        if owner != network.owner {
            return Err(Failed::new(
                FailedKind::Refused,
                "the keys are those of another network",
            ));
        }
        let Some(folder) = state.config.data.clone() else {
            return Err(Failed::new(
                FailedKind::Refused,
                "a node without a data folder cannot keep keys",
            ));
        };
        // Whatever the authority gave out last, if it still answers.
        if let Err(error) = names::round(state).await {
            tracing::warn!(error = chain(&error), "the old authority does not answer");
        }
        install_table_keys(&folder, &*state.store, &keys)
            .await
            .map_err(|error| Failed::of(FailedKind::Local, &error))?;
        names::become_authority(state).await?;
        let here = PeerId::from_cid(state.identity.current())
            .map_err(|error| Failed::of(FailedKind::Internal, &error))?;
        tracing::warn!("this node gives out the names from its next start on");
        Ok(NamesTakenOver {
            names: state.directory.names().await?.len() as u64,
            network: NameAuthority { owner, node: here }.to_string(),
        })
    }
}

fn read_keys(path: &Path) -> Result<TableKeys, Failed> {
    let local = |error: std::io::Error| {
        Failed::new(FailedKind::Local, format!("{}: {error}", path.display()))
    };
    if is_exposed(path).map_err(local)? {
        return Err(Failed::new(
            FailedKind::Refused,
            format!("{} can be read or changed by others", path.display()),
        )
        .help("chmod 600, and ask who read it"));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(local)?);
    let mut lines = text.lines();
    let malformed = || {
        Failed::new(
            FailedKind::NotAllowed,
            format!("{} holds no keys of a table of names", path.display()),
        )
    };
    if lines.next() != Some(KEY_FILE_HEAD) {
        return Err(malformed());
    }
    let mut key = || {
        let bytes = lines
            .next()
            .and_then(|line| champ::text::from_hex(line).ok());
        let bytes = Zeroizing::new(bytes?);
        let seed = <&[u8; 32]>::try_from(bytes.as_slice()).ok()?;
        Some(SecretSigningKey::from_seed(seed))
    };
    let (Some(owner), Some(writer)) = (key(), key()) else {
        return Err(malformed());
    };
    Ok(TableKeys { owner, writer })
}
