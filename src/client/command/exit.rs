//! Which error ends the program with which code.

use std::io;
use std::process::ExitCode;

use crate::client::keys::LeaseError;
use crate::client::{AttemptError, ClientError, RequestFailed};
use crate::config::ConfigError;
use crate::config::secrets::SecretsError;
use crate::image::ImageError;
use crate::protocol::problem::ProblemCode;

/// The exit codes of all programs of the house.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Unavailable = 4,
    Denied = 5,
    Damaged = 6,
    Interrupted = 130,
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command ends without having done its work.
#[derive(Debug)]
pub struct CommandError {
    pub exit: Exit,
    /// One line for stderr, unless everything has been said.
    pub text: Option<String>,
}

impl CommandError {
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        CommandError { exit, text: Some(text.into()) }
    }

    pub fn quiet(exit: Exit) -> Self {
        CommandError { exit, text: None }
    }

    /// An error of the file system, with what was being done in its own words: "cannot read cat.jpg".
    pub fn file(what: impl std::fmt::Display, error: &io::Error, what_to_do: &str) -> Self {
        CommandError::new(exit_of_io(error), format!("{what}: {error}; {what_to_do}"))
    }
}

fn exit_of_io(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::NotFound => Exit::NotFound,
        io::ErrorKind::PermissionDenied => Exit::Denied,
        _ => Exit::Failed,
    }
}

fn exit_of_problem(code: ProblemCode) -> Exit {
    match code {
        ProblemCode::BadRequest | ProblemCode::MethodNotAllowed => Exit::Usage,
        ProblemCode::NotFound => Exit::NotFound,
        ProblemCode::Unauthorized
        | ProblemCode::Forbidden
        | ProblemCode::SignatureRefused
        | ProblemCode::Denied
        | ProblemCode::WrongCluster => Exit::Denied,
        ProblemCode::BadImage => Exit::Damaged,
        ProblemCode::TooLarge
        | ProblemCode::TooSlow
        | ProblemCode::CarrierTooSmall
        | ProblemCode::Conflict
        | ProblemCode::Forgotten
        | ProblemCode::StorageFull
        | ProblemCode::Internal => Exit::Failed,
        ProblemCode::Busy
        | ProblemCode::NotActive
        | ProblemCode::NoClusterId
        | ProblemCode::Dropped
        | ProblemCode::NotLeader
        | ProblemCode::NoLeader
        | ProblemCode::NoQuorum
        | ProblemCode::OutcomeUnknown
        | ProblemCode::Overloaded => Exit::Unavailable,
    }
}

fn exit_of_attempt(error: &AttemptError) -> Exit {
    match error {
        AttemptError::Refused(problem) => exit_of_problem(problem.code),
        AttemptError::NoNode
        | AttemptError::Timeout(_)
        | AttemptError::Connection(_)
        | AttemptError::Broken(_)
        | AttemptError::Status(_) => Exit::Unavailable,
        AttemptError::BadAnswer(_) | AttemptError::AnswerTooLarge { .. } => Exit::Failed,
    }
}

impl From<RequestFailed> for CommandError {
    fn from(error: RequestFailed) -> Self {
        CommandError::new(exit_of_attempt(&error.last), error.to_string())
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::NoNodes | ClientError::BadAddress { .. } | ClientError::NoAuthority { .. } => Exit::Usage,
            ClientError::NoRuntime | ClientError::Setup(_) => Exit::Failed,
            ClientError::UnknownNode { .. } => Exit::NotFound,
            ClientError::NoCoordinator | ClientError::NobodyAnswers { .. } => Exit::Unavailable,
            ClientError::Exchange { source, .. } => exit_of_attempt(source),
        };
        CommandError::new(exit, error.to_string())
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        let exit = match &error {
            ConfigError::Unreadable { source, .. } => exit_of_io(source),
            ConfigError::UnknownNode { .. } => Exit::NotFound,
            ConfigError::Invalid { .. } | ConfigError::Contradiction(_) => Exit::Usage,
        };
        CommandError::new(exit, error.to_string())
    }
}

impl From<SecretsError> for CommandError {
    fn from(error: SecretsError) -> Self {
        let exit = match &error {
            SecretsError::Unusable { source, .. } => exit_of_io(source),
            SecretsError::TooOpen { .. }
            | SecretsError::CurrentRetired { .. }
            | SecretsError::NeedsPassphrase { .. }
            | SecretsError::WrongPassphrase { .. } => Exit::Denied,
            SecretsError::Missing { .. } | SecretsError::NoCluster { .. } | SecretsError::NoSuchKey { .. } => {
                Exit::NotFound
            }
            SecretsError::Damaged { .. }
            | SecretsError::DamagedRing { .. }
            | SecretsError::NotAToken { .. }
            | SecretsError::Certificate { .. }
            | SecretsError::NoIdentity { .. } => Exit::Damaged,
            SecretsError::IsCurrent { .. }
            | SecretsError::TooManyKeys { .. }
            | SecretsError::Exists { .. }
            | SecretsError::KeysExist { .. }
            | SecretsError::NoRandomness
            | SecretsError::Issuing(_) => Exit::Failed,
        };
        CommandError::new(exit, error.to_string())
    }
}

impl From<LeaseError> for CommandError {
    fn from(error: LeaseError) -> Self {
        let exit = match error {
            LeaseError::Store(error) => return error.into(),
            LeaseError::Unreadable { .. } => Exit::Damaged,
            LeaseError::KeysReplaced { .. } => Exit::Failed,
            LeaseError::None => Exit::NotFound,
            LeaseError::Expired { .. } | LeaseError::Spent => Exit::Denied,
            LeaseError::NotSoMany { .. } => Exit::Usage,
        };
        CommandError::new(exit, error.to_string())
    }
}

impl From<ImageError> for CommandError {
    fn from(error: ImageError) -> Self {
        let exit = match &error {
            ImageError::NotSealed | ImageError::NoLabel => Exit::NotFound,
            ImageError::WrongKey { .. } | ImageError::RetiredKey { .. } => Exit::Denied,
            ImageError::NotAnImage
            | ImageError::Truncated { .. }
            | ImageError::Damaged { .. }
            | ImageError::ChangedCopy
            | ImageError::Tampered { .. } => Exit::Damaged,
            _ => Exit::Failed,
        };
        CommandError::new(exit, error.to_string())
    }
}
