//! `kastro login` and `kastro logout`: keeps a session between commands, and forgets it.

use cryptree::{
    ClientError, Environment,
    client::{BoxingUpgrade, HomeIdentity, Session, Upkeep},
};
use rand_core::Rng;
use zeroize::Zeroizing;

use crate::{
    args::{Connection, LoginArgs, LogoutArgs},
    connect::{Missing, PASSWORD, Reached, default_place, named_place, sign_in},
    environment::TokioEnvironment,
    exit::{Class, Failure},
    human::printable,
    output::Output,
    password,
    session::{Kept, KeptKey, Place, SessionFiles},
};

/// Runs `login`.
///
/// # Errors
///
/// When name, password or code are wrong; a session kept before stays then.
pub async fn run(args: &LoginArgs, output: Output) -> Result<(), Failure> {
    let name = name_of(args.name.as_ref(), &args.connection)?;
    let place = named_place(&args.connection)?.unwrap_or_else(default_place);
    let reached = Reached::at(place, Missing::Fail).await?;
    let logged_in = log_in(args, &name, &reached, output).await;
    reached.close().await;
    logged_in
}

async fn log_in(
    args: &LoginArgs,
    name: &str,
    reached: &Reached,
    output: Output,
) -> Result<(), Failure> {
    let password = match password::given(PASSWORD, args.connection.password_file.as_deref())? {
        Some(password) => password,
        None => password::ask(&format!("Password of {name}: "), PASSWORD)?,
    };
    let session = sign_in(&reached.client, name, &password, output).await?;
    look_after(&session, output).await?;
    let session = with_new_keys(session, &password, output).await?;
    let files = SessionFiles::find(args.connection.session_dir.as_deref())?;
    keep(&session, &reached.place, &files)?;
    if output.json {
        output.json(&serde_json::json!({ "user": name }))?;
    }
    output.hint(&format!(
        "You are logged in as {name}; `kastro logout` forgets that."
    ));
    Ok(())
}

/// Renews the claim to the name before it expires or when the node has a new identity, and makes what the account lacks.
async fn look_after(session: &Session, output: Output) -> Result<(), Failure> {
    match session.upkeep().await {
        Ok(done) => tell(done, output),
        Err(error @ (ClientError::KeyChanged { .. } | ClientError::Misbehavior(_))) => {
            return Err(error.into());
        }
        // A claim is renewed a month before it expires, and an id of before leads to the present one.
        Err(error) => {
            let reason = match &error {
                ClientError::Refused { message, .. } if !message.is_empty() => printable(message),
                other => other.to_string(),
            };
            output.hint(&format!(
                "The claim to your user name was not looked after: {reason}. Nothing is lost; the next login tries again."
            ));
        }
    }
    Ok(())
}

fn tell(done: Upkeep, output: Output) {
    if done.renewed_claim {
        output.hint("The claim to your user name was renewed for two months.");
    }
    match done.home {
        HomeIdentity::Renewed => {
            output.hint("Your node has a new identity; the claim to your user name names it now.");
        }
        HomeIdentity::Unproven(reason) => output.hint(&format!(
            "Your node says that it has a new identity, and does not prove it: {reason}. The claim to your user name \
             stays as it is; tell the operator of the node."
        )),
        _ => {}
    }
}

/// Gives an account of earlier years the boxing key that new ones have, and returns the session to go on with.
async fn with_new_keys(
    session: Session,
    password: &str,
    output: Output,
) -> Result<Session, Failure> {
    match session.upgrade_boxing(password).await {
        Ok(BoxingUpgrade::Present) => Ok(session),
        Ok(BoxingUpgrade::Done(upgraded)) => {
            output.hint(
                "Your account has a new messaging key, which quantum computers do not open either. Who has compared \
                 safety numbers with you will see that it changed.",
            );
            Ok(upgraded)
        }
        Ok(BoxingUpgrade::RequestsPending(waiting)) => {
            output.hint(&format!(
                "Your account could have a messaging key that quantum computers do not open. Answer the {waiting} \
                 follow requests that wait first: only the present key opens them."
            ));
            Ok(session)
        }
        Err(error @ ClientError::Misbehavior(_)) => Err(error.into()),
        // The next login tries again.
        Err(error) => {
            output.hint(&format!("The messaging key was not renewed: {error}."));
            Ok(session)
        }
    }
}

/// Runs `logout`.
///
/// # Errors
///
/// When the files cannot be removed.
pub fn forget(args: &LogoutArgs, output: Output) -> Result<(), Failure> {
    let files = SessionFiles::find(args.session_dir.as_deref())?;
    let was_there = files.remove()?;
    if output.json {
        return output.json(&serde_json::json!({ "was_logged_in": was_there }));
    }
    output.hint(if was_there {
        "The session on this machine is forgotten."
    } else {
        "Nobody was logged in."
    });
    Ok(())
}

/// Keeps a session on this machine, under a new key.
///
/// # Errors
///
/// When the files cannot be written.
pub fn keep(session: &Session, place: &Place, files: &SessionFiles) -> Result<(), Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    TokioEnvironment.random().fill_bytes(bytes.as_mut_slice());
    let key = KeptKey(bytes);
    files.save(&Kept {
        place: place.clone(),
        user: session.username().to_owned(),
        sealed: session.save(&key.0),
        key,
    })
}

/// Returns the user name that was typed, in either of the two places for it.
///
/// # Errors
///
/// When there is none, or two different ones.
pub fn name_of(typed: Option<&String>, connection: &Connection) -> Result<String, Failure> {
    match (typed, &connection.user) {
        (Some(name), _) | (None, Some(name)) => Ok(name.clone()),
        (None, None) => Err(Failure::new(Class::Usage, "a user name is needed")
            .help("for example: kastro login alice")),
    }
}
