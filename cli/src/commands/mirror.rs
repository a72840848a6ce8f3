//! `kastro mirror`: copies of accounts at nodes that cannot read them.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cryptree::client::Client;
use node::operator::mirror::{
    AddMirror, ListMirrors, MirrorNode, MirrorShown, RemoveMirror, RunMirrors,
};
use zeroize::Zeroizing;

use crate::{
    args::{MirrorAllowArgs, MirrorArgs, MirrorCommand},
    connect::{PASSWORD, connect},
    environment::TokioEnvironment,
    exit::{Class, Failure},
    human,
    operator::{Operator, item},
    output::Output,
    password,
    transport::HttpTransport,
};

/// Runs the command.
///
/// # Errors
///
/// When a node cannot be reached, or refuses.
pub async fn run(args: &MirrorArgs, output: Output) -> Result<(), Failure> {
    let options = match &args.command {
        MirrorCommand::Allow(args) => return allow(args, output).await,
        MirrorCommand::Add(args) => &args.node,
        MirrorCommand::Rm(args) => &args.node,
        MirrorCommand::Status(args) | MirrorCommand::Run(args) => &args.node,
        MirrorCommand::Node(args) => &args.node,
    };
    let operator = Operator::reach(options).await?;
    let done = with(&operator, &args.command, output).await;
    operator.close().await;
    done
}

async fn with(operator: &Operator, command: &MirrorCommand, output: Output) -> Result<(), Failure> {
    match command {
        MirrorCommand::Allow(_) => Ok(()),
        MirrorCommand::Add(args) => {
            let token = args.token_file.as_deref().map(first_line).transpose()?;
            let operation = AddMirror {
                user: args.user.clone(),
                from: args.from.clone(),
                quota_bytes: args.quota,
                token: token.map(|token| token.to_string()),
            };
            let shown = operator.ask_for(operation, output).await?;
            copy(&shown, output)?;
            if !shown.is_allowed {
                output.hint(
                    "Waits for the user's permission: `kastro mirror allow URL-OF-THIS-NODE`.",
                );
            }
            Ok(())
        }
        MirrorCommand::Rm(args) => {
            let operation = RemoveMirror {
                user: args.user.clone(),
            };
            let removed = operator.ask_for(operation, output).await?;
            if output.json {
                return output.json(&removed);
            }
            output.line(&format!(
                "{}: {} in {} blocks removed",
                human::printable(&removed.name),
                human::size(removed.bytes),
                removed.blocks
            ))
        }
        MirrorCommand::Status(_) => list(operator, output).await,
        MirrorCommand::Run(_) => {
            let run = operator.ask_for(RunMirrors::default(), output).await?;
            if output.json {
                output.json(&run)?;
            } else {
                output.line(&format!(
                    "{} in step, {} failed; fetched {} in {} blocks",
                    run.in_step,
                    run.failed,
                    human::size(run.bytes),
                    run.blocks
                ))?;
            }
            match run.failed {
                0 => Ok(()),
                failed => Err(Failure::new(Class::Other, not_in_step(failed))
                    .help("`kastro mirror status` says why")),
            }
        }
        MirrorCommand::Node(args) => {
            let token = args.token_file.as_deref().map(first_line).transpose()?;
            let operation = MirrorNode {
                from: args.from.clone().filter(|_| !args.end),
                token: token.map(|token| token.to_string()).unwrap_or_default(),
                quota_bytes: args.quota,
            };
            operator.run(operation, output, |_| Ok(())).await?;
            list(operator, output).await
        }
    }
}

async fn list(operator: &Operator, output: Output) -> Result<(), Failure> {
    let mut late = 0;
    let listed = operator
        .run(ListMirrors::default(), output, |value| {
            let shown: MirrorShown = item(value)?;
            late += u64::from(shown.error.is_some());
            copy(&shown, output)
        })
        .await?;
    if output.json {
        output.json(&listed)?;
    } else {
        if let Some(node) = &listed.node {
            let state = match (&node.error, node.in_step_seconds) {
                (Some(error), _) => format!("failed: {error}"),
                (None, Some(seconds)) => format!("in step {}", human::time(at(seconds))),
                (None, None) => "not copied yet".to_owned(),
            };
            output.line(&format!(
                "all of {}: {} users, {state}",
                node.node, node.users
            ))?;
        }
        if listed.copies == 0 {
            output.hint("No copies. `kastro mirror add USER` makes room for one.");
        }
    }
    match late {
        0 => Ok(()),
        late => Err(Failure::new(Class::Other, not_in_step(late))),
    }
}

fn not_in_step(copies: u64) -> String {
    match copies {
        1 => "one copy is not in step".to_owned(),
        copies => format!("{copies} copies are not in step"),
    }
}

fn copy(shown: &MirrorShown, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(shown);
    }
    let state = match (&shown.error, shown.in_step_seconds) {
        _ if shown.moving.is_some() => {
            format!("moving {}", shown.moving.as_deref().unwrap_or_default())
        }
        _ if !shown.is_allowed => "waits for the user's permission".to_owned(),
        (Some(error), Some(seconds)) => {
            format!(
                "failing, last in step {}: {error}",
                human::time(at(seconds))
            )
        }
        (Some(error), None) => format!("failing: {error}"),
        (None, Some(seconds)) => format!("in step {}", human::time(at(seconds))),
        (None, None) => "not copied yet".to_owned(),
    };
    let is_full = |error: &String| error.contains("space for this copy is full");
    let is_disk_full = |error: &String| error.contains("disk full");
    let login = match shown.can_log_in {
        true => "",
        false => "; no login data: it cannot be restored by password",
    };
    output.line(&format!(
        "{}: {} of {}, {state}{login}",
        human::printable(&shown.user),
        human::size(shown.used_bytes),
        human::size(shown.quota_bytes)
    ))?;
    if let (Some(from), Some(_)) = (&shown.from, &shown.error)
        && *from != shown.home
    {
        output.hint(&format!(
            "It is copied from {from}, as `--from` said; `kastro mirror add {}` copies from the present home.",
            human::printable(&shown.user)
        ));
    }
    if shown.error.as_ref().is_some_and(is_full) {
        output.hint(&format!(
            "What fitted is kept; `kastro mirror add {} --quota SIZE` gives the copy more space.",
            human::printable(&shown.user)
        ));
    }
    if shown.error.as_ref().is_some_and(is_disk_full) {
        output.hint(
            "The disk of this node is full: what was copied is kept, the rest follows by itself once there is room.",
        );
    }
    Ok(())
}

fn first_line(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let text =
        std::fs::read_to_string(file).map_err(|error| Failure::local("read", file, &error))?;
    let text = Zeroizing::new(text);
    Ok(Zeroizing::new(
        text.lines().next().unwrap_or_default().trim().to_owned(),
    ))
}

async fn allow(args: &MirrorAllowArgs, output: Output) -> Result<(), Failure> {
    let transport = HttpTransport::new(&args.at)?;
    transport
        .probe()
        .await
        .map_err(|error| not_there(args, error))?;
    let mirror = Client::new(Arc::new(transport), Arc::new(TokioEnvironment));
    let connected = connect(&args.connection, output).await?;
    let done = async {
        let given = password::given(PASSWORD, args.connection.password_file.as_deref())?;
        let password = match given {
            Some(password) => password,
            None => password::ask("Password: ", PASSWORD)?,
        };
        connected.session.allow_mirror(&mirror, &password).await?;
        Ok::<_, Failure>(())
    }
    .await;
    let user = connected.user().to_owned();
    connected.close().await;
    done?;
    if output.json {
        return output.json(&serde_json::json!({ "user": user, "at": args.at }));
    }
    output.line(&format!("{} may keep a copy of {user}", args.at))?;
    output.hint("It can read none of it. After a new password run this again.");
    Ok(())
}

/// Says of the node that is to keep the copy what is said of one's own otherwise.
fn not_there(args: &MirrorAllowArgs, error: Failure) -> Failure {
    let help = match error.class {
        Class::WrongServer => {
            "is this the address of the node that is to keep the copy? A node also refuses host names that it was not told \
             (--public-host)"
        }
        _ => {
            "is the node that is to keep the copy running, and is this its address? Nothing was asked of your own node"
        }
    };
    let message = match error.message.contains(&args.at) {
        true => error.message,
        false => format!("{}: {}", args.at, error.message),
    };
    Failure::new(error.class, message).help(help)
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
