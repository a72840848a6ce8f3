//! What only the user can read: login, capabilities, encrypted files and folders, and the client that moves them.
//!
//! The formats are bytes in, bytes out: no sockets, no files, no clock and no randomness of their own. They
//! compile for wasm32, so that keys never leave a browser page.
//!
//! Spec: 02, 20 and 21; the client's side of 05 to 10.
//!
//! # For programs that embed the client
//!
//! A [`Client`] needs two things from its surroundings: a [`Transport`] that reaches a node, and an [`Environment`] with
//! clock, timer, randomness and, where there are threads, spare processors. What follows compiles as it stands.
//!
//! ## A client, an account, a session
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use cryptree::{Client, ClientError, Environment, Session, SignIn, Transport, client::FactorCode};
//! async fn begin(
//!     node: Arc<dyn Transport>,
//!     surroundings: Arc<dyn Environment>,
//! ) -> Result<Session, ClientError> {
//!     let client = Client::new(node, surroundings);
//!     // Once:
//!     client.sign_up("alice", "correct horse battery staple", "").await?;
//!     // On every other machine; the account may ask for a second factor:
//!     let session = match client.sign_in("alice", "correct horse battery staple").await? {
//!         SignIn::Done(session) => session,
//!         SignIn::SecondFactor(pending) => pending.answer(FactorCode::OneTime("123456")).await?,
//!     };
//!     // Now and then: renews the claim to the name, makes what is missing.
//!     session.upkeep().await?;
//!     // A session can be kept, under a key of yours, and taken up without a password. It remembers what it saw, so
//!     // that a node cannot go back in time.
//!     let kept = session.save(&[7; 32]);
//!     client.restore(&kept, &[7; 32])
//! }
//! ```
//!
//! ## Files and folders
//!
//! ```no_run
//! # use cryptree::{ClientError, Session, client::{Detail, UploadOptions}};
//! # use futures_util::io::Cursor;
//! async fn files(session: &Session) -> Result<(), ClientError> {
//!     session.make_folders("/alice/docs/2026").await?;
//!     let text = b"only alice can read this";
//!     let size = Some(text.len() as u64);
//!     let options = UploadOptions::default();
//!     session
//!         .upload("/alice/docs/2026/note", &mut Cursor::new(text), size, &options, &mut |_, _| {})
//!         .await?;
//!     for entry in session.list("/alice/docs/2026", Detail::Full).await?.entries {
//!         // Names may hold anything but a slash: escape them before they are shown.
//!         println!("{:?} has {:?} bytes", entry.name, entry.size_bytes);
//!     }
//!     // Any part of a file costs one look-up and the 5 MiB around it, however large the file is.
//!     let file = session.open_file("/alice/docs/2026/note").await?;
//!     assert_eq!(file.read_at(5, 5).await?, text[5..10]);
//!     // In place, and only what changes:
//!     session.write_at("/alice/docs/2026/note", 5, b"Alice").await?;
//!     session.append("/alice/docs/2026/note", b".", None).await?;
//!     session.move_to("/alice/docs/2026/note", "/alice/note").await?;
//!     session.delete("/alice/docs").await
//! }
//! ```
//!
//! Thousands of small files go through [`Session::bulk`], everything below a folder comes from [`Session::walk`].
//!
//! ## Several devices
//!
//! ```no_run
//! # use cryptree::{ClientError, Session, client::{IfExists, UploadOptions}};
//! # use futures_util::io::Cursor;
//! async fn edit(session: &Session) -> Result<(), ClientError> {
//!     let file = session.open_file("/alice/list").await?;
//!     let seen = file.version();
//!     // ... somebody edits what was read, perhaps for hours ...
//!     let options = UploadOptions {
//!         if_exists: IfExists::ReplaceVersion(seen),
//!         device: "laptop".to_owned(),
//!         ..UploadOptions::default()
//!     };
//!     let edited = b"milk, eggs";
//!     let stored = session
//!         .upload("/alice/list", &mut Cursor::new(edited), Some(10), &options, &mut |_, _| {})
//!         .await?;
//!     if stored.is_conflict_copy {
//!         println!("another device changed the list too; yours is {}", stored.path);
//!     }
//!     match session.delete_version("/alice/list", stored.version).await {
//!         Err(ClientError::ChangedElsewhere { .. }) => println!("changed since, so it stays"),
//!         done => done?,
//!     }
//!     Ok(())
//! }
//! ```
//!
//! ## Sharing with whoever has a link
//!
//! ```no_run
//! # use cryptree::{Client, ClientError, Session};
//! # use pki::published::PublishedPath;
//! async fn share(session: &Session, client: &Client) -> Result<(), ClientError> {
//!     // To be opened in a client; whoever has the text can read the item, and here also write it.
//!     let secret = session.capability_link("/alice/photos").await?;
//!     # drop(secret);
//!     // Or for everybody, under its path:
//!     session.publish("/alice/photos").await?;
//!     let published = client.published("alice").await?;
//!     let path = PublishedPath::parse("/alice/photos/beach.jpg");
//!     let path = path.map_err(|_| ClientError::NotFound { path: String::new() })?;
//!     if let Some(photo) = published.open(&path).await? {
//!         println!("{} bytes", photo.file().await?.size());
//!     }
//!     session.unpublish("/alice/photos").await
//! }
//! ```

pub mod api;
pub mod capability;
pub mod chunk_chain;
pub mod ciphertext;
pub mod client;
pub mod counters;
pub mod crypto;
pub mod directory;
pub mod environment;
pub mod error;
pub mod file;
pub mod hash_tree;
pub mod link_node;
pub mod login;
pub mod mime;
pub mod node;
pub mod properties;
#[cfg(test)]
mod replay;
pub mod sandbox;
pub mod secret_link;
pub mod shared_with;
pub mod transport;
pub mod upload_record;

pub use client::{Client, Session, SignIn};
pub use environment::Environment;
pub use error::{ClientError, Misbehavior};
pub use transport::{ApiRequest, ApiResponse, Transport, TransportError};
