//! `kastro messages`: the mailbox between operator and user.

use std::io::Read;

use node::operator::messages::{ListMessages, Message, SendMessage};

use super::space_requests::moment;
use crate::{
    args::{MessageSendArgs, MessagesArgs, MessagesCommand},
    exit::{Class, Failure},
    human,
    operator::{Operator, item},
    output::Output,
};

/// Longest text read from standard input: more than any message may have.
const MAX_TEXT_BYTES: u64 = 64 << 10;

/// Runs the command.
///
/// # Errors
///
/// When the node cannot be reached, or refuses.
pub async fn run(args: &MessagesArgs, output: Output) -> Result<(), Failure> {
    let operator = Operator::reach(match &args.command {
        MessagesCommand::List(args) => &args.node,
        MessagesCommand::Send(args) => &args.node,
    })
    .await?;
    let done = match &args.command {
        MessagesCommand::List(args) => list(&operator, &args.name, output).await,
        MessagesCommand::Send(args) => send(&operator, args, output).await,
    };
    operator.close().await;
    done
}

async fn send(operator: &Operator, args: &MessageSendArgs, output: Output) -> Result<(), Failure> {
    let text = match args.text.as_str() {
        "-" => standard_input()?,
        text => text.to_owned(),
    };
    let operation = SendMessage {
        name: args.name.clone(),
        text,
        reply_to: args.reply_to,
    };
    let sent = operator.ask_for(operation, output).await?;
    if output.json {
        return output.json(&sent);
    }
    output.line(&format!("message {} waits for {}", sent.id, args.name))
}

fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(MAX_TEXT_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| {
            Failure::new(Class::Local, format!("cannot read standard input: {error}"))
        })?;
    Ok(text.trim_end().to_owned())
}

async fn list(operator: &Operator, name: &str, output: Output) -> Result<(), Failure> {
    let operation = ListMessages {
        name: name.to_owned(),
    };
    let listed = operator
        .run(operation, output, |value| {
            if output.json {
                return output.json(&value);
            }
            let message: Message = item(value)?;
            let who = if message.is_from_user { name } else { "you" };
            let mut notes = String::new();
            if let Some(answered) = message.reply_to {
                notes.push_str(&format!(" to {answered}"));
            }
            if message.is_dismissed {
                notes.push_str(", dismissed");
            }
            output.line(&format!(
                "{:>4}  {}  {who}{notes}: {}",
                message.id,
                human::time(moment(message.sent_epoch_millis)),
                human::printable(&message.text)
            ))
        })
        .await?;
    if listed.messages == 0 {
        output.hint("No messages.");
    }
    Ok(())
}
