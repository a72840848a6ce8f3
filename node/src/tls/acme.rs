//! Certificates from an authority that speaks ACME (RFC 8555): asked for, kept, and renewed in time.
//!
//! The authority proves that the name is ours by asking the plain listener for a token (challenge http-01), so
//! wildcard names cannot be had this way. Account, certificate and key lie in `DATA/tls`, readable by their owner
//! only. A failure never stops the node: the certificate in use stays in use, the next attempt waits longer each
//! time, as authorities demand, and the health page tells.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount,
    NewOrder, OrderStatus, RetryPolicy,
};
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use zeroize::Zeroizing;

use super::{
    Certificates, TlsError,
    certificate::{load, validity},
};
use crate::{
    clock::Clock,
    error::chain,
    identity::write_durably,
    state::State,
    workers::{Run, WorkerError},
};

/// Folder inside the data folder.
const FOLDER: &str = "tls";
const ACCOUNT_FILE: &str = "account.json";
/// Certificate and key in one file: they are replaced together or not at all.
const CERTIFICATE_FILE: &str = "certificate.pem";
/// Wait after the first failure; doubles with each in a row.
const FIRST_WAIT: Duration = Duration::from_secs(600);
/// Longest wait after a failure.
const MAX_WAIT: Duration = Duration::from_secs(12 * 3600);
/// Longest sleep between two looks at the calendar: clocks are set, machines sleep.
const LOOK_INTERVAL: Duration = Duration::from_secs(3600);
/// How long one attempt may take.
const ATTEMPT_TIME: Duration = Duration::from_secs(300);
/// Most tokens that are answered for at the same time.
const MAX_CHALLENGES: usize = 100;
/// Longest token.
const MAX_TOKEN_BYTES: usize = 128;

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcmeError {
    /// The authority cannot be reached, or refuses.
    #[error("the certificate authority refused or cannot be reached")]
    Authority(#[from] instant_acme::Error),
    /// A name was not proven.
    #[error("the certificate authority could not reach this node on port 80 under its name")]
    NotProven,
    /// The authority offers no challenge that can be answered here.
    #[error("the certificate authority does not offer the challenge http-01")]
    NoChallenge,
    /// It took too long.
    #[error("the certificate authority took too long")]
    TimedOut,
    /// A file cannot be kept.
    #[error("cannot keep files for TLS")]
    File(#[from] io::Error),
    /// What came is not a usable certificate.
    #[error("the certificate authority sent something that cannot be used")]
    Certificate(#[from] TlsError),
}

/// Tokens that the authority will ask for, with the answers.
#[derive(Debug, Default)]
pub(crate) struct Challenges(Mutex<HashMap<String, String>>);

impl Challenges {
    /// Returns the answer for a token.
    pub(crate) fn answer(&self, token: &str) -> Option<String> {
        self.0.lock().get(token).cloned()
    }

    fn set(&self, token: &str, answer: &str) {
        let mut all = self.0.lock();
        if is_token(token) && all.len() < MAX_CHALLENGES {
            all.insert(token.to_owned(), answer.to_owned());
        }
    }

    fn clear(&self) {
        self.0.lock().clear();
    }
}

/// RFC 8555 §8: base64url without padding.
pub(crate) fn is_token(text: &str) -> bool {
    (1..=MAX_TOKEN_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// What is needed to keep a certificate.
#[derive(Clone)]
pub(super) struct Keeper {
    contact: Option<String>,
    directory: String,
    root: Option<PathBuf>,
    names: Vec<String>,
    folder: PathBuf,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// Prepares, and takes a certificate of an earlier run into use.
    pub(super) fn new(state: &State, certificates: &Certificates) -> Result<Self, TlsError> {
        let config = &certificates.config;
        if config.redirect.is_none() {
            return Err(TlsError::NoRedirect);
        }
        let folder = state
            .config
            .data
            .as_deref()
            .ok_or(TlsError::NoFolder)?
            .join(FOLDER);
        let names = match (&*config.acme_names, &state.config.public_host) {
            ([], None) => return Err(TlsError::NoName),
            ([], Some(host)) => vec![host_name(host).to_owned()],
            (names, _) => names.to_vec(),
        };
        crate::node::make_folder(&folder).map_err(|source| TlsError::File {
            path: folder.clone(),
            source,
        })?;
        let keeper = Self {
            contact: config.acme_contact.clone(),
            directory: config.acme_directory.clone(),
            root: config.acme_root.clone(),
            names,
            folder,
            clock: Arc::clone(&state.clock),
        };
        if keeper.file(CERTIFICATE_FILE).exists()
            && let Err(error) = keeper.take_into_use(certificates)
        {
            tracing::warn!(error = %chain(&error), "the kept certificate cannot be used");
        }
        Ok(keeper)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn take_into_use(&self, certificates: &Certificates) -> Result<(), TlsError> {
        let file = self.file(CERTIFICATE_FILE);
        certificates.replace(load(&file, &file)?);
        Ok(())
    }

    /// Returns how long the kept certificate need not be renewed; `None` when it should be now.
    fn rest(&self) -> Option<Duration> {
        let pem = fs::read(self.file(CERTIFICATE_FILE)).ok()?;
        let names = fs::read_to_string(self.file("names")).ok()?;
        if names != self.names.join("\n") {
            return None;
        }
        let certificate = CertificateDer::from_pem_slice(&pem).ok()?;
        let validity = validity(&certificate)?;
        // A third of the lifetime before the end, as the authorities advise.
        let renewal = validity.until - (validity.until - validity.from) / 3;
        let seconds = u64::try_from(renewal - self.clock.now_seconds()).ok()?;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    async fn account(&self) -> Result<Account, AcmeError> {
        // Its HTTP client asks rustls for the provider of the process, of which the libraries bring two.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || match &self.root {
            Some(root) => Account::builder_with_root(root),
            None => Account::builder(),
        };
        // Kept with the address it belongs to: another authority knows nothing of it.
        let kept = Zeroizing::new(fs::read_to_string(self.file(ACCOUNT_FILE)).unwrap_or_default());
        if let Some((directory, json)) = kept.split_once('\n')
            && directory == self.directory
            && let Ok(credentials) = serde_json::from_str::<AccountCredentials>(json)
        {
            return Ok(builder()?.from_credentials(credentials).await?);
        }
        let contact = self.contact.as_ref().map(|mail| format!("mailto:{mail}"));
        let contacts: Vec<&str> = contact.as_deref().into_iter().collect();
        let new = NewAccount {
            contact: &contacts,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let (account, credentials) = builder()?
            .create(&new, self.directory.clone(), None)
            .await?;
        let json = Zeroizing::new(serde_json::to_string(&credentials).map_err(io::Error::other)?);
        let text = Zeroizing::new(format!("{}\n{}", self.directory, json.as_str()));
        write_durably(&self.folder, ACCOUNT_FILE, text.as_bytes())?;
        Ok(account)
    }

    /// Asks for a certificate, keeps it and takes it into use.
    async fn obtain(&self, certificates: &Certificates) -> Result<(), AcmeError> {
        let account = self.account().await?;
        let names: Vec<_> = self.names.iter().cloned().map(Identifier::Dns).collect();
        let mut order = account.new_order(&NewOrder::new(&names)).await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let mut challenge = authorization
                .challenge(ChallengeType::Http01)
                .ok_or(AcmeError::NoChallenge)?;
            let answer = challenge.key_authorization();
            certificates
                .challenges
                .set(&challenge.token, answer.as_str());
            challenge.set_ready().await?;
        }
        if order.poll_ready(&RetryPolicy::default()).await? != OrderStatus::Ready {
            return Err(AcmeError::NotProven);
        }
        let key = Zeroizing::new(order.finalize().await?);
        let chain = order.poll_certificate(&RetryPolicy::default()).await?;
        let both = Zeroizing::new(format!("{chain}\n{}", key.as_str()));
        write_durably(&self.folder, CERTIFICATE_FILE, both.as_bytes())?;
        write_durably(&self.folder, "names", self.names.join("\n").as_bytes())?;
        self.take_into_use(certificates)?;
        Ok(())
    }
}

/// The host without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Keeps the certificate fresh until the node stops.
pub(super) async fn keep(keeper: Keeper, state: Weak<State>, run: Run) -> Result<(), WorkerError> {
    let mut wait = FIRST_WAIT;
    loop {
        let Some(state) = state.upgrade() else {
            return Ok(());
        };
        let Some(certificates) = &state.tls else {
            return Ok(());
        };
        let pause = match keeper.rest() {
            Some(rest) => {
                run.note(format!("renewal in {} days", rest.as_secs() / 86_400));
                wait = FIRST_WAIT;
                rest.min(LOOK_INTERVAL)
            }
            None => {
                run.note("asking for a certificate");
                let attempt = tokio::time::timeout(ATTEMPT_TIME, keeper.obtain(certificates));
                let outcome = tokio::select! {
                    () = run.stopping() => return Ok(()),
                    outcome = attempt => outcome.unwrap_or(Err(AcmeError::TimedOut)),
                };
                certificates.challenges.clear();
                match outcome {
                    Ok(()) => {
                        tracing::info!(names = ?keeper.names, "using a new certificate");
                        if keeper.rest().is_some() {
                            continue;
                        }
                        // A certificate that is old on arrival: asking again at once would not help.
                        wait
                    }
                    Err(error) => {
                        let text = chain(&error);
                        tracing::error!(error = %text, retry_seconds = wait.as_secs(), "no new certificate");
                        run.note(format!(
                            "no new certificate, next attempt in {} minutes",
                            wait.as_secs() / 60
                        ));
                        state.metrics.note_error(text);
                        let pause = wait;
                        wait = MAX_WAIT.min(wait * 2);
                        pause
                    }
                }
            }
        };
        drop(state);
        if !run.pause(pause).await {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use instant_acme::LetsEncrypt;

    use super::*;
    use crate::tls::TlsConfig;

    #[test]
    fn the_addresses_are_those_of_the_library() {
        assert_eq!(TlsConfig::LETS_ENCRYPT, LetsEncrypt::Production.url());
        assert_eq!(TlsConfig::LETS_ENCRYPT_STAGING, LetsEncrypt::Staging.url());
    }

    #[test]
    fn only_tokens_are_answered() {
        let challenges = Challenges::default();
        challenges.set("good-Token_1", "answer");
        challenges.set("../evil", "answer");
        assert_eq!(challenges.answer("good-Token_1").as_deref(), Some("answer"));
        assert_eq!(challenges.answer("../evil"), None);
        for number in 0..2 * MAX_CHALLENGES {
            challenges.set(&format!("t{number}"), "x");
        }
        assert_eq!(challenges.0.lock().len(), MAX_CHALLENGES);
    }

    #[test]
    fn a_host_may_have_a_port() {
        assert_eq!(host_name("example.org:8443"), "example.org");
        assert_eq!(host_name("example.org"), "example.org");
    }
}
