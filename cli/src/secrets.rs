//! Secrets in environment variables, taken out of the process environment before anything else happens.
//!
//! What a process was started with stays readable in `/proc/PID/environ` for its whole life, and every child
//! inherits it. So a process that finds a secret there starts itself again without it, in the same process, and
//! hands the secret over in a pipe (Spec: 40 SC-6). Where that is impossible the secret is used from where it is.

use std::{ffi::OsString, sync::OnceLock};

use zeroize::Zeroizing;

use crate::exit::{Class, Failure};

/// Variables whose value is a secret.
pub const SECRET_VARIABLES: [&str; 6] = [
    "KASTRO_PASSWORD",
    "KASTRO_NEW_PASSWORD",
    "KASTRO_SIGNUP_TOKEN",
    "KASTRO_SIGNUP_TOKENS",
    "KASTRO_INSTANCE_BAT",
    "KASTRO_METADATA",
];
/// Tells the new program which descriptor the secrets can be read from.
pub const DESCRIPTOR_VARIABLE: &str = "KASTRO_SECRETS_FD";
/// Most bytes of all secrets: what a pipe holds without a reader.
#[cfg(unix)]
const MAX_BYTES: usize = 60 << 10;

/// A variable and its value.
type Secret = (String, Zeroizing<String>);

static SECRETS: OnceLock<Vec<Secret>> = OnceLock::new();

/// Takes the secrets out of the environment. To be called first, before there are threads or open files.
///
/// Does not return in the process that found some: the same process goes on as a new one without them.
pub fn take() {
    #[cfg(unix)]
    {
        if let Some(received) = unix::receive() {
            let _ = SECRETS.set(received);
            return;
        }
        let found: Vec<Secret> = SECRET_VARIABLES
            .iter()
            .filter_map(|name| {
                Some((
                    (*name).to_owned(),
                    Zeroizing::new(std::env::var(name).ok()?),
                ))
            })
            .collect();
        if !found.is_empty() {
            // Only on failure does this return: then the variables stay where they are.
            let _ = unix::start_again(&found);
        }
    }
}

/// Returns a variable of the environment, or the secret that was taken out of it; `None` for an empty one.
///
/// # Errors
///
/// `Usage` when the value is not text.
pub fn variable(name: &str) -> Result<Option<Zeroizing<String>>, Failure> {
    let taken = SECRETS.get().into_iter().flatten();
    if let Some((_, value)) = taken.into_iter().find(|(known, _)| known == name) {
        return Ok(Some(value.clone()).filter(|value| !value.is_empty()));
    }
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(Some(Zeroizing::new(value))),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Failure::new(
            Class::Usage,
            format!("the environment variable {name} is not text"),
        )),
    }
}

/// Returns a variable of the environment that is no secret.
#[must_use]
pub fn variable_os(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(unix)]
mod unix {
    use std::{
        fs::File,
        io::{self, Read, Write},
        os::{fd::AsRawFd as _, unix::process::CommandExt as _},
        process::Command,
    };

    use zeroize::Zeroizing;

    use super::{DESCRIPTOR_VARIABLE, MAX_BYTES, SECRET_VARIABLES, Secret};

    /// Starts this program again in this process, without the secrets in its environment.
    pub(super) fn start_again(secrets: &[Secret]) -> io::Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES));
        for (name, value) in secrets {
            if text.len() + name.len() + value.len() + 2 > MAX_BYTES || value.contains('\0') {
                return Err(io::Error::other("secrets too long"));
            }
            text.push_str(name);
            text.push('=');
            text.push_str(value);
            text.push('\0');
        }
        let program = std::env::current_exe()?;
        let (reader, mut writer) = io::pipe()?;
        // The pipe holds all of it, so this waits for nobody.
        writer.write_all(text.as_bytes())?;
        drop(writer);
        rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty())?;
        let mut arguments = std::env::args_os();
        let mut command = Command::new(program);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command.args(arguments);
        for name in SECRET_VARIABLES {
            command.env_remove(name);
        }
        command.env(DESCRIPTOR_VARIABLE, reader.as_raw_fd().to_string());
        Err(command.exec())
    }

    /// Reads what this program handed to itself.
    pub(super) fn receive() -> Option<Vec<Secret>> {
        let descriptor: u32 = std::env::var(DESCRIPTOR_VARIABLE).ok()?.parse().ok()?;
        let pipe = File::open(format!("/dev/fd/{descriptor}")).ok()?;
        let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES));
        pipe.take(MAX_BYTES as u64).read_to_string(&mut text).ok()?;
        let secrets = text
            .split_terminator('\0')
            .filter_map(|pair| pair.split_once('='))
            .filter(|(name, _)| SECRET_VARIABLES.contains(name))
            .map(|(name, value)| (name.to_owned(), Zeroizing::new(value.to_owned())))
            .collect();
        Some(secrets)
    }
}
