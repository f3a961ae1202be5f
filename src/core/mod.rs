//! The pure cores. No clock, no I/O, no randomness but a seeded generator, no framework; and no core imports another.
//!
//! What goes on by itself is `step(now, input) -> effects`: election, liveness, recovery, failure, placement, compaction. What is only
//! asked has calls: the ledger's `apply(write) -> answer`, admission (`jobs`), the fate of a message (`faults`), what may be
//! done with the members (`membership`), when what goes on its way (`gathering`, `thrift`), and who leads (`way`).

pub mod compaction;
pub mod election;
pub mod failure;
pub mod faults;
pub mod gathering;
pub mod jobs;
pub mod ledger;
pub mod liveness;
pub mod membership;
pub mod placement;
pub mod recovery;
pub mod thrift;
pub mod way;
