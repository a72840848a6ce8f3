//! Wall-clock time that does not jump: transactions must not end because somebody set the clock (Spec: 40, REL-8 h).

use std::time::Duration;

use tokio::time::Instant;

/// Larger differences between the wall clock and the machine's timer are jumps.
const JUMP_SECONDS: i64 = 3600;
/// A jump is believed after this long.
const BELIEVED_AFTER: Duration = Duration::from_secs(86_400);

/// Follows the wall clock, and holds it back for a day when it leaps ahead.
#[derive(Debug, Default)]
pub(super) struct SteadyClock {
    /// The last time that was believed, and when.
    believed: Option<(i64, Instant)>,
    jumped: Option<Instant>,
}

impl SteadyClock {
    /// Returns seconds since 1970, never later than `wall`.
    pub(super) fn seconds(&mut self, wall: i64) -> i64 {
        let now = Instant::now();
        let expected = self.believed.map_or(wall, |(believed, at)| {
            let passed = now.duration_since(at).as_secs();
            believed.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
        });
        let is_jump = wall.saturating_sub(expected).saturating_abs() > JUMP_SECONDS;
        let jumped = is_jump.then(|| *self.jumped.get_or_insert(now));
        if jumped.is_none_or(|since| now.duration_since(since) >= BELIEVED_AFTER) {
            self.believed = Some((wall, now));
            self.jumped = None;
            return wall;
        }
        wall.min(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    async fn hours(n: u64) {
        tokio::time::advance(Duration::from_secs(3600 * n)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_drifts_is_followed() {
        let mut clock = SteadyClock::default();
        let mut wall = 1_000_000;
        for _ in 0..100 {
            assert_eq!(clock.seconds(wall), wall);
            hours(1).await;
            wall += HOUR + 60;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leap_ahead_is_held_back_for_a_day() {
        let mut clock = SteadyClock::default();
        assert_eq!(clock.seconds(0), 0);
        let leap = 48 * HOUR;
        hours(1).await;
        assert_eq!(clock.seconds(HOUR + leap), HOUR);
        hours(23).await;
        assert_eq!(clock.seconds(24 * HOUR + leap), 24 * HOUR);
        hours(1).await;
        assert_eq!(clock.seconds(25 * HOUR + leap), 25 * HOUR + leap);
        hours(1).await;
        assert_eq!(clock.seconds(26 * HOUR + leap), 26 * HOUR + leap);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leap_back_is_followed_because_it_ends_nothing_early() {
        let mut clock = SteadyClock::default();
        assert_eq!(clock.seconds(100 * HOUR), 100 * HOUR);
        assert_eq!(clock.seconds(10 * HOUR), 10 * HOUR);
        // Put right again before the day is over.
        hours(1).await;
        assert_eq!(clock.seconds(101 * HOUR), 101 * HOUR);
    }
}
