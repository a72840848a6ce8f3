//! What nobody signed is refused; what strangers send never panics.

use champ::text::from_hex;
use node::webauthn::{
    Assertion, Challenge, CoseKey, MAX_PART_BYTES, Registered, Registration, Rejection,
    RelyingParty, StoredCredential, verify_assertion, verify_registration,
};
use pki::wire::second_factor::{FactorAnswer, MultiFactorResponse};
use proptest::prelude::*;

use super::{
    authenticator::{ALGORITHMS, Algorithm, Authenticator},
    vectors::vectors,
};

const CHALLENGE: Challenge = Challenge([0x42; 32]);

fn rp() -> RelyingParty {
    RelyingParty::new(Some("example.org"), 8000).unwrap()
}

fn authenticator(algorithm: Algorithm) -> Authenticator {
    Authenticator::new(algorithm, 7, "example.org", "https://example.org")
}

fn parts(response: &MultiFactorResponse) -> [&[u8]; 3] {
    match &response.answer {
        FactorAnswer::WebAuthn {
            authenticator_data,
            client_data,
            signature,
        } => [authenticator_data, client_data, signature],
        FactorAnswer::Code(_) => panic!("a code"),
    }
}

fn register(response: &MultiFactorResponse) -> Result<Registered, Rejection> {
    let [attestation_object, client_data, _] = parts(response);
    verify_registration(
        &Registration {
            credential_id: &response.credential_id,
            attestation_object,
            client_data,
        },
        &CHALLENGE,
        &rp(),
    )
}

fn login(stored: &StoredCredential, parts: [&[u8]; 3]) -> Result<u32, Rejection> {
    let [authenticator_data, client_data, signature] = parts;
    let answer = Assertion {
        authenticator_data,
        client_data,
        signature,
    };
    verify_assertion(stored, &answer, &CHALLENGE, &rp())
}

#[test]
fn each_algorithm_registers_and_logs_in_and_keys_do_not_answer_for_each_other() {
    let mut keys: Vec<_> = ALGORITHMS
        .into_iter()
        .map(|algorithm| {
            let authenticator = authenticator(algorithm);
            let registered = register(&authenticator.register(&CHALLENGE.0)).unwrap();
            assert_eq!(registered.credential_id.as_bytes(), [7; 20]);
            assert_eq!(registered.credential.counter, 0);
            assert_eq!(
                registered.credential.key.encode(),
                authenticator.cose_key(),
                "{algorithm:?}"
            );
            (authenticator, registered.credential)
        })
        .collect();
    for signer in 0..keys.len() {
        let response = keys[signer].0.assert(&CHALLENGE.0);
        for (other, (_, stored)) in keys.iter().enumerate() {
            let expected = if signer == other {
                Ok(1)
            } else {
                Err(Rejection::Signature)
            };
            assert_eq!(login(stored, parts(&response)), expected);
        }
    }
}

/// The signature that OpenSSL 3 makes with the same key.
#[test]
fn rs256_is_what_other_implementations_mean_by_it() {
    let signature = authenticator(Algorithm::Rs256).sign(b"a message");
    assert_eq!(champ::text::to_hex(&signature), OPENSSL_SIGNATURE);
}

const OPENSSL_SIGNATURE: &str = "63c8fdcce584649811dcdd1e44e2768d6cf258ee3ad0a7a7c8bcea8c677ec5666ce0d9543bcf416d2d2711e0c3ad6924\
    8f7f0bc4ba470e0741e7236728e4d86cad35ff94630d4f7a9f3b262e34c177cc12a0fcfecd48c03bba1ecd3795cb5257\
    1d031ce7133d3652551a53663e92b8e10cfe7ebe6977a33a8bc1d2bfb2818dd39a7933ecebc18a9fa008bba59f835335\
    cc0f311ed099af0230c4d03762bcdcbd5bc5a503b551b734753b0b63897f685c7d0ce411b50f0826ef3ecab97f2682ec\
    3be5e7a45b8a83ed9f90b75a0da0e87cfa917706ee2b0badb72e945fb77197d001ab92b737b48935f51bcd4a1684db21\
    322b22a4a95a8d0058c4eba05e4268a2";

#[test]
fn counters_only_grow() {
    for algorithm in ALGORITHMS {
        let mut authenticator = authenticator(algorithm);
        let mut stored = register(&authenticator.register(&CHALLENGE.0))
            .unwrap()
            .credential;
        for (stored_counter, presented, expected) in [
            (0, 0, Ok(0)),
            (0, 1, Ok(1)),
            (5, 6, Ok(6)),
            (5, 1000, Ok(1000)),
            (u32::MAX - 1, u32::MAX, Ok(u32::MAX)),
            (5, 5, Err(())),
            (5, 4, Err(())),
            (1, 0, Err(())),
            (u32::MAX, u32::MAX, Err(())),
            (u32::MAX, 0, Err(())),
        ] {
            stored.counter = stored_counter;
            authenticator.is_counting = false;
            authenticator.counter = presented;
            let response = authenticator.assert(&CHALLENGE.0);
            assert_eq!(
                login(&stored, parts(&response)),
                expected.map_err(|()| Rejection::Counter {
                    stored: stored_counter,
                    presented
                })
            );
        }
    }
}

#[test]
fn a_login_that_attests_a_credential_is_refused() {
    let mut authenticator = authenticator(Algorithm::EdDsa);
    let stored = register(&authenticator.register(&CHALLENGE.0))
        .unwrap()
        .credential;
    let registration = authenticator.register(&CHALLENGE.0);
    let [object, ..] = parts(&registration);
    let at = object.windows(8).position(|w| w == b"authData").unwrap() + 11;
    let response = authenticator.assert(&CHALLENGE.0);
    let [data, client_data, signature] = parts(&response);
    assert_eq!(
        login(&stored, [&object[at..], client_data, signature]),
        Err(Rejection::CredentialUnexpected)
    );
    // And a registration that attests none.
    let plain = [
        b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58\x25",
        data,
    ]
    .concat();
    let client_data = authenticator.client_data("webauthn.create", &CHALLENGE.0);
    let refused = verify_registration(
        &Registration {
            credential_id: &authenticator.credential_id,
            attestation_object: &plain,
            client_data: &client_data,
        },
        &CHALLENGE,
        &rp(),
    );
    assert_eq!(refused, Err(Rejection::CredentialMissing));
}

#[test]
fn overlong_parts_are_not_looked_at() {
    let long = vec![b' '; MAX_PART_BYTES + 1];
    let refused = Err(Rejection::TooLong(long.len()));
    let mut authenticator = authenticator(Algorithm::Es256);
    let registration = authenticator.register(&CHALLENGE.0);
    let stored = register(&registration).unwrap().credential;
    let [object, client_data, _] = parts(&registration);
    for (attestation_object, client_data) in [(&long[..], client_data), (object, &long[..])] {
        let registration = Registration {
            credential_id: &authenticator.credential_id,
            attestation_object,
            client_data,
        };
        let outcome = verify_registration(&registration, &CHALLENGE, &rp());
        assert_eq!(outcome.map(|_| 0), refused);
    }
    let response = authenticator.assert(&CHALLENGE.0);
    for which in 0..3 {
        let mut parts = parts(&response);
        parts[which] = &long;
        assert_eq!(login(&stored, parts), refused, "{which}");
    }
}

/// Every bit of every accepted log-in of the vectors is signed, or is the signature.
#[test]
fn a_flipped_bit_in_a_login_is_refused() {
    let mut flipped = 0;
    for case in vectors()
        .cases
        .iter()
        .filter(|c| c.is_login() && c.accepted)
    {
        let (stored, challenge, rp) = (case.stored(), case.challenge(), case.rp());
        let good = [
            case.authenticator_data(),
            case.client_data(),
            case.signature(),
        ];
        for part in 0..good.len() {
            // Verification is the slow part: one bit of each byte, another one in each byte.
            for at in 0..good[part].len() {
                let mut bad = good.clone();
                bad[part][at] ^= 1 << (at % 8);
                let answer = Assertion {
                    authenticator_data: &bad[0],
                    client_data: &bad[1],
                    signature: &bad[2],
                };
                assert!(verify_assertion(&stored, &answer, &challenge, &rp).is_err());
                flipped += 1;
            }
        }
    }
    assert!(flipped > 1000, "{flipped}");
}

/// Of a registration, what is compared must be exact; the rest is the authenticator's word, and stays its word.
#[test]
fn a_flipped_bit_in_a_registration_is_refused_or_changes_nothing_that_is_compared() {
    let authenticator = authenticator(Algorithm::Es256);
    let response = authenticator.register(&CHALLENGE.0);
    let [object, client_data, _] = parts(&response);
    let try_with = |object: &[u8], client_data: &[u8]| {
        verify_registration(
            &Registration {
                credential_id: &response.credential_id,
                attestation_object: object,
                client_data,
            },
            &CHALLENGE,
            &rp(),
        )
    };
    let good = try_with(object, client_data).unwrap();
    let until_cross_origin = client_data
        .windows(13)
        .position(|w| w == b",\"crossOrigin")
        .unwrap();
    let host = client_data.windows(3).position(|w| w == b"://").unwrap();
    for bit in 0..until_cross_origin * 8 {
        let mut bad = client_data.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        // Host names are compared without regard to case, and nothing else is.
        let is_same = bit / 8 >= host && bad.eq_ignore_ascii_case(client_data);
        assert_eq!(try_with(object, &bad).is_ok(), is_same, "bit {bit}");
    }
    for bit in 0..object.len() * 8 {
        let mut bad = object.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(registered) = try_with(&bad, client_data) {
            assert_eq!(registered.credential_id, good.credential_id);
        }
    }
}

proptest! {
    #[test]
    fn random_answers_are_refused(
        a in prop::collection::vec(any::<u8>(), 0..300),
        b in prop::collection::vec(any::<u8>(), 0..300),
        c in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let stored = StoredCredential {
            key: CoseKey::decode(&from_hex("a4010103272006215820e3da095d7623044498efa2d7acd85a372edbc0f769eb64b98337399a6dd88fef").unwrap()).unwrap(),
            counter: 0,
        };
        prop_assert!(login(&stored, [&a, &b, &c]).is_err());
        let client_data = authenticator(Algorithm::EdDsa).client_data("webauthn.get", &CHALLENGE.0);
        prop_assert!(login(&stored, [&a, &client_data, &c]).is_err());
        let client_data = authenticator(Algorithm::EdDsa).client_data("webauthn.create", &CHALLENGE.0);
        let registration = Registration {
            credential_id: &b,
            attestation_object: &a,
            client_data: &client_data,
        };
        prop_assert!(verify_registration(&registration, &CHALLENGE, &rp()).is_err());
    }

    #[test]
    fn other_challenges_and_sites_are_refused(challenge: [u8; 32], host in "[a-z]{1,10}\\.org") {
        let mut authenticator = authenticator(Algorithm::EdDsa);
        let stored = register(&authenticator.register(&CHALLENGE.0)).unwrap().credential;
        if challenge != CHALLENGE.0 {
            let response = authenticator.assert(&challenge);
            prop_assert_eq!(login(&stored, parts(&response)), Err(Rejection::Challenge));
        }
        if host != "example.org" {
            authenticator.rp_id = host.clone();
            let response = authenticator.assert(&CHALLENGE.0);
            prop_assert_eq!(login(&stored, parts(&response)), Err(Rejection::RelyingParty));
            authenticator.origin = format!("https://{host}");
            let response = authenticator.assert(&CHALLENGE.0);
            prop_assert_eq!(login(&stored, parts(&response)), Err(Rejection::Origin));
        }
    }
}
