//! `kastro web-hash`: the hash of a web application, to be compared by whoever does not trust a node's word.

use std::error::Error as _;

use node::web::{WebRoot, listing_line};

use crate::{
    args::WebHashArgs,
    exit::{Class, Failure},
    output::Output,
};

/// Runs the command.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn run(args: &WebHashArgs, output: Output) -> Result<(), Failure> {
    let root = WebRoot::open(&args.folder).map_err(|error| {
        let cause = error.source().map(|cause| format!(": {cause}"));
        Failure::new(
            Class::Local,
            format!("{error}{}", cause.unwrap_or_default()),
        )
    })?;
    let hash = champ::text::to_hex(root.hash());
    if output.json {
        let files: serde_json::Map<_, _> = root
            .files()
            .map(|(name, hash)| (name.to_owned(), champ::text::to_hex(hash).into()))
            .collect();
        return output.json(&serde_json::json!({ "sha256": hash, "files": files }));
    }
    if args.files {
        for (name, hash) in root.files() {
            output.line(listing_line(name, hash).trim_end_matches('\n'))?;
        }
        return Ok(());
    }
    output.line(&hash)
}
