//! The configuration file: TOML, every key known, every mistake told with its place.

use std::{collections::BTreeMap, fs, io, ops::Range, path::Path};

use toml::de::{DeTable, DeValue};

use super::{
    Origin, Settings,
    codec::{Given, Raw},
    keys, with_suggestion,
};
use crate::exit::{Class, Failure};

/// Longest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads the file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
            return Err(Failure::new(
                Class::Usage,
                format!("{} is too long for a configuration file", path.display()),
            ));
        }
        _ => {}
    }
    fs::read_to_string(path)
        .map(Some)
        .map_err(|error| Failure::local("read", path, &error))
}

/// Applies every key of the file.
pub(super) fn apply(
    text: &str,
    path: &Path,
    settings: &mut Settings,
    origins: &mut BTreeMap<&'static str, Origin>,
) -> Result<(), Failure> {
    let reader = Reader { text, path };
    let document = DeTable::parse(text)
        .map_err(|error| reader.failure(error.span().unwrap_or(0..0), error.message()))?;
    reader.table("", document.get_ref(), settings, origins)
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Reader<'_> {
    fn table(
        &self,
        prefix: &str,
        table: &DeTable<'_>,
        settings: &mut Settings,
        origins: &mut BTreeMap<&'static str, Origin>,
    ) -> Result<(), Failure> {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            let is_table = keys::KEYS
                .iter()
                .any(|key| key.parts().0 == Some(name.as_str()));
            match value.get_ref() {
                DeValue::Table(inner) if is_table => {
                    self.table(&format!("{name}."), inner, settings, origins)?;
                    continue;
                }
                _ if is_table => {
                    return Err(
                        self.failure(value.span(), &format!("{name} is a table: write [{name}]"))
                    );
                }
                _ => {}
            }
            let known = keys::KEYS.iter().find(|known| known.name == name);
            let Some(known) = known else {
                let failure = self.failure(key.span(), &format!("unknown key {name}"));
                return Err(with_suggestion(failure, &name));
            };
            let given = Given {
                raw: raw(value.get_ref()),
                base: self.path.parent().map(Path::to_path_buf),
            };
            (known.set)(settings, &given).map_err(|why| {
                self.failure(value.span(), &format!("{name}: {why}"))
                    .help(known.doc)
            })?;
            let (line, _) = self.place(key.span());
            origins.insert(known.name, Origin::File(line));
        }
        Ok(())
    }

    fn failure(&self, span: Range<usize>, why: &str) -> Failure {
        let (line, column) = self.place(span);
        Failure::new(
            Class::Usage,
            format!("{}:{line}:{column}: {why}", self.path.display()),
        )
    }

    /// Returns line and column, counted from one, of where a span starts.
    fn place(&self, span: Range<usize>) -> (usize, usize) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("a number that is too large"), Raw::Integer),
        DeValue::Array(items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(text) => Some(text.to_string()),
                    _ => None,
                })
                .collect();
            texts.map_or(Raw::Other("a list of something else"), Raw::List)
        }
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}
