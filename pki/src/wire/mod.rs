//! What travels between clients and nodes: one module per family of request and reply (Spec: 05 to 10, 12).
//!
//! Client and node use the same types, so each has both directions and the limits of both. A [`Body`]
//! checks size and number of values before anything is allocated from what a stranger declared; a record
//! inside another one is a [`Record`](champ::cbor::Record).

pub mod admin;
pub mod block_group;
pub mod call;
pub mod champ_lookup;
pub mod direct_store;
pub mod directory;
pub mod link;
pub mod login_data;
pub mod message;
pub mod mirror;
pub mod node_info;
pub mod op_log;
pub mod payment;
pub mod pointer_batch;
pub mod put_reply;
pub mod query;
pub mod refusal;
pub mod reply;
pub mod second_factor;
pub mod signup;
pub mod snapshot;
pub mod social;
pub mod trailer;

mod body;
mod stream;

pub use body::{Body, WireError};
