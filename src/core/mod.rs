//! The pure cores: `step(now, input) -> effects`. No clock, no I/O, no randomness but a seeded generator, no framework; and no
//! core imports another.

pub mod election;
pub mod failure;
pub mod faults;
pub mod jobs;
pub mod liveness;
pub mod placement;
pub mod recovery;
