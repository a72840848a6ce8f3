//! `kastro signup`: creates an account, offering a passphrase that nobody can guess.

use cryptree::{ClientError, Environment, login::passphrase};

use crate::{
    args::SignupArgs,
    commands::login::{keep, name_of},
    connect::{Missing, PASSWORD, Reached, default_place, named_place},
    environment::TokioEnvironment,
    exit::Failure,
    output::Output,
    password,
    session::SessionFiles,
    strength,
};

/// Runs the command.
///
/// # Errors
///
/// When the name is taken or not allowed, or the node refuses. No account exists then.
pub async fn run(args: &SignupArgs, output: Output) -> Result<(), Failure> {
    let name = name_of(args.name.as_ref(), &args.connection)?;
    let place = named_place(&args.connection)?.unwrap_or_else(default_place);
    let reached = Reached::at(place, Missing::Make).await?;
    let signed_up = sign_up(args, &name, &reached, output).await;
    reached.close().await;
    signed_up
}

async fn sign_up(
    args: &SignupArgs,
    name: &str,
    reached: &Reached,
    output: Output,
) -> Result<(), Failure> {
    let given = if args.generate {
        None
    } else {
        password::given(PASSWORD, args.connection.password_file.as_deref())?
    };
    let suggestion = passphrase(&mut *TokioEnvironment.random());
    let password = match given {
        Some(password) => password,
        None if args.generate => suggestion.clone(),
        None => password::ask_new(&suggestion, PASSWORD)?,
    };
    strength::check(name, &password, args.allow_weak_password, output)?;
    let token = match args.token.clone() {
        Some(token) => token.into(),
        None => crate::secrets::variable("KASTRO_SIGNUP_TOKEN")?.unwrap_or_default(),
    };
    let signed_up = reached.client.sign_up(name, &password, &token).await;
    // Nobody else knows a passphrase that was made here: it is told as soon as there may be an account.
    if signed_up.is_ok() || (args.generate && signed_up.as_ref().is_err_and(may_be_made)) {
        tell(name, args.generate.then_some(password.as_str()), output)?;
    }
    let session = match signed_up {
        Ok(session) => session,
        Err(error) if may_be_made(&error) => {
            return Err(Failure::from(error).help(format!(
                "it is not known yet whether there is an account {name}. A node that waits for the name authority asks it \
                 again each minute: try `kastro login {name}` in a while, with this password"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    output.hint(&format!(
        "The account {name} is ready. Its folder is /{name}."
    ));
    if args.generate {
        output.hint("The line above is its passphrase, the only key to its files: write it down.");
    }
    if !args.no_session {
        let files = SessionFiles::find(args.connection.session_dir.as_deref())?;
        keep(&session, &reached.place, &files)?;
        output.hint("You are logged in on this machine; `kastro logout` forgets that.");
    }
    Ok(())
}

fn tell(name: &str, passphrase: Option<&str>, output: Output) -> Result<(), Failure> {
    if !output.json {
        return passphrase.map_or(Ok(()), |passphrase| output.line(passphrase));
    }
    let mut result = serde_json::json!({ "user": name });
    if let (Some(passphrase), Some(result)) = (passphrase, result.as_object_mut()) {
        result.insert("passphrase".to_owned(), passphrase.into());
    }
    output.json(&result)
}

/// Returns true when a sign-up that failed may have made the account, or may still make it.
fn may_be_made(error: &ClientError) -> bool {
    match error {
        ClientError::Refused {
            status, message, ..
        } => *status >= 500 || message.contains("name authority cannot be reached"),
        ClientError::NotAsked(_)
        | ClientError::IllegalUsername { .. }
        | ClientError::WeakPassword { .. }
        | ClientError::NameTaken { .. }
        | ClientError::SignupRefused { .. }
        | ClientError::TooMuchWork { .. }
        | ClientError::RateLimited { .. }
        | ClientError::QuotaReached { .. }
        | ClientError::WrongServer { .. } => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_told_when_there_may_be_an_account() {
        let refused = |status, message: &str| ClientError::Refused {
            call: "peergos/v0/core/signup".to_owned(),
            status,
            message: message.to_owned(),
        };
        let name = || "alice".to_owned();
        assert!(may_be_made(&refused(
            400,
            "The name authority cannot be reached, please try again later"
        )));
        assert!(may_be_made(&refused(500, "")));
        // The same before anything was sent.
        for before in [
            refused(
                400,
                "The name authority cannot be reached, please try again later",
            ),
            ClientError::Network(cryptree::TransportError::TimedOut),
        ] {
            assert!(!may_be_made(&ClientError::NotAsked(Box::new(before))));
        }
        assert!(may_be_made(&ClientError::Network(
            cryptree::TransportError::TimedOut
        )));
        assert!(may_be_made(&ClientError::WrongCredentials));
        assert!(!may_be_made(&refused(400, "Invalid username")));
        // Another one may be made, with another passphrase.
        assert!(!may_be_made(&refused(
            400,
            "Another sign-up with this name is waiting for the name authority"
        )));
        assert!(!may_be_made(&ClientError::NameTaken { name: name() }));
        assert!(!may_be_made(&ClientError::IllegalUsername { name: name() }));
    }
}
