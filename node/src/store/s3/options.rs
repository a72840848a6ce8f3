//! Which bucket, where, and with what limits.

use std::{net::IpAddr, time::Duration};

use super::{S3Credentials, names::Names};
use crate::store::StoreError;

/// Region of stores that have none.
const DEFAULT_REGION: &str = "us-east-1";

/// Settings of a bucket.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct S3Options {
    /// Name of the bucket; it must exist.
    pub bucket: String,
    /// Folder in the bucket; empty for none. A prefix belongs to one data set.
    pub prefix: String,
    /// Region; `None`: the one that stores without regions use.
    pub region: Option<String>,
    /// URL of the service, as in `https://minio.example.org:9000`; `None`: Amazon's.
    pub endpoint: Option<String>,
    /// True: the bucket is part of the path. False: part of the host. Default: path with an endpoint of one's own.
    pub path_style: Option<bool>,
    /// Unencrypted connections to other machines. To this machine they are always allowed.
    pub allow_http: bool,
    /// Keys.
    pub credentials: S3Credentials,
    /// Let clients write and read raw blocks directly. The store must then be reachable for them, and browsers
    /// must be allowed by its cross-origin rules.
    pub direct_access: bool,
    /// Bytes of a read cache on the node's disk; 0 for none.
    pub cache_bytes: u64,
    /// Requests in flight at most, 1 to 1024.
    pub max_requests: usize,
    /// Time for one attempt of a request, its answer included.
    pub request_timeout: Duration,
    /// Pause before the second attempt; it doubles with every further one.
    pub first_retry_delay: Duration,
    /// Attempts after the first one.
    pub max_retries: usize,
}

/// A line that does not describe a bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}`; write s3://BUCKET[/PREFIX][?region=R&endpoint=URL&style=path|host&direct=yes&cache=BYTES&allow-http=yes]"
)]
pub struct BadS3Url(String);

impl S3Options {
    /// Returns the defaults for a bucket.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: String::new(),
            region: None,
            endpoint: None,
            path_style: None,
            allow_http: false,
            credentials: S3Credentials::Usual,
            direct_access: false,
            cache_bytes: 0,
            max_requests: 64,
            request_timeout: Duration::from_secs(30),
            first_retry_delay: Duration::from_secs(1),
            max_retries: 6,
        }
    }

    /// Reads one line: `s3://bucket/prefix?region=R&endpoint=URL&style=path&direct=yes&cache=BYTES`.
    ///
    /// Credentials are never part of it.
    ///
    /// # Errors
    /// [`BadS3Url`] for unknown parameters and values.
    pub fn parse(line: &str) -> Result<Self, BadS3Url> {
        let bad = || BadS3Url(line.to_owned());
        let rest = line.strip_prefix("s3://").ok_or_else(bad)?;
        let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let mut options = Self::new(bucket);
        options.prefix = prefix.trim_matches('/').to_owned();
        for parameter in parameters.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or_else(bad)?;
            let flag = || match value {
                "yes" | "true" => Ok(true),
                "no" | "false" => Ok(false),
                _ => Err(bad()),
            };
            match name {
                "region" => options.region = Some(value.to_owned()),
                "endpoint" => options.endpoint = Some(value.to_owned()),
                "style" if value == "path" => options.path_style = Some(true),
                "style" if value == "host" => options.path_style = Some(false),
                "direct" => options.direct_access = flag()?,
                "allow-http" => options.allow_http = flag()?,
                "cache" => options.cache_bytes = value.parse().map_err(|_| bad())?,
                _ => return Err(bad()),
            }
        }
        options
            .check()
            .map_err(|error| BadS3Url(format!("{line}: {error}")))?;
        Ok(options)
    }

    /// Checks what can be checked without asking anybody.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let unusable = |reason: &str| {
            Err(StoreError::Unusable {
                reason: reason.to_owned(),
            })
        };
        let is_name = |text: &str, max: usize| {
            !text.is_empty()
                && text.len() <= max
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        };
        if !is_name(&self.bucket, 63) || self.bucket.len() < 3 {
            return unusable("names of buckets have 3 to 63 characters of a-z, 0-9, `-` and `.`");
        }
        if !is_name(self.region(), 64) {
            return unusable("the region is not the name of one");
        }
        if Names::new(&self.prefix).is_err() {
            return unusable(
                "prefixes are made of a-z, A-Z, 0-9, `-`, `_` and `.`, in parts separated by `/`",
            );
        }
        let Some(endpoint) = &self.endpoint else {
            return Ok(());
        };
        let uri: http::Uri = match endpoint.parse() {
            Ok(uri) => uri,
            Err(_) => return unusable("the endpoint is not a URL"),
        };
        let is_plain = matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && !endpoint.contains('@')
            && uri.host().is_some_and(|host| !host.is_empty());
        match uri.scheme_str() {
            Some("https" | "http") if !is_plain => {
                unusable("the endpoint is scheme, host and port, as in https://s3.example.org:9000")
            }
            Some("https") => Ok(()),
            Some("http") if self.allow_http || uri.host().is_some_and(is_this_machine) => Ok(()),
            Some("http") => unusable(
                "the endpoint is not encrypted; use https, or allow http if the network is yours",
            ),
            _ => unusable("the endpoint must begin with https:// or http://"),
        }
    }

    pub(super) fn region(&self) -> &str {
        self.region.as_deref().unwrap_or(DEFAULT_REGION)
    }

    pub(super) fn is_path_style(&self) -> bool {
        // A dot in the name does not fit below the certificate of the service.
        self.path_style
            .unwrap_or(self.endpoint.is_some() || self.bucket.contains('.'))
    }

    /// Returns the URL of the service, without slash at its end.
    pub(super) fn endpoint_url(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => format!("https://s3.{}.amazonaws.com", self.region()),
        }
    }

    /// Returns scheme and host of requests; the host has the bucket in front unless it is in the path.
    pub(super) fn scheme_and_host(&self) -> (String, String) {
        let url = self.endpoint_url();
        let (scheme, host) = url.split_once("://").unwrap_or(("https", url.as_str()));
        let host = match (scheme, host.rsplit_once(':')) {
            ("https", Some((host, "443"))) | ("http", Some((host, "80"))) => host,
            _ => host,
        };
        let host = match self.is_path_style() {
            true => host.to_owned(),
            false => format!("{}.{host}", self.bucket),
        };
        (scheme.to_owned(), host)
    }

    /// Returns the URL below which the bucket is, ends in `/`.
    pub(super) fn base_url(&self) -> String {
        let (scheme, host) = self.scheme_and_host();
        match self.is_path_style() {
            true => format!("{scheme}://{host}/{}/", self.bucket),
            false => format!("{scheme}://{host}/"),
        }
    }

    /// Says in messages where the blocks are.
    pub(super) fn place(&self) -> String {
        format!("{}{}", self.base_url(), self.prefix)
    }
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_everything_but_the_keys() {
        let options = S3Options::parse(
            "s3://family/kastro/one?region=garage&endpoint=https://s3.home:3900&style=path&direct=yes&cache=1000",
        )
        .unwrap();
        assert_eq!(
            (options.bucket.as_str(), options.prefix.as_str()),
            ("family", "kastro/one")
        );
        assert_eq!(options.region(), "garage");
        assert_eq!(options.base_url(), "https://s3.home:3900/family/");
        assert_eq!(options.place(), "https://s3.home:3900/family/kastro/one");
        assert!(options.direct_access && options.is_path_style());
        assert_eq!(options.cache_bytes, 1000);

        let amazon = S3Options::parse("s3://family?region=eu-central-1").unwrap();
        assert_eq!(
            amazon.base_url(),
            "https://family.s3.eu-central-1.amazonaws.com/"
        );
        let dotted = S3Options::parse("s3://my.family").unwrap();
        assert_eq!(
            dotted.base_url(),
            "https://s3.us-east-1.amazonaws.com/my.family/"
        );
        let port = S3Options::parse("s3://abc?endpoint=https://h:443&style=host").unwrap();
        assert_eq!(port.base_url(), "https://abc.h/");
    }

    #[test]
    fn unknown_and_dangerous_lines_are_refused() {
        for bad in [
            "family",
            "s3://",
            "s3://ab",
            "s3://a/b?x=y",
            "s3://abc?direct=maybe",
            "s3://abc?cache=lots",
            "s3://abc?endpoint=ftp://h",
            "s3://abc?endpoint=h:9000",
            "s3://abc?endpoint=https://user@h",
            "s3://abc?endpoint=https://h/path",
            "s3://abc/a b",
            "s3://abc?region=a/b",
            "s3://abc?endpoint=http://192.168.1.9:9000",
        ] {
            assert!(S3Options::parse(bad).is_err(), "{bad}");
        }
        for good in [
            "s3://abc?endpoint=http://127.0.0.1:9000",
            "s3://abc?endpoint=http://localhost:9000",
            "s3://abc?endpoint=http://[::1]:9000",
            "s3://abc?endpoint=http://192.168.1.9:9000&allow-http=yes",
        ] {
            assert!(S3Options::parse(good).is_ok(), "{good}");
        }
    }
}
