//! One error for the programs of this package: a message for the person at the terminal.

use std::{fmt, io};

/// What went wrong, in words.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    /// Makes an error out of what to tell the person who ran the program.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// Says what was being done when an error came.
pub trait Context<T> {
    /// Puts `doing` in front of the error's own message.
    ///
    /// # Errors
    /// The error that was there already, with more words.
    fn context(self, doing: impl fmt::Display) -> Result<T, Error>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|error| Error(format!("{doing}: {error}")))
    }
}
