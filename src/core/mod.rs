//! The pure cores: `step(now, input) -> effects`, and the ledger's `apply(write) -> answer`. No clock, no I/O, no randomness but a seeded generator, no framework; and no
//! core imports another.

pub mod election;
pub mod failure;
pub mod faults;
pub mod jobs;
pub mod ledger;
pub mod liveness;
pub mod membership;
pub mod placement;
pub mod recovery;
