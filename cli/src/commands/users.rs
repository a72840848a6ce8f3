//! `kastro users`: the accounts of a node.

use node::operator::{
    removal::RemoveUser,
    users::{Home, ListUsers, ShowUser, UserDetails, UserSummary},
};

use crate::{
    args::{OperatorOptions, UserArgs, UserRemoveArgs, UsersArgs, UsersCommand},
    exit::Failure,
    human,
    operator::Operator,
    output::Output,
};

/// Runs the command.
///
/// # Errors
///
/// When the node cannot be reached, or refuses.
pub async fn run(args: &UsersArgs, output: Output) -> Result<(), Failure> {
    match &args.command {
        UsersCommand::List(args) => list(&args.node, output).await,
        UsersCommand::Show(args) => show(args, output).await,
        UsersCommand::Remove(args) => remove(args, output).await,
    }
}

async fn remove(args: &UserRemoveArgs, output: Output) -> Result<(), Failure> {
    let operator = Operator::reach(&args.node).await?;
    let operation = RemoveUser {
        name: args.name.clone(),
        force: args.force,
    };
    let removed = operator.ask_for(operation, output).await;
    operator.close().await;
    let removed = removed?;
    if output.json {
        return output.json(&removed);
    }
    output.line(&format!(
        "removed {}: {} blocks, {}",
        human::printable(&removed.name),
        removed.blocks,
        human::size(removed.bytes)
    ))
}

async fn list(options: &OperatorOptions, output: Output) -> Result<(), Failure> {
    let operator = Operator::reach(options).await?;
    if !output.json {
        output.hint(&format!(
            "{:>10}  {:>10}  {:>10}  {:<10}  NAME",
            "USED", "PENDING", "QUOTA", "HOME"
        ));
    }
    let listed = operator
        .run(ListUsers {}, output.without_progress_lines(), |item| {
            if output.json {
                return output.json(&item);
            }
            output.line(&line(&crate::operator::item(item)?))
        })
        .await;
    operator.close().await;
    let listed = listed?;
    output.hint(&format!(
        "{} accounts, {} used",
        listed.users,
        human::size(listed.used_bytes)
    ));
    Ok(())
}

fn line(user: &UserSummary) -> String {
    format!(
        "{:>10}  {:>10}  {:>10}  {:<10}  {}{}",
        human::size(user.used_bytes),
        human::size(user.pending_bytes),
        quota(user.quota_bytes),
        home(user.home),
        human::printable(&user.name),
        if user.is_admin {
            "  (administrator)"
        } else {
            ""
        }
    )
}

async fn show(args: &UserArgs, output: Output) -> Result<(), Failure> {
    let operator = Operator::reach(&args.node).await?;
    let operation = ShowUser {
        name: args.name.clone(),
    };
    let details = operator.ask_for(operation, output).await;
    operator.close().await;
    let details = details?;
    if output.json {
        return output.json(&details);
    }
    output.line(&page(&details))
}

fn page(user: &UserDetails) -> String {
    let summary = &user.summary;
    let mut rows = vec![
        ("name", human::printable(&summary.name)),
        ("home", home(summary.home).to_owned()),
        (
            "space",
            format!(
                "{} used of {}, {} pending",
                human::size(summary.used_bytes),
                quota(summary.quota_bytes),
                human::size(summary.pending_bytes)
            ),
        ),
        (
            "stored",
            format!(
                "{} in {} blocks",
                human::size(user.block_bytes),
                user.blocks
            ),
        ),
    ];
    if let Some(identity) = &user.identity {
        rows.push(("identity", identity.clone()));
    }
    if let Some(expires) = &user.claim_expires {
        rows.push(("claim until", expires.clone()));
    }
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    rows.push(("administrator", yes(summary.is_admin)));
    rows.push(("login data", yes(user.can_log_in)));
    rows.push(("second factors", user.second_factors.to_string()));
    rows.push(("mirror tokens", user.mirror_tokens.to_string()));
    rows.push(("follow requests", user.follow_requests.to_string()));
    let mut text = String::new();
    for (name, value) in rows {
        text.push_str(&format!("{name:<15}  {value}\n"));
    }
    for (index, writer) in user.writing_keys.iter().enumerate() {
        let name = if index == 0 { "writers" } else { "" };
        let state = match (writer.is_detached, writer.sequence) {
            (true, _) => "no longer owned".to_owned(),
            (false, Some(sequence)) => format!("update {sequence}"),
            (false, None) => "nothing written".to_owned(),
        };
        text.push_str(&format!(
            "{name:<15}  {}  {:>10}  {state}\n",
            writer.key,
            human::size(writer.bytes)
        ));
    }
    text.truncate(text.trim_end().len());
    text
}

/// Returns a quota for people.
pub(crate) fn quota(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "none".to_owned(), human::size)
}

const fn home(home: Home) -> &'static str {
    match home {
        Home::Here => "here",
        Home::Elsewhere => "elsewhere",
        Home::Removed => "removed",
        Home::BeingRemoved => "removing",
        Home::Unclaimed => "unclaimed",
    }
}
