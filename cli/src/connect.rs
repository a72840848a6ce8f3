//! From the connection options to a signed-in session: a password at hand logs in, else the kept session goes on.

use std::{io::IsTerminal, path::PathBuf, sync::Arc};

use cryptree::{
    Transport,
    client::{Client, FactorCode, Session, SignIn},
};

use crate::{
    args::Connection,
    environment::TokioEnvironment,
    exit::{Class, Failure},
    local::cache::DiskCache,
    output::Output,
    password::{self, Password},
    session::{self, Kept, Place, SessionFiles},
    transport::{HttpTransport, InProcess, Limited, Offline},
};

/// A node to talk to, before anybody is signed in.
#[derive(Debug)]
pub struct Reached {
    /// The client.
    pub client: Client,
    /// Where the node is.
    pub place: Place,
    /// The node itself when it runs in this process.
    local: Option<Arc<InProcess>>,
}

/// What to do about a local data folder that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Make it.
    Make,
    /// Fail: the path is probably mistyped.
    Fail,
}

/// How to talk to a node.
#[derive(Debug, Default)]
struct Manner {
    /// Bytes per second at most.
    limit: Option<u64>,
    /// Without asking it.
    is_offline: bool,
    /// Where blocks are kept, and how many bytes.
    cache: Option<(PathBuf, u64)>,
}

impl Manner {
    fn of(connection: &Connection) -> Self {
        let folder = session::config_folder(connection.session_dir.as_deref()).ok();
        let cache = folder.map(|folder| (folder.join("cache"), connection.cache_size));
        Self {
            limit: connection.limit,
            is_offline: connection.offline,
            cache: cache.filter(|(_, bytes)| *bytes > 0),
        }
    }
}

/// A signed-in session and the node it talks to.
#[derive(Debug)]
pub struct Connected {
    /// The session.
    pub session: Session,
    /// The node.
    pub reached: Reached,
    /// The kept session this continues, if it does.
    pub kept: Option<(SessionFiles, Kept)>,
    /// Others go on using both.
    is_shared: bool,
}

/// A session that several commands use one after the other.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The session.
    pub session: Session,
    client: Client,
    place: Place,
    local: Option<Arc<InProcess>>,
}

tokio::task_local! {
    static SHARED: Shared;
}

/// Runs `work` with every [`connect`] in it answered by a session that is there already.
pub async fn sharing<T>(shared: Shared, work: impl Future<Output = T>) -> T {
    SHARED.scope(shared, work).await
}

impl Connected {
    /// Returns the user's name.
    #[must_use]
    pub fn user(&self) -> &str {
        self.session.username()
    }

    /// Lets other commands use the session, until this is closed.
    #[must_use]
    pub fn share(&self) -> Shared {
        Shared {
            session: self.session.clone(),
            client: self.reached.client.clone(),
            place: self.reached.place.clone(),
            local: self.reached.local.clone(),
        }
    }

    /// Ends the use of the node: a node in this process is closed, a kept session remembers what it has seen.
    pub async fn close(self) {
        if self.is_shared {
            return;
        }
        if let Some((files, kept)) = self.kept {
            // A later command then refuses pointers older than these. Failing to write that down fails nothing.
            let _ = files.save(&Kept {
                sealed: self.session.save(&kept.key.0),
                ..kept
            });
        }
        drop(self.session);
        self.reached.close().await;
    }
}

impl Reached {
    /// Prepares to talk to the node at `place`. An address is asked who is there; a data folder is opened.
    ///
    /// # Errors
    ///
    /// When nobody or somebody else answers at the address, or the data folder cannot be opened or is in use.
    pub async fn at(place: Place, missing: Missing) -> Result<Self, Failure> {
        Self::in_manner(place, missing, &Manner::default()).await
    }

    async fn in_manner(place: Place, missing: Missing, manner: &Manner) -> Result<Self, Failure> {
        let is_server = matches!(place, Place::Server(_));
        let is_offline = is_server && manner.is_offline;
        let (transport, place, local): (Arc<dyn Transport>, _, _) = match place {
            Place::Server(_) if is_offline => (Arc::new(Offline), place, None),
            Place::Server(server) => {
                let http = HttpTransport::new(&server)?;
                http.probe().await?;
                let place = Place::Server(http.server().to_owned());
                (Arc::new(http), place, None)
            }
            Place::Local(folder) => {
                if missing == Missing::Fail && !folder.is_dir() {
                    return Err(Failure::new(
                        Class::Local,
                        format!("there is no data folder {}", folder.display()),
                    )
                    .help("`kastro signup` makes it"));
                }
                let node = Arc::new(InProcess::open(&folder).await?);
                (Arc::clone(&node) as _, Place::Local(folder), Some(node))
            }
        };
        let transport = match manner.limit {
            Some(limit) => Arc::new(Limited::new(transport, limit)),
            None => transport,
        };
        let environment = Arc::new(TokioEnvironment);
        let mut client = match is_offline {
            true => Client::impatient(transport, environment),
            false => Client::new(transport, environment),
        };
        if let (true, Some((folder, bytes))) = (is_server, &manner.cache) {
            match DiskCache::open(folder, *bytes) {
                Ok(cache) => client = client.with_keeper(Arc::new(cache)),
                // It only saves time.
                Err(error) => tracing::debug!(%error, "no blocks are kept on disk"),
            }
        }
        Ok(Self {
            client,
            place,
            local,
        })
    }

    /// Closes a node that runs in this process.
    pub async fn close(self) {
        drop(self.client);
        if let Some(node) = self.local {
            node.close().await;
        }
    }
}

/// Returns the place that the options name, if they name one.
///
/// # Errors
///
/// When the local folder's path cannot be resolved.
pub fn named_place(connection: &Connection) -> Result<Option<Place>, Failure> {
    if let Some(folder) = &connection.local {
        let absolute = std::path::absolute(folder)
            .map_err(|error| Failure::local("resolve", folder, &error))?;
        return Ok(Some(Place::Local(absolute)));
    }
    Ok(connection.server.clone().map(Place::Server))
}

/// Signs in by password or by the kept session, whichever the options and files call for.
///
/// # Errors
///
/// Of every kind; nothing has been changed.
pub async fn connect(connection: &Connection, output: Output) -> Result<Connected, Failure> {
    if let Ok(shared) = SHARED.try_with(Clone::clone) {
        return Ok(Connected {
            session: shared.session,
            reached: Reached {
                client: shared.client,
                place: shared.place,
                local: shared.local,
            },
            kept: None,
            is_shared: true,
        });
    }
    let manner = Manner::of(connection);
    let given = password::given(PASSWORD, connection.password_file.as_deref())?;
    let place = named_place(connection)?;
    let files = SessionFiles::find(connection.session_dir.as_deref())?;
    // A broken session file must not stand in the way of somebody who brings name and password.
    let kept = match files.load() {
        Ok(kept) => kept.filter(|kept| fits(kept, connection, place.as_ref())),
        Err(_) if given.is_some() && connection.user.is_some() => None,
        Err(failure) => return Err(failure),
    };
    if (given.is_none() || connection.offline)
        && let Some(kept) = kept
    {
        let reached = Reached::in_manner(kept.place.clone(), Missing::Fail, &manner).await?;
        let session = reached.client.restore(&kept.sealed, &kept.key.0)?;
        if connection.offline {
            session.allow_offline(true);
            output.hint("offline: what was seen last, as far as it was kept");
        }
        return Ok(Connected {
            session,
            reached,
            kept: Some((files, kept)),
            is_shared: false,
        });
    }
    if connection.offline && connection.local.is_none() {
        return Err(Failure::new(Class::NoSession, "nobody is logged in here")
            .help("--offline goes on with the session that `kastro login` keeps"));
    }
    let user = connection
        .user
        .clone()
        .or_else(|| kept.as_ref().map(|kept| kept.user.clone()))
        .ok_or_else(not_logged_in)?;
    let place = place
        .or_else(|| kept.map(|kept| kept.place))
        .unwrap_or_else(default_place);
    let reached = Reached::in_manner(place, Missing::Fail, &manner).await?;
    let password = match given {
        Some(password) => password,
        None => password::ask(&format!("Password of {user}: "), PASSWORD)?,
    };
    let session = sign_in(&reached.client, &user, &password, output).await?;
    Ok(Connected {
        session,
        reached,
        kept: None,
        is_shared: false,
    })
}

/// Signs in with name and password, asking for a second factor when the account wants one.
///
/// # Errors
///
/// When name, password or code are wrong, and all of the client's.
pub async fn sign_in(
    client: &Client,
    user: &str,
    password: &Password,
    output: Output,
) -> Result<Session, Failure> {
    let pending = match client.sign_in(user, password).await? {
        SignIn::Done(session) => return Ok(session),
        SignIn::SecondFactor(pending) => pending,
    };
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            Class::Credentials,
            "the account asks for a second factor and there is no terminal to ask at",
        )
        .help("run `kastro login` at a terminal; other commands then continue its session"));
    }
    output.hint("This account asks for a second factor: a code of your app, or a backup code.");
    let code = rpassword::prompt_password("Code: ")
        .map_err(|error| Failure::new(Class::Local, format!("cannot read the code: {error}")))?;
    let is_one_time = code.trim().len() == 6 && code.trim().bytes().all(|b| b.is_ascii_digit());
    let code = if is_one_time {
        FactorCode::OneTime(&code)
    } else {
        FactorCode::Backup(&code)
    };
    Ok(pending.answer(code).await?)
}

/// Returns true when the options ask for nothing that the kept session is not.
fn fits(kept: &Kept, connection: &Connection, place: Option<&Place>) -> bool {
    let same_place = match (place, &kept.place) {
        (None, _) => true,
        (Some(Place::Server(asked)), Place::Server(known)) => {
            HttpTransport::new(asked).is_ok_and(|asked| asked.server() == known)
        }
        (Some(asked), known) => asked == known,
    };
    same_place
        && connection
            .user
            .as_ref()
            .is_none_or(|user| *user == kept.user)
}

/// Returns where a node listens when nothing is configured.
#[must_use]
pub fn default_place() -> Place {
    Place::Server(DEFAULT_SERVER.to_owned())
}

/// Returns the folder a node keeps its data in when nothing is configured.
///
/// # Errors
///
/// When there is no home folder.
pub fn default_data() -> Result<PathBuf, Failure> {
    session::home().map(|home| home.join(".kastro"))
}

fn not_logged_in() -> Failure {
    Failure::new(Class::NoSession, "nobody is logged in").help(
        "run `kastro login NAME`, or give --user and a password in KASTRO_PASSWORD or --password-file",
    )
}

/// The environment variable with the password.
pub const PASSWORD: &str = "KASTRO_PASSWORD";
const DEFAULT_SERVER: &str = "http://127.0.0.1:8000";
