//! Switches, counts, sizes and durations.

use std::{marker::PhantomData, time::Duration};

use node::store::FreeFloor;

use super::{Codec, Given, Raw, quoted, wrong};
use crate::human;

pub(in crate::config) struct Flag;

impl Codec for Flag {
    type Value = bool;
    const FORM: &'static str = "true or false";

    fn read(given: &Given) -> Result<bool, String> {
        match &given.raw {
            Raw::Bool(value) => Ok(*value),
            Raw::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => Ok(true),
                "false" | "no" | "0" => Ok(false),
                _ => wrong("true or false"),
            },
            _ => wrong("true or false"),
        }
    }

    fn show(value: &bool) -> Option<String> {
        Some(value.to_string())
    }
}

/// A whole number of type `T`.
pub(in crate::config) struct Count<T>(PhantomData<T>);

impl<T: TryFrom<i64> + Copy + std::fmt::Display> Codec for Count<T> {
    type Value = T;
    const FORM: &'static str = "number";

    fn read(given: &Given) -> Result<T, String> {
        let number = match &given.raw {
            Raw::Integer(number) => Some(*number),
            Raw::Text(text) => text.replace('_', "").parse().ok(),
            _ => None,
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .map_or_else(|| wrong("a whole number that is not negative"), Ok)
    }

    fn show(value: &T) -> Option<String> {
        Some(value.to_string())
    }
}

pub(in crate::config) struct Size;

impl Codec for Size {
    type Value = u64;
    const FORM: &'static str = "size";

    fn read(given: &Given) -> Result<u64, String> {
        let what = "a size such as \"10 GiB\" (units K, M, G, T are powers of 1024)";
        match &given.raw {
            Raw::Integer(bytes) => u64::try_from(*bytes).or_else(|_| wrong(what)),
            Raw::Text(text) => human::parse_size(text).or_else(|_| wrong(what)),
            _ => wrong(what),
        }
    }

    fn show(value: &u64) -> Option<String> {
        Some(quoted(&exact_size(*value)))
    }
}

/// A size of something that is held in memory.
pub(in crate::config) struct SizeInMemory;

impl Codec for SizeInMemory {
    type Value = usize;
    const FORM: &'static str = Size::FORM;

    fn read(given: &Given) -> Result<usize, String> {
        usize::try_from(Size::read(given)?).or_else(|_| wrong("a size that fits into memory"))
    }

    fn show(value: &usize) -> Option<String> {
        Size::show(&u64::try_from(*value).unwrap_or(u64::MAX))
    }
}

/// Returns a size that reads back as the same number.
pub(in crate::config) fn exact_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let unit_bytes = 1_u64 << shift;
        if bytes >= unit_bytes && bytes.is_multiple_of(unit_bytes) {
            return format!("{} {unit}", bytes / unit_bytes);
        }
    }
    format!("{bytes} B")
}

pub(in crate::config) struct Span;

impl Codec for Span {
    type Value = Duration;
    const FORM: &'static str = "duration";

    fn read(given: &Given) -> Result<Duration, String> {
        let what = "a duration with a unit, such as \"30 s\" (units ms, s, min, h, d)";
        match &given.raw {
            Raw::Text(text) => parse_duration(text).map_or_else(|| wrong(what), Ok),
            _ => wrong(what),
        }
    }

    fn show(value: &Duration) -> Option<String> {
        Some(quoted(&exact_duration(*value)))
    }
}

const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1000),
    ("ms", 1),
];

fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.get(..text.len() - unit.len())?;
    let unit = match unit.trim() {
        "m" => "min",
        "sec" => "s",
        "day" | "days" => "d",
        unit => unit,
    };
    let (_, millis) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    let count: u64 = digits.parse().ok()?;
    Some(Duration::from_millis(count.checked_mul(*millis)?))
}

/// Returns a duration that reads back as the same milliseconds.
pub(in crate::config) fn exact_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    for (unit, size) in DURATION_UNITS {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{} {unit}", millis / size);
        }
    }
    "0 s".to_owned()
}

pub(in crate::config) struct Floor;

impl Codec for Floor {
    type Value = FreeFloor;
    const FORM: &'static str = "size or \"default\"";

    fn read(given: &Given) -> Result<FreeFloor, String> {
        match &given.raw {
            Raw::Text(text) if text == "default" => Ok(FreeFloor::Default),
            _ => Size::read(given).map(FreeFloor::Bytes),
        }
    }

    fn show(value: &FreeFloor) -> Option<String> {
        match value {
            FreeFloor::Bytes(bytes) => Size::show(bytes),
            _ => Some(quoted("default")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_read_back() {
        for (text, millis) in [
            ("30 s", 30_000),
            ("30s", 30_000),
            ("500 ms", 500),
            ("5 min", 300_000),
            ("5m", 300_000),
            ("24 h", 86_400_000),
            ("2 days", 172_800_000),
            ("0 s", 0),
        ] {
            let read = parse_duration(text).unwrap();
            assert_eq!(read, Duration::from_millis(millis), "{text}");
            assert_eq!(parse_duration(&exact_duration(read)), Some(read));
        }
        for wrong in [
            "",
            "30",
            "s",
            "-1 s",
            "1.5 h",
            "30 parsecs",
            "99999999999999999 d",
        ] {
            assert!(parse_duration(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn sizes_read_back_exactly() {
        for bytes in [0, 1, 1023, 1024, 1025, 3 << 29, 10 << 30, 1 << 40, u64::MAX] {
            assert_eq!(human::parse_size(&exact_size(bytes)), Ok(bytes));
        }
    }
}
