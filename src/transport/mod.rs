//! Outbound node connections.
