//! The commands, one module each.

pub mod backup;
pub mod cat;
pub mod check;
pub mod gc;
pub mod get;
pub mod login;
pub mod ls;
pub mod mkdir;
pub mod mv;
pub mod passwd;
pub mod put;
pub mod quota;
pub mod rm;
pub mod scrub;
pub mod serve;
pub mod signup;
pub mod space;
pub mod stat;
pub mod tally;
pub(crate) mod upload_folder;
pub mod users;
pub mod web_hash;
pub mod write;
