//! How many requests are at work at once: in all, for one site and from one address (Spec: 13 §9.3).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use pki::username::Username;

/// Requests at work in all; a streamed file takes up to four chunks of 5 MiB.
const MAX_AT_WORK: usize = 48;
/// Requests at work for one site.
const MAX_PER_OWNER: usize = 16;
/// Requests at work from one address.
const MAX_PER_ADDRESS: usize = 16;

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    owners: HashMap<Username, usize>,
    addresses: HashMap<IpAddr, usize>,
}

/// Counts the requests at work.
#[derive(Debug, Clone, Default)]
pub(super) struct Admission(Arc<Mutex<Counts>>);

/// A request that was let in; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    admission: Admission,
    owner: Username,
    address: IpAddr,
}

impl Admission {
    /// Lets a request in, or not.
    pub(super) fn enter(&self, owner: &Username, address: IpAddr) -> Option<Admitted> {
        let mut counts = self.lock();
        let of_owner = counts.owners.get(owner).copied().unwrap_or(0);
        let of_address = counts.addresses.get(&address).copied().unwrap_or(0);
        if counts.all >= MAX_AT_WORK || of_owner >= MAX_PER_OWNER || of_address >= MAX_PER_ADDRESS {
            return None;
        }
        counts.all += 1;
        counts.owners.insert(owner.clone(), of_owner + 1);
        counts.addresses.insert(address, of_address + 1);
        Some(Admitted {
            admission: self.clone(),
            owner: owner.clone(),
            address,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
            if let Some(count) = counts.get_mut(key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
        let mut counts = self.admission.lock();
        counts.all = counts.all.saturating_sub(1);
        less(&mut counts.owners, &self.owner);
        less(&mut counts.addresses, &self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_site_and_no_address_takes_everything() {
        let admission = Admission::default();
        let name = |n: usize| Username::parse(&format!("user{n}")).unwrap();
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let held: Vec<_> = (0..16)
            .map(|n| admission.enter(&name(0), address(n)).unwrap())
            .collect();
        assert!(admission.enter(&name(0), address(99)).is_none());
        let more: Vec<_> = (1..17)
            .map(|n| admission.enter(&name(n), address(50)).unwrap())
            .collect();
        assert!(admission.enter(&name(30), address(50)).is_none());
        let rest: Vec<_> = (40..56)
            .map(|n| admission.enter(&name(n), address(60)).unwrap())
            .collect();
        assert!(admission.enter(&name(99), address(99)).is_none());
        drop((held, more, rest));
        let counts = admission.lock();
        assert!(counts.all == 0 && counts.owners.is_empty() && counts.addresses.is_empty());
    }
}
