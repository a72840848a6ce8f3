//! TLS: certificates from files or from a certificate authority, replaced while the node runs (Spec: 40 WEB-10).
//!
//! Versions 1.2 and 1.3 with authenticated encryption only. HTTP/2 and HTTP/1.1 are offered by ALPN. The private
//! key of a listener is a secret of this machine, not of any user: what users store stays encrypted below TLS.

mod acme;
mod certificate;

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use crate::{
    state::State,
    workers::{Run, WorkerError},
};
pub use acme::AcmeError;
pub(crate) use acme::{Challenges, is_token};
use certificate::{Stamp, load};

/// How often certificate files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Settings of the TLS listener.
///
/// With `certificate` and `key` the certificate comes from files that somebody else keeps up to date; they are
/// looked at every ten seconds. Without, it comes from a certificate authority that speaks ACME, which needs a data
/// folder and the plain listener.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// Where it binds; `None` for no TLS, or when a reverse proxy has it.
    pub listen: Option<SocketAddr>,
    /// Where a plain listener sends browsers to the TLS listener; certificate authorities look there too. Usually
    /// port 80.
    pub redirect: Option<SocketAddr>,
    /// PEM file with the certificate, then those that lead to the root.
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key, readable by its owner only.
    pub key: Option<PathBuf>,
    /// Names to ask a certificate authority for; the public host when empty.
    pub acme_names: Vec<String>,
    /// Mail address to which the authority may write; optional.
    pub acme_contact: Option<String>,
    /// Address of the authority's directory.
    pub acme_directory: String,
    /// PEM file with the root certificate of that address, for an authority of one's own.
    pub acme_root: Option<PathBuf>,
}

impl TlsConfig {
    /// Let's Encrypt.
    pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
    /// Its twin for trying things out: generous limits, certificates that no browser accepts.
    pub const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

    fn files(&self) -> Result<Option<(&Path, &Path)>, TlsError> {
        match (&self.certificate, &self.key) {
            (Some(chain), Some(key)) => Ok(Some((chain, key))),
            (None, None) => Ok(None),
            _ => Err(TlsError::Half),
        }
    }
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            listen: None,
            redirect: None,
            certificate: None,
            key: None,
            acme_names: Vec::new(),
            acme_contact: None,
            acme_directory: Self::LETS_ENCRYPT.to_owned(),
            acme_root: None,
        }
    }
}

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} holds no {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// The private key can be read by others.
    #[error("{} can be read by others than its owner", .0.display())]
    Exposed(PathBuf),
    /// Key and certificate cannot be used together.
    #[error("certificate and key cannot be used")]
    Unusable(#[source] rustls::Error),
    /// Only one of certificate and key was given.
    #[error("certificate and key go together")]
    Half,
    /// Automatic certificates need a folder to keep them in.
    #[error("automatic certificates need a data folder")]
    NoFolder,
    /// Automatic certificates need a name to ask for.
    #[error("automatic certificates need a public host name")]
    NoName,
    /// The certificate authority cannot prove the name.
    #[error("automatic certificates need the plain listener on port 80")]
    NoRedirect,
}

/// The certificate in use, and what is needed to replace it.
pub(crate) struct Certificates {
    config: TlsConfig,
    current: Arc<Current>,
    stamp: RwLock<Option<Stamp>>,
    challenges: Challenges,
}

/// What handshakes look at.
#[derive(Default)]
struct Current(RwLock<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current(..)")
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the certificate; one that is still to be asked for may be missing.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn open(config: &TlsConfig) -> Result<Self, TlsError> {
        let certificates = Self {
            config: config.clone(),
            current: Arc::default(),
            stamp: RwLock::default(),
            challenges: Challenges::default(),
        };
        if let Some((chain, key)) = config.files()? {
            certificates.use_files(chain, key)?;
        }
        Ok(certificates)
    }

    /// Returns until when the certificate in use is good, in seconds since 1970 UTC; `None` without one.
    pub(crate) fn good_until(&self) -> Option<i64> {
        let current = self.current.0.read().clone()?;
        certificate::validity(current.cert.first()?).map(|validity| validity.until)
    }

    /// Returns the answers that a certificate authority is waiting for.
    pub(crate) const fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// Takes a certificate into use; handshakes under way keep the one before.
    fn replace(&self, key: CertifiedKey) {
        *self.current.0.write() = Some(Arc::new(key));
    }

    fn use_files(&self, chain: &Path, key: &Path) -> Result<(), TlsError> {
        let stamp = Stamp::of(chain, key);
        self.replace(load(chain, key)?);
        *self.stamp.write() = Some(stamp);
        Ok(())
    }

    /// Takes files into use that changed. When they cannot be used, the certificate before stays in use.
    pub(crate) fn look(&self) -> Result<(), TlsError> {
        let Some((chain, key)) = self.config.files()? else {
            return Ok(());
        };
        if *self.stamp.read() == Some(Stamp::of(chain, key)) {
            return Ok(());
        }
        self.use_files(chain, key)?;
        tracing::info!("using a new certificate");
        Ok(())
    }

    /// Returns what a listener needs for its handshakes.
    ///
    /// # Errors
    /// When the TLS library lacks what is asked of it.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Starts the worker that keeps the certificate up to date.
///
/// # Errors
/// [`TlsError`] for settings that can never work.
pub(crate) fn start(state: &Arc<State>) -> Result<(), TlsError> {
    let Some(certificates) = &state.tls else {
        return Ok(());
    };
    if certificates.config.files()?.is_some() {
        let weak = Arc::downgrade(state);
        state
            .workers
            .every("certificates", LOOK_INTERVAL, move |_| {
                std::future::ready(look(&weak))
            });
    } else {
        let keeper = acme::Keeper::new(state, certificates)?;
        let weak = Arc::downgrade(state);
        state.workers.spawn("certificates", move |run: Run| {
            acme::keep(keeper.clone(), weak.clone(), run)
        });
    }
    Ok(())
}

fn look(state: &Weak<State>) -> Result<(), WorkerError> {
    match state.upgrade().as_deref() {
        Some(State {
            tls: Some(certificates),
            ..
        }) => Ok(certificates.look()?),
        _ => Ok(()),
    }
}
