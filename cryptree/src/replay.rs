//! A generator that replays recorded bytes, for vectors made with recorded nonces and keys.

use std::{collections::VecDeque, convert::Infallible};

use rand_core::{TryCryptoRng, TryRng};

/// Hands out recorded draws in order; a draw of another length than recorded is a failed test.
#[derive(Debug)]
pub(crate) struct Replay {
    draws: VecDeque<Vec<u8>>,
}

impl Replay {
    /// Records the draws to come.
    pub(crate) fn of(draws: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self {
            draws: draws.into_iter().collect(),
        }
    }

    /// Returns true when every recorded draw was taken.
    pub(crate) fn is_used_up(&self) -> bool {
        self.draws.is_empty()
    }
}

impl TryRng for Replay {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        let draw = self.draws.pop_front().expect("a recorded draw");
        to.copy_from_slice(&draw);
        Ok(())
    }
}

impl TryCryptoRng for Replay {}
