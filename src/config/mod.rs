//! Files and secrets: who is in the cluster, with which numbers, and what they keep secret.

mod file;
pub mod secrets;

pub use file::{
    ClusterConfig, ConfigError, ConfiguredNode, DEFAULT_CONFIG, ElectionNumbers, FailureNumbers, HttpRules, HttpTls,
    JobNumbers, LimitNumbers, RecoveryNumbers, StrategyName,
};
