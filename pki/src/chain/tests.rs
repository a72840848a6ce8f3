use super::*;
use crate::claim::placeholder_provider;

fn key(seed: u8) -> SecretSigningKey {
    SecretSigningKey::from_seed(&[seed; 32])
}

fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

fn link(user: &str, expiry: &str, seed: u8) -> ClaimLink {
    ClaimLink::sign(
        &name(user),
        expiry.parse().unwrap(),
        placeholder_provider(),
        &key(seed),
    )
    .unwrap()
}

fn chain(user: &str, expiry: &str, seed: u8) -> ClaimChain {
    ClaimChain::single(link(user, expiry, seed))
}

fn rekeyed(from: &ClaimChain, user: &str, old: u8, new: u8) -> ClaimChain {
    from.with_new_key(
        &name(user),
        "2031-01-01".parse().unwrap(),
        placeholder_provider(),
        &key(old),
        &key(new),
    )
    .unwrap()
}

fn hash(seed: u8) -> PublicKeyHash {
    PublicKeyHash::of(&key(seed).public())
}

fn keys() -> OwnerKeys {
    OwnerKeys::inline_only()
}

fn merge(existing: &ClaimChain, update: &ClaimChain) -> Result<ClaimChain, MergeError> {
    ClaimChain::merge(existing, update, &name("alice"), &keys())
}

mod directory {
    use super::*;

    fn apply(directory: &mut NameDirectory, user: &str, new: ClaimChain) -> Adoption {
        directory.apply(&name(user), Some(new), &keys()).0
    }

    #[test]
    fn valid_first_chains_are_accepted_whatever_their_form() {
        let mut directory = NameDirectory::new();
        let long = rekeyed(&chain("old_Name", "2030-01-01", 1), "old_Name", 1, 2);
        assert_eq!(
            apply(&mut directory, "old_Name", long.clone()),
            Adoption::Accepted
        );
        assert_eq!(directory.chain("old_Name"), Some(&long));
        assert_eq!(directory.name_of(&hash(1)), Some(&name("old_Name")));
        assert_eq!(directory.name_of(&hash(2)), Some(&name("old_Name")));
    }

    #[test]
    fn invalid_first_chains_block_the_name_until_a_valid_one_comes() {
        let mut directory = NameDirectory::new();
        let forged = chain("mallory", "2030-01-01", 9);
        assert!(matches!(
            apply(&mut directory, "alice", forged.clone()),
            Adoption::Blocked(_)
        ));
        assert!(directory.is_blocked("alice"));
        assert_eq!(directory.chain("alice"), None);
        assert_eq!(directory.name_of(&hash(9)), None);
        assert_eq!(directory.names().count(), 0);
        // An empty value and another forgery change nothing.
        assert!(matches!(
            apply(&mut directory, "alice", ClaimChain::default()),
            Adoption::Blocked(InvalidChain::Empty)
        ));
        let good = chain("alice", "2030-01-01", 1);
        assert_eq!(
            apply(&mut directory, "alice", good.clone()),
            Adoption::Accepted
        );
        assert_eq!(directory.chain("alice"), Some(&good));
        assert!(!directory.is_blocked("alice"));
        // And once accepted, a forgery no longer blocks it.
        assert!(matches!(
            apply(&mut directory, "alice", forged),
            Adoption::Kept(Kept::NotAnExtension(_))
        ));
        assert_eq!(directory.chain("alice"), Some(&good));
    }

    #[test]
    fn the_table_is_append_only_per_name() {
        let mut directory = NameDirectory::new();
        let old = chain("alice", "2030-01-01", 1);
        apply(&mut directory, "alice", old.clone());
        assert_eq!(
            directory.apply(&name("alice"), None, &keys()).0,
            Adoption::Kept(Kept::Removed)
        );
        assert_eq!(
            apply(&mut directory, "alice", old.clone()),
            Adoption::Unchanged
        );
        for refused in [
            chain("alice", "2029-12-31", 1),
            chain("alice", "2031-01-01", 2),
            ClaimChain::default(),
        ] {
            assert!(matches!(
                apply(&mut directory, "alice", refused),
                Adoption::Kept(Kept::NotAnExtension(_))
            ));
        }
        assert_eq!(directory.chain("alice"), Some(&old));
        let new = rekeyed(&old, "alice", 1, 2);
        assert_eq!(
            apply(&mut directory, "alice", new.clone()),
            Adoption::Accepted
        );
        // A tail is a legal update, but not a legal value of the table.
        let tail = chain("alice", "2032-01-01", 2);
        assert_eq!(
            apply(&mut directory, "alice", tail),
            Adoption::Kept(Kept::OtherResult)
        );
        assert_eq!(directory.chain("alice"), Some(&new));
    }

    #[test]
    fn a_key_is_never_bound_to_another_name() {
        let mut directory = NameDirectory::new();
        apply(&mut directory, "alice", chain("alice", "2030-01-01", 1));
        let (adoption, elsewhere) = directory.apply(
            &name("mallory"),
            Some(chain("mallory", "2030-01-01", 1)),
            &keys(),
        );
        assert_eq!(adoption, Adoption::Accepted);
        assert_eq!(elsewhere, [hash(1)]);
        assert_eq!(directory.name_of(&hash(1)), Some(&name("alice")));
        assert_eq!(directory.len(), 2);
        assert!(!directory.is_empty());
    }

    #[test]
    fn unknown_names_stay_unknown() {
        let directory = NameDirectory::new();
        assert_eq!(
            directory.judge(&name("a"), None, &keys()),
            Adoption::Unchanged
        );
        assert!(!directory.is_blocked("a"));
    }
}

mod registrar {
    use super::*;

    fn decide(
        user: &str,
        update: &ClaimChain,
        existing: &ClaimChain,
        missing_work: Option<u16>,
    ) -> Result<Ruling, RegistrationError> {
        Registration {
            name: user,
            update,
            existing,
            reserved_for: None,
            allows_placeholder: true,
        }
        .decide(&keys(), || missing_work, |_| None)
    }

    #[test]
    fn pattern_and_reserved_list_hold_for_new_names_only() {
        let none = ClaimChain::default();
        for bad in ["admin", "Bob", "0_0", "alice\n", "", "a--b"] {
            let new = ClaimChain::default();
            assert!(matches!(
                decide(bad, &new, &none, None),
                Err(RegistrationError::Username(_))
            ));
        }
        let old = chain("0_0", "2030-01-01", 1);
        let new = chain("0_0", "2031-01-01", 1);
        assert_eq!(decide("0_0", &new, &old, None), Ok(Ruling::Store(new)));
    }

    #[test]
    fn a_first_registration_has_one_valid_link() {
        let none = ClaimChain::default();
        let good = chain("alice", "2030-01-01", 1);
        assert_eq!(
            decide("alice", &good, &none, None),
            Ok(Ruling::Store(good.clone()))
        );
        let two = rekeyed(&good, "alice", 1, 2);
        assert_eq!(
            decide("alice", &two, &none, None),
            Err(MergeError::FirstChainLength(2).into())
        );
        assert_eq!(
            decide("alice", &none, &none, None),
            Err(MergeError::FirstChainLength(0).into())
        );
        assert!(matches!(
            decide("bob", &good, &none, None),
            Err(RegistrationError::Merge(MergeError::InvalidFirstClaim(_)))
        ));
    }

    #[test]
    fn work_is_asked_for_new_names_and_long_chains() {
        let none = ClaimChain::default();
        let good = chain("alice", "2030-01-01", 1);
        assert_eq!(
            decide("alice", &good, &none, Some(256)),
            Ok(Ruling::MoreWork(256))
        );
        let renewed = chain("alice", "2031-01-01", 1);
        assert_eq!(
            decide("alice", &renewed, &good, Some(256)),
            Ok(Ruling::Store(renewed))
        );
        let mut long = good;
        for seed in 1..11 {
            assert!(!needs_proof_of_work(&long), "{}", long.links().len());
            long = rekeyed(&long, "alice", seed, seed + 1);
        }
        assert_eq!(long.links().len(), 11);
        assert!(needs_proof_of_work(&long));
        let next = rekeyed(&long, "alice", 11, 12);
        assert_eq!(
            decide("alice", &next, &long, Some(3)),
            Ok(Ruling::MoreWork(3))
        );
        assert_eq!(decide("alice", &next, &long, None), Ok(Ruling::Store(next)));
    }

    #[test]
    fn the_name_is_checked_before_work_and_merge() {
        let none = ClaimChain::default();
        assert!(decide("admin", &none, &none, Some(9)).is_err());
        assert_eq!(
            decide("alice", &none, &none, Some(9)),
            Ok(Ruling::MoreWork(9))
        );
    }

    #[test]
    fn resubmission_changes_nothing() {
        let good = chain("alice", "2030-01-01", 1);
        assert_eq!(decide("alice", &good, &good, None), Ok(Ruling::Unchanged));
    }

    #[test]
    fn a_key_holds_one_name() {
        let held = name("bob");
        let bound = |key: &PublicKeyHash| (*key == hash(1)).then_some(&held);
        let none = ClaimChain::default();
        let update = chain("alice", "2030-01-01", 1);
        let mut registration = Registration {
            name: "alice",
            update: &update,
            existing: &none,
            reserved_for: None,
            allows_placeholder: true,
        };
        assert_eq!(
            registration.decide(&keys(), || None, bound),
            Err(RegistrationError::KeyBound)
        );
        // A key change to a key of somebody else is no way around it.
        let other = chain("alice", "2030-01-01", 2);
        let stolen = rekeyed(&other, "alice", 2, 1);
        (registration.existing, registration.update) = (&other, &stolen);
        assert_eq!(
            registration.decide(&keys(), || None, bound),
            Err(RegistrationError::KeyBound)
        );
        let renewed = chain("alice", "2031-01-01", 2);
        registration.update = &renewed;
        assert!(registration.decide(&keys(), || None, bound).is_ok());
    }

    #[test]
    fn a_reservation_is_for_one_key() {
        let none = ClaimChain::default();
        let update = chain("alice", "2030-01-01", 1);
        let (own, other) = (hash(1), hash(2));
        for (reserved_for, accepted) in [(&own, true), (&other, false)] {
            let result = Registration {
                name: "alice",
                update: &update,
                existing: &none,
                reserved_for: Some(reserved_for),
                allows_placeholder: true,
            }
            .decide(&keys(), || None, |_| None);
            match accepted {
                true => assert!(result.is_ok()),
                false => assert_eq!(
                    result.unwrap_err().to_string(),
                    "Username already reserved!"
                ),
            }
        }
    }

    #[test]
    fn claims_for_no_server_can_be_refused() {
        let none = ClaimChain::default();
        let update = chain("alice", "2030-01-01", 1);
        let renewed = chain("alice", "2031-01-01", 1);
        let mut registration = Registration {
            name: "alice",
            update: &update,
            existing: &none,
            reserved_for: None,
            allows_placeholder: false,
        };
        assert_eq!(
            registration.decide(&keys(), || None, |_| None),
            Err(RegistrationError::PlaceholderProvider)
        );
        // Accounts that are there already may renew.
        (registration.existing, registration.update) = (&update, &renewed);
        assert!(registration.decide(&keys(), || None, |_| None).is_ok());
    }
}

mod known {
    use super::*;

    #[test]
    fn a_changed_key_must_be_signed_by_the_old_one() {
        let mut known = KnownChains::new();
        let first = chain("alice", "2030-01-01", 1);
        let learn = |known: &mut KnownChains, chain: &ClaimChain| {
            known.learn(&name("alice"), chain, &keys())
        };
        assert_eq!(learn(&mut known, &first), Ok(Learned::FirstUse));
        assert_eq!(learn(&mut known, &first), Ok(Learned::Nothing));
        let other = chain("alice", "2031-01-01", 2);
        let error = learn(&mut known, &other).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the key of alice changed in a way that alice did not sign"
        );
        assert_eq!(known.chain(&name("alice")), Some(&first));
        let second = rekeyed(&first, "alice", 1, 2);
        assert_eq!(learn(&mut known, &second), Ok(Learned::Extended));
        assert!(matches!(
            learn(&mut known, &chain("bob", "2030-01-01", 1)),
            Err(NotTrusted::Invalid { .. })
        ));
        assert_eq!(known.chain(&name("alice")), Some(&second));
        assert_eq!(KnownChains::decode(&known.encode()), Ok(known));
    }

    #[test]
    fn two_names_with_one_key_do_not_break_anything() {
        let mut known = KnownChains::new();
        for user in ["bob", "alice"] {
            known
                .learn(&name(user), &chain(user, "2030-01-01", 1), &keys())
                .unwrap();
        }
        let known = KnownChains::decode(&known.encode()).unwrap();
        let names: Vec<_> = known.names_of(&hash(1)).cloned().collect();
        assert_eq!(names, [name("alice"), name("bob")]);
        assert_eq!(known.names_of(&hash(2)).count(), 0);
        assert_eq!(known.iter().len(), 2);
    }

    #[test]
    fn a_server_cannot_name_anybody_for_a_key() {
        let mut known = KnownChains::new();
        let alice = chain("alice", "2030-01-01", 1);
        assert_eq!(
            known.learn_owner(&hash(2), &name("alice"), &alice, &keys()),
            Err(NotTrusted::NotTheOwner {
                name: name("alice")
            })
        );
        assert_eq!(known, KnownChains::new());
        assert_eq!(
            known.learn_owner(&hash(1), &name("alice"), &alice, &keys()),
            Ok(Learned::FirstUse)
        );
        // Keys that held the name before count too.
        let second = rekeyed(&alice, "alice", 1, 2);
        assert_eq!(
            known.learn_owner(&hash(1), &name("alice"), &second, &keys()),
            Ok(Learned::Extended)
        );
    }

    #[test]
    fn stores_are_bounded() {
        assert_eq!(KnownChains::decode_file(&[0xa0]), Ok(KnownChains::new()));
        let large = vec![0; MAX_KNOWN_CHAINS_BYTES + 1];
        assert!(KnownChains::decode_file(&large).is_err());
        for bad in [&[0x80][..], &[0xa1, 0x60, 0x80], &[0xa1, 0x61, b'a', 0xa0]] {
            assert!(KnownChains::decode_file(bad).is_err());
        }
    }

    #[test]
    fn expired_chains_are_kept_and_accepted() {
        let mut known = KnownChains::new();
        let expired = chain("alice", "2019-01-01", 1);
        assert!(known.learn(&name("alice"), &expired, &keys()).is_ok());
    }
}

#[test]
fn the_name_of_the_chain_itself_is_never_believed() {
    let mine = chain("alice", "2030-01-01", 1);
    let other = chain("bob", "2031-01-01", 1);
    assert!(matches!(
        merge(&mine, &other),
        Err(MergeError::InvalidResult(InvalidChain::Claim(
            InvalidClaim::OtherName
        )))
    ));
}

#[test]
fn chains_cannot_be_rolled_back() {
    let old = chain("alice", "2030-01-01", 1);
    let new = rekeyed(&old, "alice", 1, 2);
    assert_eq!(merge(&new, &old), Err(MergeError::EarlierExpiry));
    let prefix = ClaimChain::new(new.links()[..1].to_vec()).unwrap();
    assert_eq!(merge(&new, &prefix), Err(MergeError::NothingNew));
    let back = rekeyed(&new, "alice", 2, 1);
    assert_eq!(merge(&new, &back), Err(MergeError::ReusedKey));
}

#[test]
fn a_useless_key_change_on_the_last_link_is_ignored() {
    let mut link = link("alice", "2030-01-01", 1);
    link.keychange = Some(Bytes::from_static(b"junk"));
    let chain = ClaimChain::single(link);
    assert_eq!(chain.valid(&name("alice"), &keys()), Ok(()));
    assert_eq!(ClaimChain::decode(&chain.encode()), Ok(chain));
}

#[test]
fn keys_named_by_block_are_fetched_and_checked() {
    use champ::{Block, MemoryBlocks};
    use futures_util::FutureExt;

    let block = Block::cbor(key(1).public().encode()).unwrap();
    let named = PublicKeyHash::try_new(block.cid().clone()).unwrap();
    let mut legacy = link("alice", "2030-01-01", 1);
    legacy.owner = Owner(named.clone());
    let chain = ClaimChain::single(legacy);
    assert_eq!(
        chain.valid(&name("alice"), &keys()),
        Err(InvalidChain::UnknownKey)
    );
    let mut blocks = MemoryBlocks::new();
    let mut gathered = keys();
    gathered.gather(&chain, &blocks).now_or_never().unwrap();
    assert_eq!(gathered.missing(&chain).count(), 1);
    blocks.insert(block.clone());
    gathered.gather(&chain, &blocks).now_or_never().unwrap();
    assert_eq!(gathered.missing(&chain).count(), 0);
    assert_eq!(chain.valid(&name("alice"), &gathered), Ok(()));

    let mut inserted = keys();
    let other = Block::cbor(key(2).public().encode()).unwrap();
    assert!(inserted.insert(&named, &other).is_err());
    inserted.insert(&named, &block).unwrap();
    assert_eq!(chain.valid(&name("alice"), &inserted), Ok(()));
}

#[test]
fn chains_are_bounded() {
    let links = vec![link("alice", "2030-01-01", 1); MAX_LINKS + 1];
    assert!(ClaimChain::new(links.clone()).is_err());
    let encoded = Value::List(links.iter().map(Record::to_value).collect());
    assert!(ClaimChain::from_value(encoded).is_err());
}

#[test]
fn renewal_and_migration_keep_the_key() {
    let old = chain("alice", "2030-02-28", 1);
    let moved = old
        .migrated(&name("alice"), Cid::of_raw(b"server"), &key(1))
        .unwrap();
    assert_eq!(moved.home(), Some(&Cid::of_raw(b"server")));
    assert_eq!(
        moved.last().map(|l| l.claim.expiry.to_string()).as_deref(),
        Some("2030-03-01")
    );
    assert_eq!(merge(&old, &moved), Ok(moved.clone()));
    assert!(moved.is_owned_by(&hash(1)));
    assert!(!moved.is_owned_by(&hash(2)));
    let forged = old
        .migrated(&name("alice"), Cid::of_raw(b"server"), &key(2))
        .unwrap();
    assert_eq!(merge(&old, &forged), Err(MergeError::OtherKey));
}
