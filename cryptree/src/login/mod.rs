//! From name and password to keys, and what they open first (Spec: 02 §8.3, 21 §5.4, §6).

mod entry_points;
mod keys;
mod passphrase;

pub use entry_points::{EntryPoints, UserStaticData};
pub use keys::{LoginError, LoginKeys, check_new_password};
pub use passphrase::passphrase;
