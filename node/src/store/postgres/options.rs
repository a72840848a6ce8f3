//! How a PostgreSQL server is reached.

use std::{fmt, path::PathBuf, str::FromStr as _, sync::Arc, time::Duration};

use tokio_postgres::config::{ChannelBinding, Host, SslMode};
use zeroize::Zeroizing;

use super::super::Clock;

/// Longest name of a schema.
const MAX_SCHEMA_CHARS: usize = 48;

/// Settings of a [`super::PostgresStore`].
#[derive(Clone)]
#[non_exhaustive]
pub struct PostgresOptions {
    config: tokio_postgres::Config,
    schema: String,
    /// Password, in place of one in the address.
    pub password: Option<Zeroizing<String>>,
    /// File with PEM certificates of the authorities that the server's certificate is checked with; `None` uses those
    /// that the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// Connections of this process. Default 16.
    pub connections: usize,
    /// How long a statement may wait for another batch on the same keys. Default 10 s.
    pub lock_timeout: Duration,
    /// How long a statement may run. Default 60 s.
    pub statement_timeout: Duration,
    /// How long a request waits for a server that is away, or for a connection that is free. Default 10 s.
    pub wait: Duration,
    /// Refuse a server that does not flush what it acknowledges. Only tests turn this off.
    pub require_fsync: bool,
    /// Tells the age of transactions.
    pub clock: Clock,
}

/// An address of a database that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not of the form `postgres://user@host:port/database?option=value`.
    #[error("not a PostgreSQL address: postgres://USER@HOST:PORT/DATABASE")]
    Form,
    /// No server is named.
    #[error("the PostgreSQL address names no host")]
    NoHost,
    /// The name of a schema is not 1 to 48 characters of `a-z`, `0-9` and `_`, beginning with a letter.
    #[error("schema names are 1 to 48 characters of a-z, 0-9 and _, beginning with a letter")]
    Schema,
    /// Not a number of connections.
    #[error("connections must be a number from 1 to 1000")]
    Connections,
    /// The file with the password cannot be read.
    #[error("cannot read the password file {}", .0.display())]
    PasswordFile(PathBuf),
}

impl PostgresOptions {
    /// Reads an address: `postgres://user:password@host:port/database`, or key and value pairs as `libpq` takes them.
    ///
    /// Connections that leave this machine are encrypted, and the server's certificate is checked, unless the
    /// address says `sslmode=disable`.
    ///
    /// # Errors
    /// [`AddressError`], which never repeats the address: there may be a password in it.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let mut config =
            tokio_postgres::Config::from_str(address).map_err(|_| AddressError::Form)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(AddressError::NoHost);
        }
        // `prefer` would let anybody in between turn encryption off.
        if config.get_ssl_mode() == SslMode::Prefer {
            config.ssl_mode(match is_local(&config) {
                true => SslMode::Disable,
                false => SslMode::Require,
            });
        }
        config
            .channel_binding(ChannelBinding::Disable)
            .application_name("kastro")
            .connect_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(60));
        Ok(Self {
            config,
            schema: "kastro".to_owned(),
            password: None,
            ca_file: None,
            connections: 16,
            lock_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(60),
            wait: Duration::from_secs(10),
            require_fsync: true,
            clock: Arc::new(std::time::SystemTime::now),
        })
    }

    /// Reads an address as it stands in a configuration: as [`Self::new`] does, and with these parameters too:
    /// `schema`, `connections`, `password-file`, `ca-file`.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(line: &str) -> Result<Self, AddressError> {
        let (address, query) = line.split_once('?').unwrap_or((line, ""));
        let mut rest = Vec::new();
        let mut own = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some((name @ ("schema" | "connections" | "password-file" | "ca-file"), value)) => {
                    own.push((name, value))
                }
                _ => rest.push(parameter),
            }
        }
        let address = match rest.is_empty() {
            true => address.to_owned(),
            false => format!("{address}?{}", rest.join("&")),
        };
        let mut options = Self::new(&address)?;
        for (name, value) in own {
            match name {
                "schema" => options = options.schema(value)?,
                "connections" => {
                    options.connections = value
                        .parse()
                        .ok()
                        .filter(|count| (1..=1000).contains(count))
                        .ok_or(AddressError::Connections)?;
                }
                "password-file" => {
                    let text = std::fs::read_to_string(value).map(Zeroizing::new);
                    let text = text.map_err(|_| AddressError::PasswordFile(value.into()))?;
                    let password = text.trim_end_matches(['\r', '\n']).to_owned();
                    options.password = Some(password.into());
                }
                _ => options.ca_file = Some(value.into()),
            }
        }
        Ok(options)
    }

    /// Chooses the schema that holds the data set; `kastro` unless chosen. Several data sets fit into one database.
    ///
    /// # Errors
    /// [`AddressError::Schema`].
    pub fn schema(mut self, name: &str) -> Result<Self, AddressError> {
        let is_name = name
            .bytes()
            .all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_'))
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.len() <= MAX_SCHEMA_CHARS;
        if !is_name {
            return Err(AddressError::Schema);
        }
        name.clone_into(&mut self.schema);
        Ok(self)
    }

    /// Returns the name of the schema.
    pub fn schema_name(&self) -> &str {
        &self.schema
    }

    /// Returns what to connect with, password included.
    pub(super) fn connect_config(&self) -> tokio_postgres::Config {
        let mut config = self.config.clone();
        if let Some(password) = &self.password {
            config.password(password.as_bytes());
        }
        config
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.config.get_ssl_mode() != SslMode::Disable
    }
}

/// Returns true when no byte of a connection leaves this machine.
fn is_local(config: &tokio_postgres::Config) -> bool {
    let are_hosts_local = config.get_hosts().iter().all(|host| match host {
        #[cfg(unix)]
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
        }
    });
    are_hosts_local
        && config
            .get_hostaddrs()
            .iter()
            .all(std::net::IpAddr::is_loopback)
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("hosts", &self.config.get_hosts())
            .field("database", &self.config.get_dbname())
            .field("schema", &self.schema)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_leave_the_machine_are_encrypted() {
        let is_encrypted = |address| PostgresOptions::new(address).unwrap().is_encrypted();
        assert!(!is_encrypted("postgres://u@localhost/d"));
        assert!(!is_encrypted("postgres://u@127.0.0.1:5433/d"));
        assert!(!is_encrypted("postgres://u@[::1]/d"));
        assert!(!is_encrypted("host=/run/postgresql user=u dbname=d"));
        assert!(is_encrypted("postgres://u@db.example/d"));
        assert!(is_encrypted("postgres://u@db.example/d?sslmode=prefer"));
        assert!(is_encrypted("postgres://u@localhost,db.example/d"));
        assert!(is_encrypted("host=localhost hostaddr=192.0.2.1 user=u"));
        assert!(is_encrypted("postgres://u@localhost/d?sslmode=require"));
        assert!(!is_encrypted("postgres://u@db.example/d?sslmode=disable"));
    }

    #[test]
    fn secrets_show_up_nowhere() {
        let mut options = PostgresOptions::new("postgres://u:hunter2@localhost/d").unwrap();
        options.password = Some("hunter3".to_owned().into());
        let shown = format!("{options:?}");
        assert!(!shown.contains("hunter"), "{shown}");
        let error = PostgresOptions::new("postgres://u:hunter2@local host:x/").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter"));
    }

    #[test]
    fn lines_of_a_configuration_have_parameters_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2\n").unwrap();
        let line = format!(
            "postgres://u@db.example/d?sslmode=disable&schema=x&connections=3&ca-file=/ca.pem&password-file={}",
            file.display()
        );
        let options = PostgresOptions::parse(&line).unwrap();
        assert!(!options.is_encrypted());
        assert_eq!((options.schema_name(), options.connections), ("x", 3));
        assert_eq!(
            options.password.as_deref().map(String::as_str),
            Some("hunter2")
        );
        assert_eq!(options.ca_file, Some("/ca.pem".into()));
        for wrong in [
            "schema=A",
            "connections=0",
            "password-file=/nowhere",
            "nonsense=1",
        ] {
            let line = format!("postgres://u@localhost/d?{wrong}");
            assert!(PostgresOptions::parse(&line).is_err(), "{wrong}");
        }
    }

    #[test]
    fn schema_names_are_checked() {
        let options = PostgresOptions::new("postgres://u@localhost/d").unwrap();
        assert_eq!(options.schema_name(), "kastro");
        for bad in ["", "1a", "A", "a-b", "a\"b", &"a".repeat(49)] {
            assert_eq!(
                options.clone().schema(bad).unwrap_err(),
                AddressError::Schema
            );
        }
        assert_eq!(
            options.schema("family_2").unwrap().schema_name(),
            "family_2"
        );
        for bad in ["", "mysql://u@h/d", "u@h", "postgres:///d"] {
            assert!(PostgresOptions::new(bad).is_err(), "{bad}");
        }
    }
}
