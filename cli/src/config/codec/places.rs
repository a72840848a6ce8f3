//! Where things are: folders, addresses, databases and buckets.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use node::{
    BlockPlace, MetadataPlace,
    store::{PostgresOptions, s3::S3Options},
};

use super::{Codec, Given, Raw, quoted, wrong};

pub(in crate::config) struct Folder;

impl Codec for Folder {
    type Value = PathBuf;
    const FORM: &'static str = "path";

    fn read(given: &Given) -> Result<PathBuf, String> {
        match &given.raw {
            Raw::Text(text) if !text.is_empty() => Ok(match &given.base {
                Some(base) => base.join(text),
                None => Path::new(text).to_path_buf(),
            }),
            _ => wrong("a path"),
        }
    }

    fn show(value: &PathBuf) -> Option<String> {
        Some(quoted(&value.display().to_string()))
    }
}

pub(in crate::config) struct Address;

impl Codec for Address {
    type Value = SocketAddr;
    const FORM: &'static str = "address:port";

    fn read(given: &Given) -> Result<SocketAddr, String> {
        let what = "ADDRESS:PORT, for example 127.0.0.1:8000 or 0.0.0.0:8000";
        let Raw::Text(text) = &given.raw else {
            return wrong(what);
        };
        let first = text.to_socket_addrs().ok().and_then(|mut all| all.next());
        first.map_or_else(|| wrong(what), Ok)
    }

    fn show(value: &SocketAddr) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

/// Where metadata is kept: `folder`, or the address of a database.
pub(in crate::config) struct Metadata;

impl Codec for Metadata {
    type Value = MetadataPlace;
    const FORM: &'static str = "\"folder\" or postgres://...";

    fn read(given: &Given) -> Result<MetadataPlace, String> {
        match &given.raw {
            Raw::Text(text) if text == "folder" => Ok(MetadataPlace::Data),
            Raw::Text(text) => match PostgresOptions::parse(text) {
                Ok(options) => Ok(MetadataPlace::Postgres(Box::new(options))),
                Err(error) => Err(format!("expected \"folder\" or a database: {error}")),
            },
            _ => wrong("\"folder\" or postgres://USER@HOST/DATABASE"),
        }
    }

    fn show(value: &MetadataPlace) -> Option<String> {
        // There may be a password in an address.
        Some(quoted(match value {
            MetadataPlace::Postgres(_) => "set",
            _ => "folder",
        }))
    }
}

/// Where blocks are kept: `folder`, or the line of a bucket.
pub(in crate::config) struct Blocks;

impl Codec for Blocks {
    type Value = BlockPlace;
    const FORM: &'static str = "\"folder\" or s3://...";

    fn read(given: &Given) -> Result<BlockPlace, String> {
        match &given.raw {
            Raw::Text(text) if text == "folder" => Ok(BlockPlace::WithMetadata),
            Raw::Text(text) => match S3Options::parse(text) {
                Ok(options) => Ok(BlockPlace::S3(Box::new(options))),
                Err(error) => Err(format!("expected \"folder\" or a bucket: {error}")),
            },
            _ => wrong("\"folder\" or s3://BUCKET"),
        }
    }

    fn show(value: &BlockPlace) -> Option<String> {
        let BlockPlace::S3(options) = value else {
            return Some(quoted("folder"));
        };
        let mut line = format!("s3://{}", options.bucket);
        if !options.prefix.is_empty() {
            line.push_str(&format!("/{}", options.prefix));
        }
        let style = options.path_style.map(|is_path| match is_path {
            true => "path".to_owned(),
            false => "host".to_owned(),
        });
        let yes = |is: bool| is.then(|| "yes".to_owned());
        let cache = (options.cache_bytes > 0).then(|| options.cache_bytes.to_string());
        let parameters = [
            ("region", options.region.clone()),
            ("endpoint", options.endpoint.clone()),
            ("style", style),
            ("direct", yes(options.direct_access)),
            ("allow-http", yes(options.allow_http)),
            ("cache", cache),
        ];
        let given = parameters
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        let given: Vec<String> = given.collect();
        if !given.is_empty() {
            line.push_str(&format!("?{}", given.join("&")));
        }
        Some(quoted(&line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_database_is_never_shown() {
        let line = "postgres://u:hunter2@db.example/d?connections=3";
        let place = Metadata::read(&Given::text(line)).unwrap();
        assert_eq!(Metadata::show(&place).unwrap(), "\"set\"");
        assert!(!format!("{place:?}").contains("hunter"));
        let refused = Metadata::read(&Given::text("postgres://u:hunter2@h/d?x=1")).unwrap_err();
        assert!(!refused.contains("hunter"), "{refused}");
        let folder = Metadata::read(&Given::text("folder")).unwrap();
        assert_eq!(Metadata::show(&folder).unwrap(), "\"folder\"");
    }

    #[test]
    fn a_bucket_reads_back_as_the_same_line() {
        for line in [
            "folder",
            "s3://bucket",
            "s3://bucket/a/b?region=eu-1&endpoint=http://127.0.0.1:9000&style=path&direct=yes&cache=4096",
        ] {
            let place = Blocks::read(&Given::text(line)).unwrap();
            assert_eq!(Blocks::show(&place), Some(quoted(line)));
        }
        for wrong in ["", "http://x", "s3://", "s3://bucket?colour=blue"] {
            assert!(Blocks::read(&Given::text(wrong)).is_err(), "{wrong}");
        }
    }
}
