//! `kastro doctor`: looks at everything that commonly goes wrong with a node, and says what to do.
//!
//! It changes no data. Each check is a line: what was looked at, how it is, and what to do when it is not well.
//! The node is asked when it runs; else its folder is opened, as by the other commands of the operator.

mod folder;
mod network;

use node::operator::overview::{Overview, ShowOverview};
use serde::Serialize;

use crate::{
    args::DoctorArgs,
    config::{self, Effective, Origin},
    exit::{Class, Failure},
    operator::Operator,
    output::Output,
};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Works, and somebody should look.
    Warn,
    /// Does not work, or will soon not.
    Fail,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) level: Level,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) help: Option<String>,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            message: message.into(),
            help: None,
        }
    }

    pub(crate) fn warn(
        check: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            check,
            level: Level::Warn,
            message: message.into(),
            help: Some(help.into()),
        }
    }

    pub(crate) fn fail(
        check: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(check, message, help)
        }
    }

    fn of(check: &'static str, failure: &Failure) -> Self {
        Self {
            check,
            level: Level::Fail,
            message: failure.message.clone(),
            help: failure.help.clone(),
        }
    }
}

/// Prints findings as they come and counts them.
struct Examination {
    output: Output,
    counts: [u32; 3],
}

impl Examination {
    fn add(&mut self, finding: &Finding) -> Result<(), Failure> {
        let index = finding.level as usize;
        if let Some(count) = self.counts.get_mut(index) {
            *count += 1;
        }
        if self.output.json {
            return self.output.json(finding);
        }
        let level = match finding.level {
            Level::Ok => "OK  ",
            Level::Warn => "WARN",
            Level::Fail => "FAIL",
        };
        let message = crate::human::printable(&finding.message);
        self.output
            .line(&format!("{level}  {:<15} {message}", finding.check))?;
        match &finding.help {
            Some(help) => self
                .output
                .line(&format!("{:23}{}", "", crate::human::printable(help))),
            None => Ok(()),
        }
    }

    fn all(&mut self, findings: impl IntoIterator<Item = Finding>) -> Result<(), Failure> {
        findings
            .into_iter()
            .try_for_each(|finding| self.add(&finding))
    }
}

/// Runs the command.
///
/// # Errors
///
/// `Partial` when a check failed; warnings are no failure.
pub async fn run(args: &DoctorArgs, output: Output) -> Result<(), Failure> {
    let mut examination = Examination {
        output,
        counts: [0; 3],
    };
    match config::load(&args.node.flags()) {
        Ok(effective) => examine(&mut examination, &effective, args, output).await?,
        Err(failure) => examination.add(&Finding::of("configuration", &failure))?,
    }
    let [ok, warnings, failures] = examination.counts;
    if output.json {
        output
            .json(&serde_json::json!({ "ok": ok, "warnings": warnings, "failures": failures }))?;
    }
    if failures > 0 {
        return Err(Failure::new(
            Class::Partial,
            format!("{failures} of {} checks failed", ok + warnings + failures),
        ));
    }
    output.hint(&format!("{ok} checks are well, {warnings} deserve a look."));
    Ok(())
}

async fn examine(
    examination: &mut Examination,
    effective: &Effective,
    args: &DoctorArgs,
    output: Output,
) -> Result<(), Failure> {
    examination.all(configuration(effective))?;
    let data = effective.data();
    if !data.is_dir() {
        return examination.add(&Finding::fail(
            "data folder",
            format!("there is none at {}", data.display()),
            "name the node's folder with --data or KASTRO_DATA; `kastro serve` makes it",
        ));
    }
    examination.all(folder::permissions(effective))?;
    examination.all(folder::space(effective))?;
    examination.all(folder::web(effective))?;
    let (overview, is_running) = match ask(args, output).await {
        Ok(asked) => asked,
        Err(failure) => {
            // Without the node the rest cannot be known.
            return examination.add(&Finding::of("node", &failure));
        }
    };
    examination.all(node(effective, &overview, is_running))?;
    examination.all(folder::clock(effective, &overview))?;
    if let Some(source) = &args.time_source {
        examination.add(&network::time(source).await)?;
    }
    examination.all(network::address(effective, &overview, is_running).await)?;
    examination.all(network::certificate(&overview, is_running))?;
    let listen = match is_running {
        true => overview.listen,
        false => effective.settings.node.listen,
    };
    examination.all(network::exposure(effective, listen))?;
    examination.all(folder::open_files(
        effective,
        is_running.then_some(overview.pid),
    ))
}

async fn ask(args: &DoctorArgs, output: Output) -> Result<(Overview, bool), Failure> {
    let operator = Operator::reach(&args.node).await?;
    let is_running = operator.is_running();
    let overview = operator.ask_for(ShowOverview {}, output).await;
    operator.close().await;
    Ok((overview?, is_running))
}

fn configuration(effective: &Effective) -> Vec<Finding> {
    const CHECK: &str = "configuration";
    let file = effective.file.display();
    let mut findings = vec![Finding::ok(
        CHECK,
        match effective.has_file {
            true => format!("{file} is understood"),
            false => format!("no file at {file}; built-in settings"),
        },
    )];
    for variable in config::unknown_variables() {
        findings.push(Finding::warn(
            CHECK,
            format!("{variable} is set and means nothing to this version"),
            "`kastro config` lists the settings; a variable is KASTRO_ and the name in capitals",
        ));
    }
    findings
}

/// What the node says about itself.
fn node(effective: &Effective, overview: &Overview, is_running: bool) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(
        "node",
        match is_running {
            true => format!(
                "version {} is running as process {}",
                overview.version, overview.pid
            ),
            false => "is not running; its folder was opened".to_owned(),
        },
    )];
    if is_running && overview.version != env!("CARGO_PKG_VERSION") {
        findings.push(Finding::warn(
            "node",
            format!("this command is of version {}", env!("CARGO_PKG_VERSION")),
            "restart the node with the new program",
        ));
    }
    findings.push(store(overview));
    if is_running && let Some(finding) = recent_failure(overview) {
        findings.push(finding);
    }
    let users = format!("{} accounts of {}", overview.users, overview.max_users);
    findings.push(Finding::ok(
        "accounts",
        match overview.space_requests {
            0 => users,
            waiting => {
                format!("{users}; {waiting} ask for more space (`kastro space-requests list`)")
            }
        },
    ));
    for name in &overview.unfinished_removals {
        findings.push(Finding::warn(
            "accounts",
            format!("the removal of {name} was cut off"),
            format!("kastro users remove {name} --force"),
        ));
    }
    findings.push(match overview.missing_admins.as_slice() {
        [] => Finding::ok(
            "administrators",
            match effective.settings.node.admins.len() {
                0 => "none are configured".to_owned(),
                count => format!("{count}, and all exist"),
            },
        ),
        missing => Finding::warn(
            "administrators",
            format!("configured and not there: {}", missing.join(", ")),
            "whoever signs up with such a name becomes administrator: sign up with it yourself, or remove it \
             from `admins`",
        ),
    });
    if overview.is_default_quota_set && *effective.origin("quota") != Origin::Default {
        findings.push(Finding::warn(
            "quota",
            "`kastro quota default` was used, so the configured quota of new accounts counts for nothing",
            "`kastro quota default --reset` goes back to it",
        ));
    }
    findings
}

fn store(overview: &Overview) -> Finding {
    let store = overview.health.get("store");
    let error = store.and_then(|store| store.get("error")?.as_str());
    match error {
        None => Finding::ok("store", "opens, and can be written"),
        Some(error) => Finding::fail(
            "store",
            format!("cannot be written: {error}"),
            "look at the disk and at the node's log; what was acknowledged is still there",
        ),
    }
}

fn recent_failure(overview: &Overview) -> Option<Finding> {
    let last = overview.health.get("last_error")?;
    let text = last.get("text")?.as_str()?;
    let seconds = last.get("seconds_ago")?.as_u64()?;
    Some(Finding::warn(
        "node",
        format!(
            "a call failed on this machine {} min ago: {text}",
            seconds / 60
        ),
        "the node's log says more",
    ))
}
