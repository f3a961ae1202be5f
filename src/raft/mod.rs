//! Raft adapter.
