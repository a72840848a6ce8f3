//! The name of a conflict copy: what one device wrote while another one wrote the same file.
//!
//! `report.pdf` becomes `report (conflict 2026-11-22 laptop).pdf`, then `report (conflict 2026-11-22 laptop 2).pdf`. The
//! words go where Spec: 21 §12.4 puts those of a copy: before the last extension, a leading dot being none.

use pki::claim::Date;

use crate::{
    error::ClientError,
    properties::{FileName, MAX_NAME_UNITS, Timestamp},
};

/// Longest device name that is used, in characters.
const MAX_DEVICE_CHARS: usize = 40;
/// Longest extension that is kept when a name has to be cut, in UTF-16 units.
const MAX_EXTENSION_UNITS: usize = 64;
/// Names that are tried.
const MAX_COPIES: u32 = 10_000;

/// Returns the first free name for what `device` wrote to `name` at `now`.
///
/// # Errors
/// [`ClientError::TooLarge`] when thousands are taken.
pub(super) fn conflict_name(
    name: &FileName,
    device: &str,
    now: Timestamp,
    is_taken: impl Fn(&FileName) -> bool,
) -> Result<FileName, ClientError> {
    let mut words = format!("conflict {}", Date::from_unix_seconds(now.epoch_seconds()));
    let device: String = device
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '/' | '\\' | '(' | ')'))
        .take(MAX_DEVICE_CHARS)
        .collect();
    if !device.trim().is_empty() {
        words.push(' ');
        words.push_str(device.trim());
    }
    for number in 1..=MAX_COPIES {
        let words = match number {
            1 => format!(" ({words})"),
            _ => format!(" ({words} {number})"),
        };
        let candidate = with_words(name.as_str(), &words)?;
        if !is_taken(&candidate) {
            return Ok(candidate);
        }
    }
    Err(ClientError::TooLarge {
        what: "the number of conflict copies",
        max: MAX_COPIES.into(),
    })
}

/// Inserts words before the last extension, cutting the stem when the name would be too long.
fn with_words(name: &str, words: &str) -> Result<FileName, ClientError> {
    let units = |text: &str| text.encode_utf16().count();
    let dot = name.rfind('.').filter(|at| *at > 0);
    let (stem, extension) = dot.map_or((name, ""), |at| name.split_at(at));
    let (stem, extension) = match units(extension) > MAX_EXTENSION_UNITS {
        true => (name, ""),
        false => (stem, extension),
    };
    let room = MAX_NAME_UNITS.saturating_sub(units(words) + units(extension));
    let mut cut = String::new();
    let mut used = 0;
    for character in stem.chars() {
        used += character.len_utf16();
        if used > room {
            break;
        }
        cut.push(character);
    }
    FileName::parse(format!("{cut}{words}{extension}"))
        .map_err(|_| ClientError::Internal("the name of a conflict copy is illegal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, device: &str, taken: &[&str]) -> String {
        let name = FileName::parse(name).unwrap();
        // 2026-11-22 01:00 UTC
        let now = Timestamp::from_epoch_seconds(1_795_309_200);
        conflict_name(&name, device, now, |name| taken.contains(&name.as_str()))
            .unwrap()
            .to_string()
    }

    #[test]
    fn words_go_before_the_last_extension() {
        for (name, expected) in [
            ("report.pdf", "report (conflict 2026-11-22 laptop).pdf"),
            ("a.tar.gz", "a.tar (conflict 2026-11-22 laptop).gz"),
            (".profile", ".profile (conflict 2026-11-22 laptop)"),
            ("plain", "plain (conflict 2026-11-22 laptop)"),
        ] {
            assert_eq!(named(name, "laptop", &[]), expected);
        }
        assert_eq!(named("a.b", "", &[]), "a (conflict 2026-11-22).b");
        assert_eq!(
            named("a.b", " x/../y\n ", &[]),
            "a (conflict 2026-11-22 x..y).b"
        );
        let taken = [
            "a (conflict 2026-11-22 x).b",
            "a (conflict 2026-11-22 x 2).b",
        ];
        assert_eq!(named("a.b", "x", &taken), "a (conflict 2026-11-22 x 3).b");
    }

    #[test]
    fn long_names_are_cut_and_stay_legal() {
        for (stem, extension) in [
            ("\u{1f600}".repeat(127), ""),
            ("x".repeat(250), ".txt"),
            ("x".to_owned(), &*format!(".{}", "y".repeat(250))),
        ] {
            let name = named(&format!("{stem}{extension}"), &"d".repeat(99), &[]);
            assert!(name.encode_utf16().count() <= MAX_NAME_UNITS);
            assert!(name.contains("(conflict 2026-11-22 "), "{name}");
        }
    }
}
