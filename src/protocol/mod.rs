//! Every serialized type, one file per conversation, and the codec.

pub mod codec;
pub mod election;
pub mod event;
pub mod frame;
pub mod job;
pub mod problem;
pub mod status;
pub mod sync;
