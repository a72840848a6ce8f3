//! The name of a conflict copy: what one device wrote while another one wrote the same file.
//!
//! `report.pdf` becomes `report (conflict 2026-11-22 laptop).pdf`, then `report (conflict 2026-11-22 laptop 2).pdf`. The
//! words go where Spec: 21 §12.4 puts those of a copy: before the last extension, a leading dot being none.

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
    let (year, month, day) = civil_date(now.epoch_seconds().div_euclid(86_400));
    let mut words = format!("conflict {year:04}-{month:02}-{day:02}");
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

/// Returns year, month and day of a day counted from 1970 (proleptic Gregorian calendar).
fn civil_date(days: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that the leap day is the last of its year.
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
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

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_779, (2026, 11, 22)),
            (-1, (1969, 12, 31)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil_date(days), date, "{days}");
        }
    }
}
