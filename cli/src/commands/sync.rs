//! `kastro sync`: keeps a local folder and a folder of the account the same, once or for ever.

use std::time::Duration;

use crate::{
    args::SyncArgs,
    connect::{Connected, connect},
    exit::{Class, Failure},
    local::folder::NameRules,
    output::Output,
    remote_path::absolute,
    session::{self, Place},
    sync::{
        plan::Direction,
        report::Report,
        run::{Memory, Task, absolute_folder, device_name},
        state::{Pair, State},
        tree::Known,
        watch::{Changes, Woken},
    },
    thumbnail::Thumbnailer,
};

/// Runs the command.
///
/// # Errors
///
/// `Partial` when something could not be done, `Unsafe` when too much would be deleted.
pub async fn run(args: &SyncArgs, output: Output) -> Result<(), Failure> {
    let local = absolute_folder(&args.folder)?;
    if !args.allow_home {
        check_not_home(&local)?;
    }
    let connected = connect(&args.connection, output).await?;
    let done = Box::pin(synchronize(args, local, &connected, output)).await;
    connected.close().await;
    done
}

async fn synchronize(
    args: &SyncArgs,
    local: std::path::PathBuf,
    connected: &Connected,
    output: Output,
) -> Result<(), Failure> {
    let remote = absolute(&args.remote.of(connected.user()));
    let pair = Pair {
        local: local.display().to_string(),
        node: match &connected.reached.place {
            Place::Server(server) => server.clone(),
            Place::Local(folder) => folder.display().to_string(),
        },
        remote: remote.clone(),
    };
    let folder = session::config_folder(args.connection.session_dir.as_deref())?.join("sync");
    let mut state = State::open(&folder, pair)?;
    let task = Task {
        local,
        names: NameRules::OfTheDisk,
        remote,
        direction: match (args.up, args.down) {
            (true, _) => Direction::Up,
            (_, true) => Direction::Down,
            _ => Direction::Both,
        },
        is_dry: args.dry_run,
        keep_free: args.keep_free,
        may_delete_all: args.allow_delete_all,
        device: device_name(args.device.as_deref()),
        thumbnails: Thumbnailer::new(!args.no_thumbnails),
    };
    let mut report = Report::new(output);
    let mut memory = Memory::default();
    let done = task
        .run(
            &connected.session,
            &mut state,
            &mut report,
            &mut memory,
            output,
        )
        .await;
    if args.dry_run {
        return done;
    }
    let summed_up = report.finish();
    if !args.watch {
        return done.and(summed_up);
    }
    if let Err(failure) = done {
        pass_over(failure, output)?;
    }
    watch(
        args,
        &task,
        connected,
        (&mut state, &mut report),
        memory,
        output,
    )
    .await
}

/// Refuses a home folder and those above it: whoever writes to the account would choose what the shell runs next.
fn check_not_home(local: &std::path::Path) -> Result<(), Failure> {
    let Ok(home) = session::home() else {
        return Ok(());
    };
    let real = |path: &std::path::Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    if !real(&home).starts_with(real(local)) {
        return Ok(());
    }
    Err(Failure::new(
        Class::Unsafe,
        format!("{} is your home folder, or holds it", local.display()),
    )
    .help(
        "choose a folder in it; --allow-home takes it all the same, with .bashrc and all the rest",
    ))
}

/// Goes on until the program is stopped.
async fn watch(
    args: &SyncArgs,
    task: &Task,
    connected: &Connected,
    (state, report): (&mut State, &mut Report),
    mut memory: Memory,
    output: Output,
) -> Result<(), Failure> {
    let session = &connected.session;
    let poll = Duration::from_secs(args.poll);
    let mut is_retry = false;
    let mut since_full_look = tokio::time::Instant::now();
    loop {
        let folders = state
            .known()
            .iter()
            .filter_map(|(path, known)| match known {
                Known::Folder { .. } => Some(memory.local_path(&task.local, path)),
                Known::File { .. } => None,
            });
        let changes = Changes::of(&task.local, folders);
        // What happened while nobody listened is seen by a look right away, which is cheap when nothing did.
        let mut woken = Woken::Local;
        loop {
            let is_due = since_full_look.elapsed() > FULL_LOOK;
            let is_changed = woken == Woken::Local
                || is_retry
                || is_due
                || Task::is_changed_there(session, &memory)
                    .await
                    .unwrap_or(true);
            if is_changed {
                if is_due {
                    since_full_look = tokio::time::Instant::now();
                }
                let before = state.known().len();
                let done = task.run(session, state, report, &mut memory, output).await;
                is_retry = done.is_err();
                if let Err(failure) = done {
                    pass_over(failure, output)?;
                }
                if !report.is_idle() {
                    // Each problem was told.
                    let _ = report.finish();
                }
                // New folders have to be listened to.
                if state.known().len() != before {
                    break;
                }
            }
            woken = changes.wait(poll).await;
        }
    }
}

/// Reports what may pass by itself; everything else ends the watching.
fn pass_over(failure: Failure, output: Output) -> Result<(), Failure> {
    match failure.class {
        Class::NoServer | Class::Refused | Class::NoSpace | Class::Conflict | Class::Damaged => {
            output.hint(&format!("{failure}; trying again later"));
            Ok(())
        }
        _ => Err(failure),
    }
}

/// How often everything is looked at although nothing was told.
const FULL_LOOK: Duration = Duration::from_secs(600);
