//! What a node says about its file or directory (Spec: 20 §5).

mod file_name;
mod record;

pub use file_name::{FileName, MAX_NAME_UNITS, MAX_PATH_UNITS, NameError};
pub use record::{FileProperties, MAX_THUMBNAIL_BYTES, Thumbnail, Timestamp};
