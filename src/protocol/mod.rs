//! Every serialized type, one file per conversation, and the codec.

pub mod codec;
pub mod election;
mod election_text;
pub mod event;
pub mod fault;
pub mod frame;
pub mod job;
pub mod kv;
pub mod ledger;
pub mod membership;
pub mod problem;
pub mod rights;
pub mod sharing;
pub mod status;
pub mod sync;
pub mod user;
