//! Names of snapshots, which sort by time.

use super::super::{error::BackupError, folder::Folder};

/// Returns a name that sorts by time.
pub(super) fn free_name(folder: &Folder, seconds: i64) -> Result<String, BackupError> {
    let names = folder.snapshot_names()?;
    let time = time_text(seconds);
    for number in 0..=u32::MAX {
        let name = format!("{time}-{number:03}");
        // Also when the clock went back: the newest snapshot has the last name.
        if names.last().is_none_or(|last| *last < name) {
            return Ok(name);
        }
        if names.last().is_some_and(|last| !last.starts_with(&time)) {
            let last = names.last().cloned().unwrap_or_default();
            return Ok(format!("{last}+"));
        }
    }
    Err(BackupError::NoSnapshot(folder.path.clone()))
}

/// Returns a time as `20260102T030405Z`.
fn time_text(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400);
    let rest = seconds.rem_euclid(86_400);
    // Days to a civil date, in years that begin in March.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::backup::manifest::MANIFEST_FILE;

    #[test]
    fn times_are_written_out() {
        assert_eq!(time_text(0), "19700101T000000Z");
        assert_eq!(time_text(951_782_400), "20000229T000000Z");
        assert_eq!(time_text(1_767_323_045), "20260102T030405Z");
        assert_eq!(time_text(-1), "19691231T235959Z");
    }

    #[test]
    fn names_follow_each_other_also_when_the_clock_goes_back() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::write(root.path()).unwrap();
        let mut names = Vec::new();
        for seconds in [1_000_000_000, 1_000_000_000, 5, 5, 1_000_000_001] {
            let name = free_name(&folder, seconds).unwrap();
            let path = folder.snapshot(&name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join(MANIFEST_FILE), "{}").unwrap();
            names.push(name);
        }
        assert!(names.is_sorted(), "{names:?}");
        names.dedup();
        assert_eq!(names.len(), 5);
    }
}
