//! The settings of a node: from flags, environment, a TOML file and built-in defaults, in this order.
//!
//! One list ([`keys::KEYS`]) names every setting once; the file, the environment variables, `kastro config` and
//! docs/configuration.md are made from it or checked against it. Whatever is not on the list is refused with the
//! place where it stands. Settings are read once, at start: a running node is restarted to change them.

mod codec;
mod file;
mod keys;
mod print;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    args::LogFormat,
    connect::default_data,
    exit::{Class, Failure},
    secrets,
};

use codec::Given;
pub use keys::{KEYS, Key};
use node::p2p::P2pConfig;
pub use print::{effective, json, table, template};

/// Name of the file in the data folder.
pub const FILE: &str = "config.toml";
/// The environment variable that names another file.
const FILE_VARIABLE: &str = "KASTRO_CONFIG";
/// Environment variables of the client, which name no setting of a node.
const CLIENT_VARIABLES: [&str; 11] = [
    FILE_VARIABLE,
    "KASTRO_SERVER",
    "KASTRO_LOCAL",
    "KASTRO_USER",
    "KASTRO_PASSWORD",
    "KASTRO_PASSWORD_FILE",
    "KASTRO_NEW_PASSWORD",
    "KASTRO_NEW_PASSWORD_FILE",
    "KASTRO_SIGNUP_TOKEN",
    "KASTRO_SESSION_DIR",
    secrets::DESCRIPTOR_VARIABLE,
];

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the node is told.
    pub node: node::Config,
    /// What is logged.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: node::Config {
                p2p: P2pConfig::listening(),
                ..node::Config::default()
            },
            log: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// Follows from another setting.
    Derived(&'static str),
    /// The file, at this line.
    File(usize),
    /// This environment variable.
    Environment(String),
    /// This flag.
    Flag(String),
}

/// Settings with their origins.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The settings; the data folder is always set.
    pub settings: Settings,
    /// The file that was looked for.
    pub file: PathBuf,
    /// True when it was there.
    pub has_file: bool,
    origins: BTreeMap<&'static str, Origin>,
}

impl Effective {
    /// Returns where a setting came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// Returns the data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        self.settings.node.data.as_deref().unwrap_or(Path::new(""))
    }
}

/// A value given by a flag.
#[derive(Debug, Clone)]
pub struct FlagValue {
    /// Name of the setting.
    pub key: String,
    /// Its text.
    pub value: String,
    /// The flag as typed, for messages.
    pub flag: String,
}

/// What the command line says about settings.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The data folder.
    pub data: Option<PathBuf>,
    /// The file.
    pub config: Option<PathBuf>,
    /// All others.
    pub values: Vec<FlagValue>,
}

/// Reads the settings from all their sources.
///
/// # Errors
///
/// `Usage` with file, line and column, variable or flag, for whatever is not understood.
pub fn load(flags: &Flags) -> Result<Effective, Failure> {
    let named = flags
        .config
        .clone()
        .or_else(|| secrets::variable_os(FILE_VARIABLE).map(PathBuf::from));
    let mut settings = Settings::default();
    let mut origins = BTreeMap::new();
    // A file that was named may say where the data is; the one in the data folder cannot.
    if let Some(path) = &named {
        let text = file::read(path)?.ok_or_else(|| {
            Failure::new(
                Class::Local,
                format!("there is no configuration file {}", path.display()),
            )
            .help("`kastro config --default` prints one to start from")
        })?;
        file::apply(&text, path, &mut settings, &mut origins)?;
    }
    if let Some(data) = secrets::variable_os("KASTRO_DATA").filter(|data| !data.is_empty()) {
        settings.node.data = Some(data.into());
        origins.insert("data", Origin::Environment("KASTRO_DATA".to_owned()));
    }
    if let Some(data) = &flags.data {
        settings.node.data = Some(data.clone());
        origins.insert("data", Origin::Flag("--data".to_owned()));
    }
    let data = match settings.node.data.take() {
        Some(data) => data,
        None => default_data()?,
    };
    let path = named.clone().unwrap_or_else(|| data.join(FILE));
    let mut has_file = named.is_some();
    if named.is_none()
        && let Some(text) = file::read(&path)?
    {
        has_file = true;
        let folder = origins.get("data").cloned();
        file::apply(&text, &path, &mut settings, &mut origins)?;
        if settings.node.data.is_some() {
            return Err(Failure::new(
                Class::Usage,
                format!("{} names a data folder and lies in one", path.display()),
            )
            .help("remove `data` from it, or name the file with --config"));
        }
        if let Some(folder) = folder {
            origins.insert("data", folder);
        }
    }
    settings.node.data = Some(data);
    from_environment(&mut settings, &mut origins)?;
    for given in &flags.values {
        let key = keys::find(&given.key).ok_or_else(|| {
            let failure = Failure::new(
                Class::Usage,
                format!("`{}` names the unknown setting {}", given.flag, given.key),
            );
            with_suggestion(failure, &given.key)
        })?;
        (key.set)(&mut settings, &Given::text(&given.value)).map_err(|why| {
            Failure::new(Class::Usage, format!("`{}`: {why}", given.flag)).help(key.doc)
        })?;
        origins.insert(key.name, Origin::Flag(given.flag.clone()));
    }
    derive(&mut settings, &mut origins);
    Ok(Effective {
        settings,
        file: path,
        has_file,
        origins,
    })
}

/// Reads the settings of a data folder as `serve` would, without flags.
///
/// # Errors
///
/// As [`load`].
pub fn of_folder(folder: &Path) -> Result<node::Config, Failure> {
    let flags = Flags {
        data: Some(folder.to_path_buf()),
        ..Flags::default()
    };
    Ok(load(&flags)?.settings.node)
}

/// Returns the data folder that flags, environment and a named file choose, without looking at the rest.
///
/// # Errors
///
/// When a named file cannot be understood, or there is no home folder.
pub fn data_folder(flags: &Flags) -> Result<PathBuf, Failure> {
    let has_file = flags.config.is_some() || secrets::variable_os(FILE_VARIABLE).is_some();
    if let Some(data) = &flags.data {
        return Ok(data.clone());
    }
    if let Some(data) = secrets::variable_os("KASTRO_DATA").filter(|data| !data.is_empty()) {
        return Ok(data.into());
    }
    if has_file {
        return Ok(load(flags)?.data().to_path_buf());
    }
    default_data()
}

/// Returns the environment variables that look like ours and name nothing.
#[must_use]
pub fn unknown_variables() -> Vec<String> {
    let mut unknown: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("KASTRO_"))
        .filter(|name| !CLIENT_VARIABLES.contains(&name.as_str()))
        .filter(|name| !KEYS.iter().any(|key| key.variable() == *name))
        .collect();
    unknown.sort();
    unknown
}

fn from_environment(
    settings: &mut Settings,
    origins: &mut BTreeMap<&'static str, Origin>,
) -> Result<(), Failure> {
    for key in KEYS.iter().filter(|key| key.name != "data") {
        let variable = key.variable();
        let Some(value) = secrets::variable(&variable)? else {
            continue;
        };
        (key.set)(settings, &Given::text(&value)).map_err(|why| {
            // Not the value: it may be a secret.
            Failure::new(Class::Usage, format!("{variable}: {why}")).help(key.doc)
        })?;
        origins.insert(key.name, Origin::Environment(variable));
    }
    Ok(())
}

/// Settings that follow from others unless they were given.
fn derive(settings: &mut Settings, origins: &mut BTreeMap<&'static str, Origin>) {
    if !origins.contains_key("public") && settings.node.public_host.is_some() {
        settings.node.is_public = true;
        origins.insert("public", Origin::Derived("public_host is set"));
    }
}

/// Adds the nearest known name to a failure about an unknown one.
fn with_suggestion(failure: Failure, wrong: &str) -> Failure {
    const MAX_DISTANCE: usize = 4;
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    let nearest = KEYS
        .iter()
        .map(|key| (strsim::damerau_levenshtein(key.name, &wrong), key.name))
        .min();
    match nearest {
        Some((distance, name)) if distance <= MAX_DISTANCE && distance < name.len() => failure
            .help(format!(
                "did you mean {name}? `kastro config` lists all of them"
            )),
        _ => failure.help("`kastro config` lists all settings"),
    }
}

#[cfg(test)]
mod tests;
