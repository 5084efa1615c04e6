//! Why a command did not do what was asked, and the exit code that says so to a script.

use ipc::{Unavailable, capnp};
use std::io;

/// The reasons, by exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// 1: it was tried and refused, or went wrong.
    #[error("{0}")]
    Failed(String),
    /// 2: the words cannot mean anything; nothing was tried.
    #[error("{0}")]
    Usage(String),
    /// 3: nobody listens on the control socket.
    #[error("the server is not running ({0}); is --control right?")]
    NotRunning(String),
    /// 1: the process ended the connection.
    #[error("the process broke off; its log says why")]
    Broken,
    /// 4: this user may not.
    #[error("refused: this user may not administer the server ({0})")]
    Refused(String),
}

impl Failure {
    /// 0 done, 1 failed or ALLOWED, 2 usage (most of it clap's), 3 not running, 4 refused by uid.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Broken => 1,
            Self::Usage(_) => 2,
            Self::NotRunning(_) => 3,
            Self::Refused(_) => 4,
        }
    }

    /// Sorts an error of connecting to a control socket.
    pub(crate) fn connecting(name: &str, error: &io::Error) -> Self {
        let (kind, text) = (error.kind(), format!("{name}: {error}"));
        if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            Self::NotRunning(text)
        } else if kind == io::ErrorKind::PermissionDenied {
            Self::Refused(text)
        } else {
            Self::Failed(text)
        }
    }
}

impl From<capnp::Error> for Failure {
    fn from(error: capnp::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Unavailable> for Failure {
    fn from(error: Unavailable) -> Self {
        match error {
            Unavailable::Broken => Self::Broken,
            Unavailable::Away | Unavailable::OtherBuild | Unavailable::Late => {
                Self::Failed(error.to_string())
            }
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<capnp::NotInSchema> for Failure {
    fn from(error: capnp::NotInSchema) -> Self {
        Self::Failed(format!("the server is newer than this moxctl: {error}"))
    }
}

impl From<std::str::Utf8Error> for Failure {
    fn from(error: std::str::Utf8Error) -> Self {
        Self::Failed(error.to_string())
    }
}
