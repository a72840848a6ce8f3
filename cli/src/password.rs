//! Where passwords come from: the environment, a file, or a prompt without echo. Never an argument.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    path::Path,
};

use zeroize::Zeroizing;

use crate::{
    exit::{Class, Failure},
    secrets,
};

/// A password; wiped from memory when dropped.
pub type Password = Zeroizing<String>;

/// Returns the password given in the environment variable or the file, `None` if there is neither.
///
/// # Errors
///
/// When the file cannot be read, or holds no text.
pub fn given(variable: &str, file: Option<&Path>) -> Result<Option<Password>, Failure> {
    if let Some(file) = file {
        return read_file(file).map(Some);
    }
    secrets::variable(variable)
}

/// Asks for a password without echo.
///
/// # Errors
///
/// When there is nobody to ask.
pub fn ask(prompt: &str, variable: &str) -> Result<Password, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            Class::NoSession,
            "a password is needed and there is no terminal to ask at",
        )
        .help(format!(
            "set {variable}, use --password-file, or run `kastro login` first"
        )));
    }
    remember_terminal();
    tokio::task::block_in_place(|| rpassword::prompt_password(prompt))
        .map(Zeroizing::new)
        .map_err(|error| Failure::new(Class::Local, format!("cannot read the password: {error}")))
}

/// Asks for a new password twice, or offers `suggestion`, which an empty answer takes.
///
/// # Errors
///
/// When there is nobody to ask, or the two answers differ.
pub fn ask_new(suggestion: &str, variable: &str) -> Result<Password, Failure> {
    if io::stdin().is_terminal() {
        let mut stderr = io::stderr().lock();
        let _ = writeln!(
            stderr,
            "Suggested passphrase:\n\n    {suggestion}\n\nIt is the only key to your files and nobody can reset \
             it: write it down now.\nPress Enter to use it, or type a password of your own."
        );
    }
    let typed = ask("Password: ", variable)?;
    if typed.is_empty() {
        return Ok(Zeroizing::new(suggestion.to_owned()));
    }
    let again = ask("The same again: ", variable)?;
    if *typed != *again {
        return Err(
            Failure::new(Class::Usage, "the two passwords are not the same")
                .help("run the command again"),
        );
    }
    Ok(typed)
}

/// Remembers how the terminal is set before its echo is turned off.
fn remember_terminal() {
    #[cfg(unix)]
    if let Ok(settings) = rustix::termios::tcgetattr(io::stdin()) {
        let _ = TERMINAL.set(settings);
    }
}

/// Turns the echo on again if a prompt was interrupted.
pub fn restore_terminal() {
    #[cfg(unix)]
    if let Some(settings) = TERMINAL.get() {
        let when = rustix::termios::OptionalActions::Now;
        let _ = rustix::termios::tcsetattr(io::stdin(), when, settings);
    }
}

#[cfg(unix)]
static TERMINAL: std::sync::OnceLock<rustix::termios::Termios> = std::sync::OnceLock::new();

fn read_file(path: &Path) -> Result<Password, Failure> {
    let input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|error| Failure::local("read", path, &error))?)
    };
    let mut line = Zeroizing::new(String::new());
    BufReader::new(input.take(MAX_PASSWORD_BYTES))
        .read_line(&mut line)
        .map_err(|error| Failure::local("read", path, &error))?;
    let password = Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned());
    if password.is_empty() {
        return Err(Failure::new(
            Class::Local,
            format!("the first line of {} is empty", path.display()),
        ));
    }
    Ok(password)
}

/// Longest first line of a password file.
const MAX_PASSWORD_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_file_is_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pw");
        std::fs::write(&path, "  correct horse \r\nsecond line\n").unwrap();
        assert_eq!(
            given("KASTRO_TEST_UNSET", Some(&path))
                .unwrap()
                .unwrap()
                .as_str(),
            "  correct horse "
        );
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(
            given("KASTRO_TEST_UNSET", Some(&path)).unwrap_err().class,
            Class::Local
        );
        assert!(given("KASTRO_TEST_UNSET", None).unwrap().is_none());
    }
}
