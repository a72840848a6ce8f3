//! Capabilities: what someone must hold to find, fetch and decrypt a file or directory (Spec: 20 §2).

mod absolute;
mod link_text;
mod location;
mod relative;

pub use absolute::AbsoluteCapability;
pub use link_text::LinkTextError;
pub use location::{EntryPoint, Location, MapKey};
pub use relative::{Child, ChildEntry, RelativeCapability, RelativeError};
