//! The time up to which a record is valid, as text (Spec: 11 §2).

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// Longest text of a time.
const MAX_TIME_CHARS: usize = 32;

/// Reads `yyyy-MM-ddTHH:mm:ss.<1 to 9 digits>Z` as whole seconds since 1970.
pub(super) fn read_time(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.len() > MAX_TIME_CHARS || !text.is_ascii() {
        return None;
    }
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.')?;
    let is_fraction =
        (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = |text: &str, mark: char| -> Option<[u16; 3]> {
        let numbers: Option<Vec<u16>> = text
            .split(mark)
            .map(|part| {
                let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
                part.parse().ok().filter(|_| is_number)
            })
            .collect();
        numbers?.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let small = |number: u16| u8::try_from(number).ok();
    let month = Month::try_from(small(month)?).ok()?;
    let date = Date::from_calendar_date(i32::from(year), month, small(day)?).ok()?;
    let time = Time::from_hms(small(hour)?, small(minute)?, small(second)?).ok()?;
    is_fraction.then(|| {
        PrimitiveDateTime::new(date, time)
            .assume_utc()
            .unix_timestamp()
    })
}

/// Writes a time with nine digits, in UTC.
pub(super) fn write_time(seconds: i64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    Some(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.000000000Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_times_are_refused() {
        for bad in [
            "",
            "Z",
            "2026-11-22T00:00:00Z",
            "2026-11-22T00:00:00.Z",
            "2026-13-22T00:00:00.0Z",
            "2026-11-22T24:00:00.0Z",
            "2026-11-22T00:00:00.0",
            "2026-11-22 00:00:00.0Z",
            "2026-11-22T00:00:00.0000000000Z",
            "+026-11-22T00:00:00.0Z",
        ] {
            assert_eq!(read_time(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(read_time(b"1970-01-01T00:00:01.9Z"), Some(1));
    }
}
