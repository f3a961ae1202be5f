//! The load generator: it starts a cluster (or attaches to one), sends it image jobs while nodes fail, checks every answer and
//! reports. Records become statistics, statistics become a report, printers write it; all of that is pure.
//!
//! | file | what it is |
//! |---|---|
//! | [`options`], [`threshold`] | the command line |
//! | [`plan`], [`pictures`] | what is sent, from the seed alone |
//! | [`scenario`] | **pure**: progress and node states in, failures out |
//! | [`cluster`] | the demo's own nodes: processes, ports, directory |
//! | [`clients`], [`verify`] | actors that send; workers that check |
//! | [`record`] → [`statistics`], [`outages`] → [`report`] | **pure**: from what happened to what is printed |
//! | [`run`] | the order of it all |

pub mod clients;
pub mod options;
pub mod outages;
pub mod pictures;
pub mod plan;
pub mod record;
pub mod report;
pub mod scenario;
pub mod statistics;
pub mod threshold;
pub mod verify;

#[cfg(test)]
mod fixture;
