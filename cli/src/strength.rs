//! How easily a new password is guessed (Spec: 40, PGS-01-009): the one place that every command asks that sets one.
//!
//! The encrypted login data of an account can be fetched by whoever controls its node, and then be tried offline with lists
//! of common passwords. The estimate is that of `zxcvbn`, which carries some 30,000 of them. Passwords that are no secret
//! at all are refused, guessable ones are warned of: scripts and test accounts use them on purpose.

use zxcvbn::{Score, feedback::Warning, zxcvbn};

use crate::{
    exit::{Class, Failure},
    output::Output,
};

/// Fewest characters of a password.
const MIN_CHARS: usize = 4;
/// Longest password, in bytes: hashing it is work for the person's own machine alone, but not for nothing.
const MAX_BYTES: usize = 1024;

/// What is to be said of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// Guessed after so many tries, by the estimate; why, where that is known.
    Guessable(String),
    Refused(String),
}

/// Judges a new password before anything is sent: refuses it, warns of it, or says nothing.
///
/// # Errors
///
/// `NotAllowed` for one that is too short or too long, unless `allow_weak`.
pub fn check(name: &str, password: &str, allow_weak: bool, output: Output) -> Result<(), Failure> {
    if allow_weak {
        return Ok(());
    }
    match judge(name, password) {
        Verdict::Fine => Ok(()),
        Verdict::Guessable(why) => {
            output.hint(&format!(
                "This password is easily guessed{why}; --generate makes one that is not."
            ));
            Ok(())
        }
        Verdict::Refused(why) => Err(Failure::new(
            Class::NotAllowed,
            format!("this password is not allowed: {why}"),
        )
        .help("--generate makes a good one; --allow-weak-password takes this one all the same")),
    }
}

fn judge(name: &str, password: &str) -> Verdict {
    if password.len() > MAX_BYTES {
        return Verdict::Refused(format!("it is longer than {MAX_BYTES} bytes"));
    }
    if password.chars().count() < MIN_CHARS {
        return Verdict::Refused(format!("it has fewer than {MIN_CHARS} characters"));
    }
    let estimate = zxcvbn(password, &[name, "kastro"]);
    // Three: safe for a while against somebody who has the encrypted login data, given the slow hash in between.
    if estimate.score() >= Score::Three {
        return Verdict::Fine;
    }
    let warning = estimate.feedback().and_then(|feedback| feedback.warning());
    Verdict::Guessable(match warning {
        Some(
            Warning::ThisIsATop10Password
            | Warning::ThisIsATop100Password
            | Warning::ThisIsACommonPassword
            | Warning::ThisIsSimilarToACommonlyUsedPassword,
        ) => " (it is on every list of common ones)".to_owned(),
        _ => String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Output = Output {
        json: false,
        quiet: true,
    };

    #[test]
    fn pgs_01_009_one_function_judges_every_new_password() {
        for refused in ["", "1", "abc", "\u{e9}\u{e9}\u{e9}", &"a".repeat(1 << 20)] {
            assert!(
                matches!(judge("alice", refused), Verdict::Refused(_)),
                "{refused:.20}"
            );
            let failure = check("alice", refused, false, QUIET).unwrap_err();
            assert_eq!(failure.class, Class::NotAllowed);
            assert!(failure.help.unwrap().contains("--allow-weak-password"));
            assert!(check("alice", refused, true, QUIET).is_ok());
        }
        let repeated = "a".repeat(60);
        for weak in [
            "test",
            "password",
            "qwerty123",
            "P@ssw0rd",
            "letmein",
            "1234567890",
            "alice2024",
            "kastro1",
            &repeated,
        ] {
            assert!(
                matches!(judge("alice", weak), Verdict::Guessable(_)),
                "{weak}"
            );
            assert!(check("alice", weak, false, QUIET).is_ok());
        }
        for fine in [
            "correct horse battery staple",
            "x7!Kq9-vT2m",
            "moth lantern 81 gravel",
        ] {
            assert_eq!(judge("alice", fine), Verdict::Fine, "{fine}");
        }
    }

    #[test]
    fn common_passwords_are_called_that() {
        for common in ["password", "qwerty123", "letmein", "dragon"] {
            let Verdict::Guessable(why) = judge("alice", common) else {
                panic!("{common}")
            };
            assert!(why.contains("common"), "{common}: {why}");
        }
    }
}
