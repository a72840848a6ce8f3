//! `kastro link`: secret links, made, listed, taken back, and opened.

use std::{
    ffi::OsStr,
    fs::Metadata,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use cryptree::{
    ClientError,
    client::{LinkOptions, OwnLink, PublishedItem, RetrievedLink},
    secret_link::SecretLink,
};
use serde_json::json;

use crate::{
    args::{LinkArgs, LinkCommand, LinkGetArgs, LinkListArgs, LinkNewArgs, LinkRemoveArgs},
    commands::{get, put::timestamp, tally::Tally},
    connect::{Missing, Reached, connect, default_place, named_place},
    exit::{Class, Failure},
    human::{self, printable},
    local::{folder::Folder, name, name::Platform, spelling::LocalName},
    output::Output,
    password::{self, Password},
    progress::Progress,
    remote_path::absolute,
    session::Place,
    strength,
};

/// Runs the command.
///
/// # Errors
///
/// All of the client's.
pub async fn run(args: &LinkArgs, output: Output) -> Result<(), Failure> {
    match &args.command {
        LinkCommand::Create(args) => create(args, output).await,
        LinkCommand::List(args) => list(args, output).await,
        LinkCommand::Rm(args) => remove(args, output).await,
        LinkCommand::Get(args) => download(args, output).await,
    }
}

async fn create(args: &LinkNewArgs, output: Output) -> Result<(), Failure> {
    let given = password::given(LINK_PASSWORD, args.link_password_file.as_deref())?;
    let user_password = match given {
        Some(password) => password,
        None if args.with_password => password::ask("Password of the link: ", LINK_PASSWORD)?,
        None => Password::default(),
    };
    let connected = connect(&args.connection, output).await?;
    if !user_password.is_empty() {
        let user = connected.user();
        strength::check(user, &user_password, args.allow_weak_password, output)?;
    }
    let path = absolute(&args.path.of(connected.user()));
    let expiry = args.expires.map(|seconds| {
        let end = SystemTime::now() + Duration::from_secs(seconds);
        timestamp(end).epoch_seconds()
    });
    let options = LinkOptions {
        user_password,
        expiry_epoch_seconds: expiry,
        max_retrievals: args.uses,
        opens_file: false,
    };
    let made = connected.session.create_link(&path, &options).await;
    let origin = origin(&connected.reached.place);
    connected.close().await;
    let link = made?;
    let text = format!("{origin}{}", *link.to_text());
    if output.json {
        return output.json(&json!({
            "path": path, "label": link.label, "link": text, "expires": expiry.map(date),
            "uses": args.uses, "password": !options.user_password.is_empty(),
        }));
    }
    output.line(&text)?;
    output.hint("Whoever has this link reads it, and everything below it.");
    Ok(())
}

async fn list(args: &LinkListArgs, output: Output) -> Result<(), Failure> {
    let connected = connect(&args.connection, output).await?;
    let links = connected.session.links().await;
    let origin = origin(&connected.reached.place);
    connected.close().await;
    for OwnLink {
        path,
        link,
        properties,
        retrievals,
    } in links?
    {
        let expiry = properties.expiry_epoch_seconds.map(date);
        let text = format!("{origin}{}", *link.to_text());
        if output.json {
            output.json(&json!({
                "path": path, "label": link.label, "link": text, "expires": expiry,
                "uses": properties.max_retrievals, "used": retrievals,
                "password": !properties.user_password.is_empty(), "writable": properties.is_writable,
            }))?;
            continue;
        }
        let mut terms = Vec::new();
        let used = retrievals.map(|count| count.to_string());
        match (used, properties.max_retrievals) {
            (Some(used), Some(max)) => terms.push(format!("used {used} of {max} times")),
            (Some(used), None) => terms.push(format!("used {used} times")),
            (None, Some(max)) => terms.push(format!("at most {max} times")),
            (None, None) => {}
        }
        terms.extend(expiry.map(|expiry| format!("until {expiry}")));
        if !properties.user_password.is_empty() {
            terms.push("with a password".to_owned());
        }
        if properties.is_writable {
            terms.push("may write".to_owned());
        }
        let path = printable(&path);
        output.line(&format!("{:>10}  {path}  {}", link.label, terms.join(", ")))?;
        output.line(&format!("            {text}"))?;
    }
    Ok(())
}

async fn remove(args: &LinkRemoveArgs, output: Output) -> Result<(), Failure> {
    let labels = args.links.iter().map(|link| match link.parse() {
        Ok(label) => Ok(label),
        Err(_) => parse(link).map(|(link, _)| link.label),
    });
    let labels = labels.collect::<Result<Vec<u64>, _>>()?;
    let connected = connect(&args.connection, output).await?;
    let mut done = Ok(());
    for label in labels {
        done = connected.session.remove_link(label).await;
        if done.is_err() {
            break;
        }
    }
    connected.close().await;
    done?;
    output.hint("It is no longer handed out. Who has opened it keeps the key.");
    Ok(())
}

async fn download(args: &LinkGetArgs, output: Output) -> Result<(), Failure> {
    let text = match args.link.as_str() {
        "-" => {
            let mut text = String::new();
            let read = io::stdin().take(MAX_LINK_BYTES).read_to_string(&mut text);
            read.map_err(|error| Failure::local("read", Path::new("-"), &error))?;
            text
        }
        link => link.to_owned(),
    };
    let (link, origin) = parse(text.trim())?;
    let given = password::given(LINK_PASSWORD, args.link_password_file.as_deref())?;
    let place = named_place(&args.connection)?;
    let place = place.or_else(|| origin.map(Place::Server));
    let place = place.unwrap_or_else(default_place);
    let reached = Reached::at(place, Missing::Fail).await?;
    let done = fetch(args, &reached, &link, given, output).await;
    reached.close().await;
    done
}

async fn fetch(
    args: &LinkGetArgs,
    reached: &Reached,
    link: &SecretLink,
    given: Option<Password>,
    output: Output,
) -> Result<(), Failure> {
    let retrieved = reached.client.retrieve_link(link).await?;
    let item = open(&retrieved, given).await?;
    let target = get::target(&args.target, item.properties().name.as_str())?;
    let visit = Visit {
        force: args.force,
        progress: Progress::start(output, "get"),
        output,
    };
    let mut tally = Tally::default();
    visit.all(item, target, &mut tally).await?;
    drop(visit);
    tally.finish("downloaded", output)
}

/// Opens with the password that was given, or asks: a wrong one costs no retrieval.
async fn open(
    retrieved: &RetrievedLink,
    given: Option<Password>,
) -> Result<PublishedItem, Failure> {
    let is_given = given.is_some();
    let mut password = match given {
        Some(password) => password,
        None if retrieved.needs_password() => {
            password::ask("Password of the link: ", LINK_PASSWORD)?
        }
        None => Password::default(),
    };
    for attempt in 1.. {
        match retrieved.open(&password).await {
            Err(ClientError::WrongCredentials)
                if !is_given && retrieved.needs_password() && attempt < MAX_QUESTIONS =>
            {
                password = password::ask("That is not it. Password of the link: ", LINK_PASSWORD)?;
            }
            Err(ClientError::WrongCredentials) => break,
            done => return Ok(done?),
        }
    }
    Err(Failure::new(
        Class::Credentials,
        "the link does not open with this password",
    )
    .help("the link may be cut off; it ends with twelve letters and digits after `#`"))
}

struct Visit {
    force: bool,
    progress: Progress,
    output: Output,
}

impl Visit {
    /// Downloads an item with everything below it.
    async fn all(
        &self,
        item: PublishedItem,
        target: PathBuf,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let (parent, name) = get::holding(&target)?;
        if !item.properties().is_directory {
            return self.file(&item, (&parent, &name), tally).await;
        }
        let root = get::make_folder(&parent, &name)?;
        let mut folders = vec![(item, Vec::new())];
        while let Some((folder, names)) = folders.pop() {
            let (local, mut naming) = match get::make_folders(&root, &names) {
                Ok(made) => made,
                Err(failure) => {
                    self.problem(tally, folder.path(), &failure);
                    continue;
                }
            };
            tally.folders += 1;
            let listing = match folder.list().await {
                Ok(listing) => listing,
                Err(error) => {
                    self.problem(tally, folder.path(), &error.into());
                    continue;
                }
            };
            for damaged in listing.damaged {
                let name = damaged.name.unwrap_or_else(|| "an entry".to_owned());
                let path = format!("{}/{name}", folder.path());
                self.problem(tally, &path, &damaged.reason.into());
            }
            for entry in listing.entries {
                let path = format!("{}/{}", folder.path(), entry.name);
                if let Err(error) = name::check(&entry.name, Platform::here()) {
                    let failure = Failure::new(Class::NotAllowed, error.to_string());
                    self.problem(tally, &path, &failure);
                    continue;
                }
                let LocalName { name, why } = match get::local_name(&mut naming, &entry.name) {
                    Ok(local) => local,
                    Err(failure) => {
                        self.problem(tally, &path, &failure);
                        continue;
                    }
                };
                get::tell(&self.progress, self.output, &path, &name, why.as_deref());
                let done = match folder.below(&[&entry.name]).await {
                    Ok(item) if item.properties().is_directory => {
                        let mut names = names.clone();
                        names.push(name);
                        folders.push((item, names));
                        continue;
                    }
                    Ok(item) => self.file(&item, (&local, OsStr::new(&name)), tally).await,
                    Err(error) => Err(error.into()),
                };
                if let Err(failure) = done {
                    self.problem(tally, &path, &failure);
                }
            }
        }
        Ok(())
    }

    async fn file(
        &self,
        item: &PublishedItem,
        place: (&Folder, &OsStr),
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let local = place.0.path().join(place.1);
        let found = place.0.look(place.1);
        let found = found.map_err(|error| Failure::local("read", &local, &error))?;
        let is_in_the_way = |found: &Metadata| !found.is_file() || !self.force;
        if found.as_ref().is_some_and(is_in_the_way) {
            return Err(
                Failure::new(Class::Exists, format!("{} exists", local.display()))
                    .help("--force replaces a file"),
            );
        }
        let file = item.file().await?;
        self.progress.expect(file.size());
        self.progress.at(item.path());
        let replaces = found.is_some();
        let bytes = get::content(&self.progress, item.path(), place, replaces, &file).await?;
        tally.file(bytes);
        Ok(())
    }

    fn problem(&self, tally: &mut Tally, item: &str, failure: &Failure) {
        self.progress
            .pause(|| tally.problem(item, failure, self.output));
    }
}

/// Reads a link, and the address of the node in front of it.
fn parse(text: &str) -> Result<(SecretLink, Option<String>), Failure> {
    // Never repeats the text: it is a secret.
    let wrong = || {
        Failure::new(Class::Usage, "this is not a secret link")
            .help("it looks like https://NODE/secret/.../NUMBER#PASSWORD; quote it for the shell")
    };
    let at = text.find("secret/").ok_or_else(wrong)?;
    let (origin, link) = text.split_at_checked(at).ok_or_else(wrong)?;
    let link = link.parse().map_err(|_| wrong())?;
    let origin = origin.trim_end_matches('/');
    Ok((link, (!origin.is_empty()).then(|| origin.to_owned())))
}

/// Returns what a link begins with at a node.
fn origin(place: &Place) -> String {
    match place {
        Place::Server(server) => format!("{}/", server.trim_end_matches('/')),
        Place::Local(_) => String::new(),
    }
}

fn date(epoch_seconds: i64) -> String {
    let seconds = u64::try_from(epoch_seconds).unwrap_or(0).min(LAST_SECOND);
    human::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The environment variable with the password that belongs to a link.
const LINK_PASSWORD: &str = "KASTRO_LINK_PASSWORD";
/// End of the year 9999, beyond which no calendar is written.
const LAST_SECOND: u64 = 253_402_300_799;
/// Longest link that is read from standard input.
const MAX_LINK_BYTES: u64 = 4096;
/// Times that a password is asked for.
const MAX_QUESTIONS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &str =
        "secret/z59vuwzfFDovHb5G9Rven4mJAZLiFq4aoP9EPFu7qMKRMVP3MNtE4Gs/463930018#fT8h323NhiAa";

    #[test]
    fn links_are_read_with_and_without_the_node_in_front() {
        for (front, origin) in [
            ("", None),
            ("/", None),
            ("https://files.example/", Some("https://files.example")),
        ] {
            let (link, found) = parse(&format!("{front}{LINK}")).unwrap();
            assert_eq!((link.label, found.as_deref()), (463_930_018, origin));
        }
        let failure = parse("https://files.example/secret/x#hunter2").unwrap_err();
        assert!(!failure.message.contains("hunter2"));
    }

    /// Far beyond what calendars know.
    #[test]
    fn any_expiry_can_be_shown() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(i64::MIN), date(0));
        assert_eq!(date(i64::MAX), "9999-12-31T23:59:59Z");
    }
}
