//! Sizes and times as people read them, and names that cannot disturb a terminal.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};

/// Returns a size with three digits and a binary unit: `0 B`, `17 B`, `4.0 KiB`, `1.5 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for next in UNITS.iter().skip(1) {
        if value < 999.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 9.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// Returns a span of time in its two largest units: `3 days 4 hours`, `50 seconds`.
#[must_use]
pub fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (86_400, "day"),
        (3_600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (unit, name) in UNITS {
        let count = left / unit;
        left %= unit;
        if count > 0 || (unit == 1 && parts.is_empty()) {
            let plural = if count == 1 { "" } else { "s" };
            parts.push(format!("{count} {name}{plural}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    parts.join(" ")
}

/// Returns the time of this machine in seconds since 1970.
#[must_use]
pub fn now_seconds() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// Returns how many seconds ago a time was; 0 for one that is still to come.
#[must_use]
pub fn seconds_ago(seconds: i64) -> u64 {
    u64::try_from(now_seconds().saturating_sub(seconds)).unwrap_or(0)
}

/// Parses a size with an optional binary unit: `4096`, `64K`, `500 MiB`, `1.5G`, `2T`.
///
/// # Errors
///
/// With what a size looks like.
pub fn parse_size(text: &str) -> Result<u64, &'static str> {
    const WRONG: &str = "a size is a number with an optional unit K, M, G or T (powers of 1024)";
    const MAX_DECIMALS: usize = 3;
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let unit_bytes = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 1_u64,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        "T" | "TB" | "TIB" => 1 << 40,
        _ => return Err(WRONG),
    };
    let (whole, decimals) = match digits.trim_end().split_once('.') {
        Some((_, decimals)) if decimals.is_empty() || decimals.len() > MAX_DECIMALS => {
            return Err(WRONG);
        }
        Some(parts) => parts,
        None => (digits.trim_end(), "0"),
    };
    let number = |text: &str| -> Result<u64, &'static str> {
        let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        is_plain.then(|| text.parse().ok()).flatten().ok_or(WRONG)
    };
    let thousandths = number(&format!("{decimals:0<MAX_DECIMALS$}"))?;
    // At most 999 << 40: far below 2^64.
    let fraction = unit_bytes * thousandths / 1000;
    number(whole)?
        .checked_mul(unit_bytes)
        .and_then(|bytes| bytes.checked_add(fraction))
        .ok_or(WRONG)
}

/// A moment as people write it: a day, a time, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// That time.
    At(SystemTime),
    /// So long before now.
    Ago(Duration),
}

impl Moment {
    /// Returns the time that is meant.
    #[must_use]
    pub fn before(self, now: SystemTime) -> SystemTime {
        match self {
            Self::At(time) => time,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }
}

impl std::str::FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a time is 2026-11-22, 2026-11-22T18:00:00Z, or 30m, 12h, 7d ago";
        const DAY: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]");
        if let Ok(at) = OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        {
            return Ok(Self::At(at.into()));
        }
        if let Ok(day) = time::Date::parse(text, DAY) {
            return Ok(Self::At(day.midnight().assume_utc().into()));
        }
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let seconds = match text.get(number.len()..) {
            Some("s") => 1,
            Some("m") => 60,
            Some("h") => 3_600,
            Some("d") => 86_400,
            Some("w") => 604_800,
            _ => return Err(WRONG),
        };
        let count: u64 = number.parse().map_err(|_| WRONG)?;
        let seconds = count.checked_mul(seconds).ok_or(WRONG)?;
        Ok(Self::Ago(Duration::from_secs(seconds)))
    }
}

/// Returns a time as `2026-11-21 18:05`, in UTC.
#[must_use]
pub fn time(at: SystemTime) -> String {
    const FORM: &[FormatItem<'_>] = format_description!("[year]-[month]-[day] [hour]:[minute]");
    OffsetDateTime::from(at).format(FORM).unwrap_or_default()
}

/// Returns a time as RFC 3339 in UTC, for scripts.
#[must_use]
pub fn rfc3339(at: SystemTime) -> String {
    OffsetDateTime::from(at)
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}

/// Returns text with control and direction-changing characters escaped: names come from others.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let is_tricky = c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if is_tricky {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_days_times_or_spans() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let before = |text: &str| {
            let at = text.parse::<Moment>().unwrap().before(now);
            at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
        };
        assert_eq!(before("2026-11-22"), 1_795_305_600);
        assert_eq!(before("2026-11-22T00:00:01Z"), 1_795_305_601);
        assert_eq!(before("2d"), 1_000_000 - 172_800);
        assert_eq!(before("90m"), 1_000_000 - 5_400);
        for wrong in [
            "",
            "d",
            "5",
            "5y",
            "-5d",
            "2026-13-01",
            "yesterday",
            "99999999999999999w",
        ] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let shown = [0, 1, 60, 61, 7_200, 7_201, 90_061, 86_400 * 40].map(span);
        let expected = [
            "0 seconds",
            "1 second",
            "1 minute",
            "1 minute 1 second",
            "2 hours",
            "2 hours",
            "1 day 1 hour",
            "40 days",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(12 << 20), "12 MiB");
        assert_eq!(size(3 << 29), "1.5 GiB");
        assert_eq!(size(u64::MAX), "16 EiB");
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64K"), Ok(65536));
        assert_eq!(parse_size(" 10 GiB "), Ok(10 << 30));
        assert_eq!(parse_size("1.5G"), Ok(3 << 29));
        assert_eq!(parse_size("0.25m"), Ok(256 << 10));
        for wrong in [
            "",
            "G",
            "1X",
            "-1",
            "+1",
            "1.G",
            ".5G",
            "1.2.3G",
            "1.2345G",
            "1 0",
            "99999999999999T",
        ] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_utc() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_284_272);
        assert_eq!(time(at), "2026-11-21 18:04");
        assert_eq!(rfc3339(at), "2026-11-21T18:04:32Z");
    }

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(printable("gpj.\u{202e}exe"), "gpj.\\u{202e}exe");
        assert_eq!(
            printable("\u{65e5}\u{672c} \u{e9}"),
            "\u{65e5}\u{672c} \u{e9}"
        );
    }
}
