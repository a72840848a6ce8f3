//! `kastro signup`: creates an account, offering a passphrase that nobody can guess.

use cryptree::{Environment, login::passphrase};

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
    let session = reached.client.sign_up(name, &password, &token).await?;
    if output.json {
        let mut result = serde_json::json!({ "user": name });
        if args.generate
            && let Some(result) = result.as_object_mut()
        {
            result.insert("passphrase".to_owned(), password.as_str().into());
        }
        output.json(&result)?;
    } else if args.generate {
        output.line(&password)?;
    }
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
