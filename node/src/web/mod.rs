//! The web server of a node: a web application, its sandboxes, links to published files (Spec: 13 §1 to §8).
//!
//! Nothing here sees plain text of private data, and nothing here reads a user's data for a page. The protection of
//! sandboxes rests on host rules and headers, so every answer has them, refusals too.

mod conditional;
mod label;
mod pages;
mod policy;
pub(crate) mod public_files;
mod root;
mod settings;

pub use label::{InvalidLabel, Label, MAX_LABEL_BYTES};
pub use root::{MAX_FILE_BYTES, MAX_FILES, RootError, WebRoot, listing_line};
pub use settings::{BlockHost, FrameSource, InvalidSource, PageSettings, ScriptHash};

pub(crate) use pages::Pages;
pub(crate) use policy::{Place, Site};

/// What paths of links to published files begin with.
pub(crate) const PUBLIC_FILES: &str = "/public/";
