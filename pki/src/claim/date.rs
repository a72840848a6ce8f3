//! Calendar dates as claims write them (Spec: 10 §2.1).
//!
//! Proleptic Gregorian, without time zone: the clock value handed in decides what "today" is. Dates are
//! compared as dates; their text does not sort.

use std::{cmp::Ordering, fmt, str::FromStr};

const SECONDS_PER_DAY: i64 = 86_400;
const MAX_YEAR: i32 = 999_999_999;

/// An ISO local date, year 0 to 999 999 999.
///
/// Remembers how many year digits it was written with, so that it is written back the same way; equality
/// and order look at the date alone.
#[derive(Debug, Clone, Copy)]
pub struct Date {
    year: i32,
    month: u8,
    day: u8,
    year_digits: u8,
}

/// Text that is not a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an iso date")]
pub struct NotADate;

impl Date {
    /// The expiry of a claim that never expires: `+999999999-12-31`.
    pub const NEVER: Self = Self {
        year: MAX_YEAR,
        month: 12,
        day: 31,
        year_digits: 9,
    };

    /// Makes a date; none when there is no such day or the year is outside 0 to 999 999 999.
    pub fn new(year: i32, month: u8, day: u8) -> Option<Self> {
        let legal = (0..=MAX_YEAR).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day);
        legal.then_some(Self {
            year,
            month,
            day,
            year_digits: 4,
        })
    }

    /// Returns the UTC date of a clock value in seconds since 1970, clamped to the range of dates.
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self::from_days(seconds.div_euclid(SECONDS_PER_DAY))
    }

    /// Returns the same day of a later month, or that month's last day when it is shorter.
    #[must_use]
    pub fn plus_months(self, months: u32) -> Self {
        let total = i64::from(self.year) * 12 + i64::from(self.month) - 1 + i64::from(months);
        let month = u8::try_from(total.rem_euclid(12) + 1).unwrap_or(12);
        match i32::try_from(total.div_euclid(12)) {
            Ok(year) if year <= MAX_YEAR => Self {
                year,
                month,
                day: self.day.min(days_in_month(year, month)),
                year_digits: 4,
            },
            _ => Self::NEVER,
        }
    }

    /// Returns the date so many days later.
    #[must_use]
    pub fn plus_days(self, days: u32) -> Self {
        Self::from_days(self.to_days() + i64::from(days))
    }

    /// Returns the number of days since 1970-01-01.
    pub fn to_days(self) -> i64 {
        // Years from March on, so that the leap day is the last one.
        let month = i64::from(self.month);
        let year = i64::from(self.year) - i64::from(month <= 2);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(self.day) - 1;
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        era * 146_097 + day_of_era - 719_468
    }

    fn from_days(days: i64) -> Self {
        let (first, last) = (Self::FIRST.to_days(), Self::NEVER.to_days());
        let shifted = days.clamp(first, last) + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = (march_month + 2) % 12 + 1;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        // The clamp above keeps every part in range.
        Self {
            year: i32::try_from(year).unwrap_or(MAX_YEAR),
            month: u8::try_from(month).unwrap_or(12),
            day: u8::try_from(day).unwrap_or(31),
            year_digits: 4,
        }
    }

    const FIRST: Self = Self {
        year: 0,
        month: 1,
        day: 1,
        year_digits: 4,
    };

    const fn parts(&self) -> (i32, u8, u8) {
        (self.year, self.month, self.day)
    }
}

const fn days_in_month(year: i32, month: u8) -> u8 {
    match month {
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl PartialEq for Date {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Date {}

impl PartialOrd for Date {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Date {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl FromStr for Date {
    type Err = NotADate;

    /// Accepts 1 to 9 year digits; more than 4 need a `+`, fewer must not have one.
    fn from_str(text: &str) -> Result<Self, NotADate> {
        let (signed, rest) = match text.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut parts = rest.split('-');
        let mut part = |digits: std::ops::RangeInclusive<usize>| {
            parts
                .next()
                .filter(|p| digits.contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
                .ok_or(NotADate)
        };
        let year = part(if signed { 5..=9 } else { 1..=4 })?;
        let month = part(2..=2)?;
        let day = part(2..=2)?;
        if parts.next().is_some() {
            return Err(NotADate);
        }
        let date = Self::new(
            year.parse().map_err(|_| NotADate)?,
            month.parse().map_err(|_| NotADate)?,
            day.parse().map_err(|_| NotADate)?,
        )
        .ok_or(NotADate)?;
        Ok(Self {
            year_digits: u8::try_from(year.len()).map_err(|_| NotADate)?,
            ..date
        })
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = usize::from(self.year_digits);
        let sign = if self.year > 9999 || width > 4 {
            "+"
        } else {
            ""
        };
        let (year, month, day) = self.parts();
        write!(f, "{sign}{year:0width$}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn never_has_sixteen_characters() {
        assert_eq!(Date::NEVER.to_string(), "+999999999-12-31");
        assert_eq!(date("+999999999-12-31"), Date::NEVER);
    }

    #[test]
    fn dates_are_compared_as_dates() {
        // As text `+` sorts before every digit.
        assert!(Date::NEVER > date("2030-01-31"));
        assert!(date("+10000-01-01") > date("9999-12-31"));
        assert!(date("2030-02-01") > date("2030-01-31"));
        assert_eq!(date("999-01-01"), date("0999-01-01"));
    }

    #[test]
    fn text_is_written_back_as_it_was_read() {
        for text in [
            "2030-01-31",
            "0001-01-01",
            "1-01-01",
            "+10000-01-01",
            "+02030-01-01",
            "2024-02-29",
        ] {
            assert_eq!(date(text).to_string(), text);
        }
    }

    #[test]
    fn malformed_dates_are_refused() {
        for text in [
            "",
            "2030",
            "2030-01",
            "2030-01-31-",
            "2030-01-31-01",
            "2030-1-31",
            "2030-01-1",
            "2030-13-01",
            "2030-00-01",
            "2030-04-31",
            "2023-02-29",
            "1900-02-29",
            "20300-01-01",
            "+2030-01-01",
            "+1000000000-01-01",
            "-2030-01-01",
            " 2030-01-01",
            "2030-01-01\n",
            "2030/01/01",
            "٢٠٣٠-01-01",
        ] {
            assert_eq!(text.parse::<Date>(), Err(NotADate), "{text:?}");
        }
    }

    #[test]
    fn months_end_on_existing_days() {
        assert_eq!(date("2026-12-31").plus_months(2), date("2027-02-28"));
        assert_eq!(date("2027-12-31").plus_months(2), date("2028-02-29"));
        assert_eq!(date("2026-11-21").plus_months(2), date("2027-01-21"));
        assert_eq!(date("+999999999-11-30").plus_months(2), Date::NEVER);
    }

    #[test]
    fn clock_values_become_utc_days() {
        assert_eq!(Date::from_unix_seconds(0), date("1970-01-01"));
        assert_eq!(Date::from_unix_seconds(86_399), date("1970-01-01"));
        assert_eq!(Date::from_unix_seconds(86_400), date("1970-01-02"));
        assert_eq!(Date::from_unix_seconds(-1), date("1969-12-31"));
        assert_eq!(Date::from_unix_seconds(1_700_000_000), date("2023-11-14"));
        assert_eq!(Date::from_unix_seconds(i64::MAX), Date::NEVER);
        assert_eq!(Date::from_unix_seconds(i64::MIN), date("0000-01-01"));
        assert_eq!(Date::NEVER.plus_days(u32::MAX), Date::NEVER);
    }

    proptest! {
        #[test]
        fn days_round_trip(days in -700_000i64..100_000_000) {
            let date = Date::from_days(days);
            prop_assert_eq!(date.to_days(), days);
            prop_assert_eq!(date.to_string().parse::<Date>().unwrap(), date);
            prop_assert_eq!(date.plus_days(1).to_days(), days + 1);
            prop_assert!(date.plus_months(1) > date);
        }
    }
}
