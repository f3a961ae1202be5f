//! Files and secrets: who is in the cluster, with which numbers, and the cluster key.

mod file;
pub mod secrets;

pub use file::{
    ClusterConfig, ConfigError, ConfiguredNode, DEFAULT_CONFIG, ElectionNumbers, FailureNumbers, JobNumbers,
    LimitNumbers, RecoveryNumbers, StrategyName,
};
