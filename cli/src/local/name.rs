//! Which names of remote entries may become local file names.
//!
//! Remote names are chosen by whoever wrote the folder, possibly somebody else. Invariant: a name that passes
//! is one component that stays inside the folder it is joined to. Spec: 21 §4.

use super::partial::PART_PREFIX;

/// The rules of a local file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Only `/` and NUL are special.
    Unix,
    /// Backslash, drive letters, streams, device names and trailing dots are special too.
    Windows,
}

impl Platform {
    /// Returns the rules of the machine this runs on.
    #[must_use]
    pub const fn here() -> Self {
        if cfg!(windows) {
            Self::Windows
        } else {
            Self::Unix
        }
    }
}

/// Why a remote name cannot be used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsafeName {
    /// Empty, `.` or `..`.
    #[error("the name would leave the folder")]
    Leaves,
    /// Holds a separator or NUL.
    #[error("the name holds a character that separates folders or ends names here")]
    Separator,
    /// A name with a meaning of its own on this system.
    #[error("the name is reserved on this system")]
    Reserved,
}

/// Checks that `name` is one harmless path component.
///
/// # Errors
///
/// The reason, when it is not.
pub fn check(name: &str, platform: Platform) -> Result<(), UnsafeName> {
    if matches!(name, "" | "." | "..") {
        return Err(UnsafeName::Leaves);
    }
    if name.contains(['/', '\0']) {
        return Err(UnsafeName::Separator);
    }
    // A remote file could stand in the place of a download that is under way.
    if name.starts_with(PART_PREFIX) {
        return Err(UnsafeName::Reserved);
    }
    if platform == Platform::Windows {
        if name.contains(['\\', ':']) {
            return Err(UnsafeName::Separator);
        }
        if name.contains(['<', '>', '"', '|', '?', '*'])
            || name.chars().any(|c| c.is_ascii_control())
            || name.ends_with(['.', ' '])
        {
            return Err(UnsafeName::Reserved);
        }
        let stem = name.split('.').next().unwrap_or_default().trim_end();
        if DEVICES
            .iter()
            .any(|device| stem.eq_ignore_ascii_case(device))
        {
            return Err(UnsafeName::Reserved);
        }
    }
    Ok(())
}

/// Names that open a device instead of a file on Windows, whatever their extension.
const DEVICES: [&str; 24] = [
    "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "COM1", "COM2", "COM3", "COM4", "COM5",
    "COM6", "COM7", "COM8", "COM9", "LPT1", "LPT2", "LPT3", "LPT4", "LPT5", "LPT6", "LPT7", "LPT8",
    "LPT9",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused_everywhere() {
        for platform in [Platform::Unix, Platform::Windows] {
            for name in ["", ".", "..", "a/b", "../a", "/etc", "a\0b"] {
                assert!(check(name, platform).is_err(), "{name:?}");
            }
            for name in ["a", "...", "..a", "a b", "\u{65e5}\u{672c}", ".hidden"] {
                let is_fine = platform == Platform::Unix || !name.ends_with('.');
                assert_eq!(check(name, platform).is_ok(), is_fine, "{name:?}");
            }
        }
    }

    #[test]
    fn windows_has_more_traps() {
        for name in [
            "a\\b",
            "..\\a",
            "C:x",
            "a:stream",
            "nul",
            "NUL.txt",
            "com1 .log",
            "a ",
            "a?",
        ] {
            assert!(check(name, Platform::Windows).is_err(), "{name:?}");
            assert!(check(name, Platform::Unix).is_ok(), "{name:?}");
        }
        assert!(check("console.txt", Platform::Windows).is_ok());
    }
}
