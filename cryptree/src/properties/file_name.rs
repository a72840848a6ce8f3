//! Names of files and directories (Spec: 20 §1, §5).

use std::fmt;

use champ::cbor::{Record, RecordError, Value};

/// Longest name, in UTF-16 code units.
pub const MAX_NAME_UNITS: usize = 255;
/// Longest path, in UTF-16 code units.
pub const MAX_PATH_UNITS: usize = 4096;

/// A name that is legal on the network: 1 to 255 UTF-16 units, not `.` or `..`, without `/`.
///
/// It may still be illegal or dangerous on the local machine (control characters, backslash, reserved
/// names). Compared exactly, without case folding or normalization.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

/// Text that is not a legal name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// No characters.
    #[error("name is empty")]
    Empty,
    /// `.` or `..`.
    #[error("name is a dot entry")]
    Dots,
    /// Holds a `/`.
    #[error("name holds a slash")]
    Slash,
    /// Longer than [`MAX_NAME_UNITS`].
    #[error("name of {units} utf-16 units is longer than {MAX_NAME_UNITS}")]
    TooLong {
        /// Its length.
        units: usize,
    },
}

impl FileName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn parse(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let units = name.encode_utf16().count();
        match name.as_str() {
            "" => Err(NameError::Empty),
            "." | ".." => Err(NameError::Dots),
            _ if name.contains('/') => Err(NameError::Slash),
            _ if units > MAX_NAME_UNITS => Err(NameError::TooLong { units }),
            _ => Ok(Self(name)),
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes the text.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl AsRef<str> for FileName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Record for FileName {
    fn to_value(&self) -> Value {
        Value::from(self.as_str())
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        Self::parse(value.into_text("n")?).map_err(|_| RecordError::OutOfRange { field: "n" })
    }
}
