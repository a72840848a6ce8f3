//! The settings as people read them: what is in force, a template to start from, a table for the manual.

use serde_json::{Value, json};

use super::{Effective, KEYS, Key, Origin, Settings};

/// Width of the comments of the template.
const WIDTH: usize = 96;

/// Returns the settings in force as TOML, each with where it came from.
#[must_use]
pub fn effective(effective: &Effective) -> String {
    let mut text = format!(
        "# Settings of the node in {}\n# File: {}{}\n# A flag counts more than the environment, that more than the file.\n\n",
        effective.data().display(),
        effective.file.display(),
        if effective.has_file {
            ""
        } else {
            " (not there)"
        },
    );
    let shown: Vec<_> = KEYS
        .iter()
        .map(|key| (key, assignment(key, &effective.settings)))
        .collect();
    let width = shown.iter().map(|(_, line)| line.chars().count()).max();
    let width = width.unwrap_or(0).min(44);
    let mut table = None;
    for (key, line) in shown {
        open_table(&mut text, &mut table, key);
        let from = from(key, effective);
        text.push_str(&format!("{line:width$}  # {from}\n"));
    }
    text
}

/// Returns the settings in force for scripts.
#[must_use]
pub fn json(effective: &Effective) -> Value {
    let mut all = serde_json::Map::new();
    for key in KEYS {
        let (value, is_set) = match (key.show)(&effective.settings) {
            _ if key.is_secret => (Value::Null, is_set(key, effective)),
            Some(text) => (value_of(&text), true),
            None => (Value::Null, false),
        };
        all.insert(
            key.name.to_owned(),
            json!({
                "value": value,
                "is_set": is_set,
                "from": from(key, effective),
                "is_secret": key.is_secret,
            }),
        );
    }
    json!({ "file": effective.file, "has_file": effective.has_file, "settings": all })
}

/// Returns a file in which everything is a comment with the built-in value.
#[must_use]
pub fn template() -> String {
    let defaults = Settings::default();
    let mut text = format!(
        "# Settings of a Kastro node. Put this file into its data folder as {}, or name it with\n\
         # --config or KASTRO_CONFIG. Everything is optional; the values are the built-in ones.\n\
         # Sizes: \"10 GiB\" (units K, M, G, T are powers of 1024). Durations: \"30 s\" (ms, s, min, h, d).\n\
         # A flag counts more than an environment variable, that more than this file.\n\
         # The file is read when the node starts.\n\n",
        super::FILE
    );
    let mut table = None;
    for key in KEYS {
        open_table(&mut text, &mut table, key);
        for line in wrapped(key.doc) {
            text.push_str(&format!("# {line}\n"));
        }
        text.push_str(&format!(
            "# {}\n",
            example(key, &defaults).trim_start_matches("# ")
        ));
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Returns the table of docs/configuration.md.
#[must_use]
pub fn table() -> String {
    let defaults = Settings::default();
    let mut text =
        "| key | environment | form | default | |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for key in KEYS {
        let default = match (key.show)(&defaults) {
            Some(value) => format!("`{value}`"),
            None => "-".to_owned(),
        };
        text.push_str(&format!(
            "| `{}` | `{}` | {}{} | {default} | {} |\n",
            key.name,
            key.variable(),
            key.form,
            if key.is_secret { ", secret" } else { "" },
            key.doc.replace('|', "\\|"),
        ));
    }
    text
}

/// Opens the table of a key when it is not the one before.
fn open_table(text: &mut String, table: &mut Option<&'static str>, key: &Key) {
    let (of, _) = key.parts();
    if of != *table {
        if let Some(of) = of {
            text.push_str(&format!("\n[{of}]\n"));
        }
        *table = of;
    }
}

/// Returns a line of TOML; a comment for what is not set and for secrets.
fn assignment(key: &Key, settings: &Settings) -> String {
    let (_, name) = key.parts();
    match (key.show)(settings) {
        Some(value) if !key.is_secret => format!("{name} = {value}"),
        Some(value) if value != "[]" => format!("# {name} is set"),
        _ => format!("# {name} is not set"),
    }
}

/// Returns a line for the template: what is not set by default gets its form.
fn example(key: &Key, defaults: &Settings) -> String {
    let (_, name) = key.parts();
    match (key.show)(defaults) {
        Some(value) => format!("{name} = {value}"),
        None => format!("{name} = \"\"    # {}, none by default", key.form),
    }
}

fn is_set(key: &Key, effective: &Effective) -> bool {
    (key.show)(&effective.settings).is_some_and(|value| value != "[]")
}

fn from(key: &Key, effective: &Effective) -> String {
    match effective.origin(key.name) {
        Origin::Default => "default".to_owned(),
        Origin::Derived(why) => format!("because {why}"),
        Origin::File(line) => format!("file, line {line}"),
        Origin::Environment(variable) => variable.clone(),
        Origin::Flag(flag) => flag.clone(),
    }
}

/// Turns a shown value into JSON: TOML and JSON write these forms alike.
fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let is_full = lines
            .last()
            .is_some_and(|line| line.len() + 1 + word.len() > WIDTH);
        if is_full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
