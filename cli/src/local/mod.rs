//! Local files: walking a folder to upload, writing downloads safely.

pub mod cache;
pub mod fetch;
pub mod folder;
pub mod name;
pub mod partial;
pub mod private;
pub mod spelling;
pub mod walk;
