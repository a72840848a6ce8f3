//! Published files: the tree of names that leads to capabilities anybody may use (Spec: 04 §7, 13 §8).
//!
//! Everything here is public: blocks without access tokens, capabilities in clear. What a capability opens is not
//! this crate's business; the key in it is carried along as it stands. Invariant: a capability that leaves this
//! module gives no write access, whatever was published.

mod capability;
mod edit;
mod lookup;
mod path;
mod record;

pub use capability::PublishedCapability;
pub use edit::{PublishError, Rewritten, publish, unpublish};
pub use lookup::{LookupFailure, Published, find};
pub use path::{MAX_PATH_ELEMENTS, PathError, PublishedPath};
pub use record::{Child, Directory, Inode, MAX_NAME_UNITS, MAX_SMALL_DIRECTORY, PublicRoot};
