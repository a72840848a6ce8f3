//! Every failure of the client as a sentence, what to do next, and an exit code: the one place that decides.

use cryptree::{ClientError, Misbehavior, TransportError, client::NEW_PASSWORD};

use crate::{
    exit::{Class, Failure},
    transport::OFFLINE,
};

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let (class, help) = advice(&error);
        let failure = Self::new(class, sentence(&error));
        match help {
            "" => failure,
            help => failure.help(help),
        }
    }
}

/// Returns the message with its causes behind it.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    let mut depth = 0;
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
        depth += 1;
        if depth == MAX_CAUSES {
            break;
        }
    }
    text
}

fn advice(error: &ClientError) -> (Class, &'static str) {
    use ClientError as E;
    match error {
        E::NotAsked(error) => advice(error),
        E::IllegalName { .. } => (
            Class::NotAllowed,
            "a name has 1 to 255 bytes, no `/`, and is neither `.` nor `..`",
        ),
        E::IllegalPath { .. } => (
            Class::NotAllowed,
            "a path starts with a user name: /alice/docs",
        ),
        E::IllegalUsername { .. } => (
            Class::NotAllowed,
            "use 1 to 32 lower case letters and digits, with single `-` between them",
        ),
        E::WeakPassword { .. } => (
            Class::NotAllowed,
            "choose another, or let `--generate` make one",
        ),
        E::Exists { .. } => (
            Class::Exists,
            "choose another name, or remove what is there first",
        ),
        E::NotFound { .. } => (Class::NotFound, "`kastro ls` shows what is there"),
        E::NotADirectory { .. } => (Class::Exists, ""),
        E::IsADirectory { .. } => (Class::Exists, "folders need --recursive, or `kastro get`"),
        E::IntoItself { .. } => (Class::Exists, ""),
        E::CannotRead { .. } => (
            Class::Damaged,
            "nothing was changed; ask the node's operator for a check, or restore from a mirror",
        ),
        E::ReadOnly { .. } => (Class::ReadOnly, ""),
        E::SourceChanged { .. } => (
            Class::Conflict,
            "run the command again when nothing writes to it",
        ),
        E::Local(_) => (Class::Local, ""),
        E::QuotaReached { .. } => (
            Class::NoSpace,
            "remove something, or ask the node's operator for more; `kastro space` shows the limit. What was \
             uploaded before stays; run the command again to continue",
        ),
        E::Conflict => (Class::Conflict, "run the command again"),
        E::ChangedElsewhere { .. } => (
            Class::Conflict,
            "nothing was lost; look at what is there now, then run the command again",
        ),
        E::KeyChanged { .. } => (
            Class::Forged,
            "the key known before stays in force; compare fingerprints with them before you trust the new one",
        ),
        E::NotEmpty { .. } => (Class::Exists, ""),
        E::IllegalVersion { .. } => (Class::Usage, ""),
        E::WrongCredentials => (
            Class::Credentials,
            "check the name and the password (capital letters, blanks at the end); nobody can reset it",
        ),
        E::UnknownUser { .. } => (Class::NotFound, "check the spelling, and --server"),
        E::AccountDeleted { .. } => (Class::NotFound, ""),
        E::NameTaken { .. } => (
            Class::NameTaken,
            "choose another name, or `kastro login` if it is yours",
        ),
        E::SignupRefused { .. } => (
            Class::Refused,
            "ask the node's operator for an invitation and pass it with --token",
        ),
        E::TooMuchWork { .. } => (Class::Refused, "this node takes no new accounts"),
        E::SecondFactorNeeded | E::SecondFactorRefused { .. } => (Class::Credentials, ""),
        E::WrongServer { .. } => (
            Class::WrongServer,
            "pass your own node's address with --server",
        ),
        E::UnacceptableDerivation { .. } => (Class::Forged, "nothing was derived or sent"),
        E::BadSession => (Class::NoSession, "run `kastro login`"),
        E::OldLayout { what } if *what == NEW_PASSWORD => (
            Class::Refused,
            "the identity of such an account comes from its password, so a new password is a new identity: change it once \
             with an official client, which brings the account up to date, and `kastro login` again",
        ),
        E::OldLayout { .. } => (
            Class::Refused,
            "change the password with an official client first: that brings the account up to date",
        ),
        E::TooLarge { .. } => (Class::TooLarge, ""),
        E::Misbehavior(misbehavior) => misbehavior_advice(misbehavior),
        E::Refused { message, .. } if message.contains("disk full") => (
            Class::NoSpace,
            "nothing that was acknowledged is lost; run the command again when there is space",
        ),
        E::Refused { message, .. } if message.contains("waiting for the name authority") => (
            Class::Refused,
            "if that was you, `kastro login` in a while, with the password of that time; otherwise choose another name",
        ),
        E::Refused { message, .. } if message.contains("name authority cannot be reached") => (
            Class::Refused,
            "new names, renewed claims and moves wait until it is back; everything else goes on. `kastro names` tells its \
             operator how another node takes over",
        ),
        E::Refused { message, .. }
            if message.contains("home server of this user cannot be reached") =>
        {
            (
                Class::Refused,
                "the account's node is off, or this one finds no way to it. A node with a copy can be read meanwhile, with \
             --server; when the account's node is lost for good, `kastro move --lost` there makes that node the home",
            )
        }
        E::Refused { message, call, .. }
            if call.ends_with("core/mirror") && message.contains("quota") =>
        {
            (
                Class::NoSpace,
                "that node has no room for a copy of you yet: its operator runs `kastro mirror add NAME` first",
            )
        }
        E::Refused { message, .. } if message.contains("Not enough space for user") => (
            Class::NoSpace,
            "nothing was moved; the operator of the node to move to makes room with `kastro quota set NAME SIZE`",
        ),
        E::Refused { message, .. } if message.contains("accepting new user migrations") => (
            Class::Refused,
            "nothing was moved; that node has as many accounts as its operator wants: ask the operator, who makes room for one \
             with `kastro mirror add NAME`",
        ),
        E::Refused { message, .. } if message.contains("Owner has moved") => (
            Class::Refused,
            "the node that was asked has not heard of the account's last move yet: run the command again in a minute",
        ),
        E::RateLimited { message } if message.contains("is moving") => (
            Class::Refused,
            "nothing is lost. It ends within minutes when both nodes and the name authority run and reach each other; \
             `kastro move` with --server, the new node's address, goes on with it at once",
        ),
        E::HomeAnswers => (
            Class::Refused,
            "`kastro move` without --lost takes everything along. --force gives up what was written since the copy was last \
             in step: for a home that lost data, or lets nobody go",
        ),
        E::RateLimited { .. } => (Class::Refused, "wait a little and run the command again"),
        E::HomeKeepsNoCopy => (
            Class::Refused,
            "a copy is worth something at another node: pass the address of one",
        ),
        E::Refused { status, call, .. } => match status {
            404 | 405 => (
                Class::WrongServer,
                "is --server the address of a Kastro or Peergos node, under the host name it was told?",
            ),
            500 if call.contains("block/get") || call.contains("champ/get") => (
                Class::Damaged,
                "the node cannot read what it stores, and its log says what; nothing wrong was written here",
            ),
            500 => (
                Class::Refused,
                "the node has trouble of its own; its log says more",
            ),
            413 => (Class::TooLarge, ""),
            507 => (
                Class::NoSpace,
                "the node's disk is full; nothing acknowledged is lost",
            ),
            _ => (Class::Refused, ""),
        },
        E::Network(transport) => transport_advice(transport),
        _ => (Class::Other, ""),
    }
}

fn misbehavior_advice(misbehavior: &Misbehavior) -> (Class, &'static str) {
    match misbehavior {
        Misbehavior::HashMismatch { .. }
        | Misbehavior::BlockWithheld { .. }
        | Misbehavior::MalformedRecord { .. } => (
            Class::Damaged,
            "the node's copy is damaged; nothing wrong was written here. Its operator can restore it from a mirror",
        ),
        Misbehavior::MalformedReply { .. } | Misbehavior::WrongPutAnswer => (
            Class::WrongServer,
            "the server speaks another version or is no such node; check --server",
        ),
        _ => (
            Class::Forged,
            "the node does not follow the rules; do not trust it with new data until its operator explains",
        ),
    }
}

fn transport_advice(error: &TransportError) -> (Class, &'static str) {
    match error {
        TransportError::Unreachable(why) if why.to_string() == OFFLINE => (
            Class::NoServer,
            "run the command without --offline once: what it reads is kept (--cache-size)",
        ),
        TransportError::Unreachable(_) => (
            Class::NoServer,
            "is the node running (`kastro serve`), and is --server its address?",
        ),
        TransportError::Interrupted(_) | TransportError::TimedOut => (
            Class::NoServer,
            "nothing that was acknowledged is lost; run the command again to continue",
        ),
        TransportError::ReplyTooLarge { .. } => (Class::WrongServer, ""),
        _ => (Class::NoServer, ""),
    }
}

/// Causes shown behind a message.
const MAX_CAUSES: usize = 4;

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use super::*;

    #[test]
    fn causes_follow_the_message() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let failure = Failure::from(ClientError::Network(TransportError::Unreachable(Arc::new(
            refused,
        ))));
        assert_eq!(
            failure.message,
            "network trouble: the node cannot be reached: connection refused"
        );
        assert_eq!(failure.class, Class::NoServer);
        assert!(failure.help.unwrap().contains("kastro serve"));
    }

    #[test]
    fn the_failures_a_person_meets_have_distinct_codes() {
        let path = || "/alice/x".to_owned();
        let classes = [
            ClientError::WrongCredentials,
            ClientError::NameTaken {
                name: "alice".into(),
            },
            ClientError::IllegalUsername { name: "A".into() },
            ClientError::NotFound { path: path() },
            ClientError::Exists { path: path() },
            ClientError::QuotaReached {
                message: String::new(),
            },
            ClientError::Network(TransportError::TimedOut),
            ClientError::Misbehavior(Misbehavior::MalformedReply { call: "api/v0/id" }),
            ClientError::Misbehavior(Misbehavior::WrongPutAnswer),
            ClientError::CannotRead { what: path() },
            ClientError::Misbehavior(Misbehavior::BadClaimChain {
                name: "alice".into(),
            }),
            ClientError::Conflict,
            ClientError::TooLarge {
                what: "a folder",
                max: 1,
            },
            ClientError::BadSession,
        ]
        .map(|error| Failure::from(error).class);
        let mut distinct = classes.to_vec();
        distinct.dedup();
        assert_eq!(
            distinct.len(),
            classes.len() - 1,
            "only the two protocol mismatches share one"
        );
        assert!(!classes.contains(&Class::Other));
    }
}
