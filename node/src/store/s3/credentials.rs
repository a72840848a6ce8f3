//! Where the keys for the object store come from.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::store::StoreError;

/// Longest credentials file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What requests to the object store are signed with.
#[derive(Clone)]
#[non_exhaustive]
pub enum S3Credentials {
    /// A key of the operator's choice.
    Key(S3Key),
    /// The usual places, the first that has something: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`; the profile
    /// `AWS_PROFILE` (else `default`) of `AWS_SHARED_CREDENTIALS_FILE` (else `~/.aws/credentials`); a web
    /// identity token; the task's or pod's credentials; the metadata service of the machine.
    Usual,
}

/// An access key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct S3Key {
    /// Name of the key.
    pub id: String,
    /// The secret itself.
    pub secret: String,
    /// Session token of a key that is lent for a while.
    pub session: Option<String>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(..)",
            Self::Usual => "Usual",
        })
    }
}

impl fmt::Debug for S3Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S3Key(..)")
    }
}

impl S3Credentials {
    /// Hands the credentials to the client.
    pub(super) fn apply(&self, builder: AmazonS3Builder) -> Result<AmazonS3Builder, StoreError> {
        match self {
            Self::Key(key) => Ok(with_key(builder, key)),
            Self::Usual => usual(builder, &|name| std::env::var(name).ok()),
        }
    }
}

fn with_key(builder: AmazonS3Builder, key: &S3Key) -> AmazonS3Builder {
    let builder = builder
        .with_access_key_id(&key.id)
        .with_secret_access_key(&key.secret);
    match &key.session {
        Some(session) => builder.with_token(session),
        None => builder,
    }
}

/// Only credentials are taken from the environment: where blocks go is never decided by it.
const PASSED_ON: [(&str, AmazonS3ConfigKey); 6] = [
    (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        AmazonS3ConfigKey::WebIdentityTokenFile,
    ),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
    ),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        AmazonS3ConfigKey::ContainerCredentialsFullUri,
    ),
    (
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
    ),
];

fn usual(
    mut builder: AmazonS3Builder,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<AmazonS3Builder, StoreError> {
    if let Some(key) = environment_key(environment) {
        return Ok(with_key(builder, &key));
    }
    if let Some(key) = profile_key(environment)? {
        return Ok(with_key(builder, &key));
    }
    for (name, key) in PASSED_ON {
        if let Some(value) = environment(name) {
            builder = builder.with_config(key, value);
        }
    }
    Ok(builder)
}

fn environment_key(environment: &dyn Fn(&str) -> Option<String>) -> Option<S3Key> {
    Some(S3Key {
        id: environment("AWS_ACCESS_KEY_ID")?,
        secret: environment("AWS_SECRET_ACCESS_KEY")?,
        session: environment("AWS_SESSION_TOKEN"),
    })
}

fn profile_key(environment: &dyn Fn(&str) -> Option<String>) -> Result<Option<S3Key>, StoreError> {
    let named = environment("AWS_PROFILE");
    let file = environment("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    let is_wanted = named.is_some() || file.is_some();
    let file = file.or_else(|| {
        environment("HOME").map(|home| Path::new(&home).join(".aws").join("credentials"))
    });
    let unusable = |reason: String| StoreError::Unusable { reason };
    let Some(file) = file else {
        return Ok(None);
    };
    let mut text = match read_file(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_wanted => return Ok(None),
        Err(error) => {
            return Err(unusable(format!(
                "cannot read the credentials file {}: {error}",
                file.display()
            )));
        }
    };
    let profile = named.as_deref().unwrap_or("default");
    let key = profile_of(&text, profile);
    text.zeroize();
    if key.is_none() && named.is_some() {
        return Err(unusable(format!(
            "{} has no access key in the profile {profile}",
            file.display()
        )));
    }
    Ok(key)
}

fn read_file(file: &Path) -> io::Result<String> {
    if fs::metadata(file)?.len() > MAX_FILE_BYTES {
        return Err(io::Error::other("the file is too long"));
    }
    fs::read_to_string(file)
}

/// Reads one section of an INI file: `[name]`, then `key = value`; `#` and `;` begin comments.
fn profile_of(text: &str, profile: &str) -> Option<S3Key> {
    let mut values: HashMap<&str, &str> = HashMap::new();
    let mut is_inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            let name = name.trim();
            is_inside = name.strip_prefix("profile ").unwrap_or(name).trim() == profile;
        } else if is_inside
            && !line.starts_with(['#', ';'])
            && let Some((name, value)) = line.split_once('=')
        {
            values.insert(name.trim(), value.trim());
        }
    }
    let owned = |name: &str| values.get(name).map(|value| (*value).to_owned());
    Some(S3Key {
        id: owned("aws_access_key_id")?,
        secret: owned("aws_secret_access_key")?,
        session: owned("aws_session_token"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# keys\n[default]\naws_access_key_id = one\naws_secret_access_key=first\n\n[ backup ]\n; x\naws_secret_access_key = second\naws_access_key_id = two\naws_session_token = lent\n[empty]\n";

    #[test]
    fn profiles_are_found_by_name() {
        let key = profile_of(FILE, "default").unwrap();
        assert_eq!((key.id.as_str(), key.secret.as_str()), ("one", "first"));
        assert!(key.session.is_none());
        let key = profile_of(FILE, "backup").unwrap();
        assert_eq!((key.id.as_str(), key.secret.as_str()), ("two", "second"));
        assert_eq!(key.session.as_deref(), Some("lent"));
        assert!(profile_of(FILE, "empty").is_none());
        assert!(profile_of(FILE, "other").is_none());
    }

    #[test]
    fn the_usual_places_are_asked_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        fs::write(&file, FILE).unwrap();
        let name = file.to_str().unwrap().to_owned();
        let with = |pairs: &[(&str, &str)]| {
            let pairs: HashMap<String, String> = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            move |name: &str| pairs.get(name).cloned()
        };
        let id = |environment: &dyn Fn(&str) -> Option<String>| {
            usual(AmazonS3Builder::new(), environment)
                .map(|builder| builder.get_config_value(&AmazonS3ConfigKey::AccessKeyId))
        };
        let both = [
            ("AWS_ACCESS_KEY_ID", "env"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_SHARED_CREDENTIALS_FILE", &name),
        ];
        assert_eq!(id(&with(&both)).unwrap().as_deref(), Some("env"));
        assert_eq!(id(&with(&both[1..])).unwrap().as_deref(), Some("one"));
        let backup = [("AWS_PROFILE", "backup"), both[2]];
        assert_eq!(id(&with(&backup)).unwrap().as_deref(), Some("two"));
        let wrong = [("AWS_PROFILE", "nobody"), both[2]];
        let error = id(&with(&wrong)).unwrap_err().to_string();
        assert!(
            error.contains("no access key in the profile nobody"),
            "{error}"
        );
        assert!(!error.contains("first"));
        let missing = [("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/at/all")];
        assert!(id(&with(&missing)).is_err());
        assert_eq!(id(&with(&[("HOME", "/nowhere")])).unwrap(), None);
        let identity = with(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "a")]);
        let builder = usual(AmazonS3Builder::new(), &identity).unwrap();
        let token = builder.get_config_value(&AmazonS3ConfigKey::WebIdentityTokenFile);
        assert_eq!(token.as_deref(), Some("/t"));
    }

    #[test]
    fn endpoints_never_come_from_the_environment() {
        let hostile = |name: &str| match name {
            "AWS_ENDPOINT" | "AWS_ENDPOINT_URL" | "AWS_ENDPOINT_URL_S3" => {
                Some("http://evil.example".to_owned())
            }
            "AWS_ALLOW_HTTP" | "AWS_SKIP_SIGNATURE" => Some("true".to_owned()),
            _ => None,
        };
        let builder = usual(AmazonS3Builder::new(), &hostile).unwrap();
        assert_eq!(builder.get_config_value(&AmazonS3ConfigKey::Endpoint), None);
    }

    #[test]
    fn secrets_have_no_debug_form() {
        let key = S3Key {
            id: "id".into(),
            secret: "hidden".into(),
            session: None,
        };
        let shown = format!("{key:?} {:?}", S3Credentials::Key(key.clone()));
        assert_eq!(shown, "S3Key(..) Key(..)");
    }
}
