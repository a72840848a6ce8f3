//! `kastro passwd`: changes the password. At every moment either the old or the new one logs in.

use cryptree::{Environment, login::passphrase};

use crate::{
    args::PasswdArgs,
    connect::{Connected, PASSWORD, connect},
    environment::TokioEnvironment,
    exit::Failure,
    output::Output,
    password, strength,
};

/// Runs the command.
///
/// # Errors
///
/// When the present password is wrong or the new one is not allowed; nothing has changed then.
pub async fn run(args: &PasswdArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let changed = change(args, &connected, output).await;
    connected.close().await;
    changed
}

async fn change(args: &PasswdArgs, connected: &Connected, output: Output) -> Result<(), Failure> {
    let given = password::given(PASSWORD, args.connection.password_file.as_deref())?;
    let present = match given {
        Some(password) => password,
        None => password::ask("Present password: ", PASSWORD)?,
    };
    let given = if args.generate {
        None
    } else {
        password::given(NEW_PASSWORD, args.new_password_file.as_deref())?
    };
    let suggestion = passphrase(&mut *TokioEnvironment.random());
    let new = match given {
        Some(password) => password,
        None if args.generate => suggestion.clone(),
        None => password::ask_new(&suggestion, NEW_PASSWORD)?,
    };
    strength::check(connected.user(), &new, args.allow_weak_password, output)?;
    connected.session.change_password(&present, &new).await?;
    if output.json {
        let mut result = serde_json::json!({ "user": connected.user() });
        if args.generate
            && let Some(result) = result.as_object_mut()
        {
            result.insert("passphrase".to_owned(), new.as_str().into());
        }
        output.json(&result)?;
    } else if args.generate {
        output.line(&new)?;
    }
    output.hint("The password is changed. The old one stopped working everywhere.");
    Ok(())
}

/// The environment variable with the new password.
const NEW_PASSWORD: &str = "KASTRO_NEW_PASSWORD";
