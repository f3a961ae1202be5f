//! The load generator: it starts a cluster (or attaches to one), sends it image jobs while nodes fail, checks every answer and
//! reports. Records become statistics, statistics become a report, printers write it; all of that is pure.
//!
//! | file | what it is |
//! |---|---|
//! | [`options`], [`threshold`] | the command line |
//! | [`plan`], [`pictures`] | what is sent, from the seed alone |
//! | [`scenario`] | **pure**: progress and node states in, failures out |
//! | [`cluster`], [`observer`], [`driver`] | the demo's own nodes; looking at nodes; making them fail |
//! | [`clients`], [`verify`], [`checker`] | actors that send; workers that check; what a right answer is |
//! | [`people`], [`share`] | users; those who race for counted views, and the **pure** proof that none was overspent or lost |
//! | [`tour`] | the story of one sealed photograph, step by step |
//! | [`record`] → [`statistics`], [`outages`] → [`report`] | **pure**: from what happened to what is printed |
//! | [`run`], [`afterwards`] | the order of it all; the cluster that goes on after the report |
//! | [`run_directory`], [`progress`], [`interrupt`], [`machine`] | files, the bar, Ctrl-C, cores and memory |

pub mod afterwards;
pub mod checker;
pub mod clients;
pub mod cluster;
pub mod driver;
pub mod interrupt;
pub mod machine;
pub mod observer;
pub mod options;
pub mod outages;
pub mod people;
pub mod pictures;
pub mod plan;
pub mod progress;
pub mod record;
pub mod report;
pub mod run;
pub mod run_directory;
pub mod scenario;
pub mod share;
pub mod statistics;
pub mod threshold;
pub mod tour;
pub mod verify;

#[cfg(test)]
mod fixture;
