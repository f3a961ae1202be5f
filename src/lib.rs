//! Image Cloud: a cluster that locks images to the people you name.
//!
//! # Layout
//!
//! Imports point downwards only; `tests/imports.rs` holds this table.
//!
//! | folder | what it is | may import |
//! |---|---|---|
//! | [`id`], [`time`], [`scheduling`] | newtypes; the only file that reads a clock; classes of threads | nothing |
//! | [`protocol`] | every serialized type, and the codec | `id`, `time` |
//! | [`core`] | **pure** protocol rules: `step(now, input) -> effects` | `protocol` and below |
//! | [`image`] | **pure** image work: bytes in, bytes or a typed error out | `protocol` and below |
//! | [`identity`] | **pure** keys of users: signed requests, and what is sealed to one reader | `protocol` and below |
//! | [`config`] | files and secrets: who is in the cluster, with which numbers | `protocol` and below |
//! | [`raft`] | the only folder that names the Raft library | `core`, `image`, `identity`, `config` and below |
//! | [`transport`] | outbound node connections | the same |
//! | [`http`] | inbound routes, by caller | the same |
//! | [`node`] | thin actors and the composition root | everything above |
//! | [`client`] | the client library | `protocol`, `core`, `image`, `identity`, `config` and below |
//! | [`demo`] | the load generator: record → statistics → report | everything above |

pub mod client;
pub mod config;
pub mod core;
pub mod demo;
pub mod http;
pub mod id;
pub mod identity;
pub mod image;
pub mod node;
pub mod protocol;
pub mod raft;
pub mod scheduling;
pub mod time;
pub mod transport;
