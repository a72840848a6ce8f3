//! Taking turns with the requests: a collection works in short slices and rests between them.

use std::time::Duration;

use tokio::time::Instant;

/// Longest slice of work without giving way.
const SLICE: Duration = Duration::from_millis(2);

/// Meters the work of a collection.
#[derive(Debug)]
pub(super) struct Pace {
    /// Rest after each slice, in hundredths of the time that it took.
    rest_percent: u32,
    since: Instant,
}

impl Pace {
    /// Starts a slice. `duty_percent` is the share of one core to use at most, 1 to 100.
    pub(super) fn new(duty_percent: u8) -> Self {
        let duty = u32::from(duty_percent.clamp(1, 100));
        Self {
            rest_percent: (100 - duty) * 100 / duty,
            since: Instant::now(),
        }
    }

    /// Rests when the slice is over. Call it often, and after every wait.
    pub(super) async fn point(&mut self) {
        let worked = self.since.elapsed();
        if worked < SLICE {
            return;
        }
        let rest = worked * self.rest_percent / 100;
        if rest.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(rest.min(Duration::from_secs(1))).await;
        }
        self.since = Instant::now();
    }
}
