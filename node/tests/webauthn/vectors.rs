//! `webauthn.json`: every case, its verdict, the reason for it, and the counter after it.

use champ::text::from_hex;
use node::webauthn::{
    Assertion, Challenge, CoseKey, Registration, Rejection, RelyingParty, StoredCredential,
    presented_challenge, verify_assertion, verify_registration,
};
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Vectors {
    pub(super) cases: Vec<Case>,
}

#[derive(Deserialize)]
pub(super) struct Case {
    name: String,
    key: String,
    case: String,
    server_origin: String,
    rp_id: String,
    challenge_hex: String,
    client_data_json: String,
    pub(super) accepted: bool,
    result: String,
    attestation_object_hex: Option<String>,
    authenticator_data_hex: Option<String>,
    signature_hex: Option<String>,
    registered_cose_key_hex: Option<String>,
    registered_credential_id_hex: Option<String>,
    registered_counter: Option<u32>,
    presented_credential_id_hex: Option<String>,
}

fn hex(text: &str) -> Vec<u8> {
    from_hex(text).unwrap()
}

pub(super) fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/webauthn.json")).unwrap()
}

/// The id under which every registration of the file is made.
const CREDENTIAL_ID: &str = "c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7";

impl Case {
    pub(super) fn is_login(&self) -> bool {
        match self.name.as_str() {
            "registration" => false,
            "login" => true,
            other => panic!("unknown kind of case: {other}"),
        }
    }

    pub(super) fn rp(&self) -> RelyingParty {
        let host = self.server_origin.strip_prefix("https://").unwrap();
        let rp = RelyingParty::new(Some(host), 8000).unwrap();
        assert_eq!(rp.id(), self.rp_id);
        assert!(rp.is_origin(&self.server_origin));
        rp
    }

    pub(super) fn challenge(&self) -> Challenge {
        Challenge(hex(&self.challenge_hex).try_into().unwrap())
    }

    pub(super) fn client_data(&self) -> Vec<u8> {
        self.client_data_json.clone().into_bytes()
    }

    pub(super) fn attestation_object(&self) -> Vec<u8> {
        hex(self.attestation_object_hex.as_ref().unwrap())
    }

    pub(super) fn authenticator_data(&self) -> Vec<u8> {
        hex(self.authenticator_data_hex.as_ref().unwrap())
    }

    pub(super) fn signature(&self) -> Vec<u8> {
        hex(self.signature_hex.as_ref().unwrap())
    }

    pub(super) fn stored(&self) -> StoredCredential {
        let cose = hex(self.registered_cose_key_hex.as_ref().unwrap());
        let key = CoseKey::decode(&cose).unwrap();
        assert_eq!(key.encode(), cose);
        StoredCredential {
            key,
            counter: self.registered_counter.unwrap(),
        }
    }

    /// The counter after success, or why not, in the words of the reference.
    fn expected(&self) -> Result<u32, Rejection> {
        if let Some(counter) = self.result.strip_prefix("ok counter=") {
            assert!(self.accepted);
            return Ok(counter.parse().unwrap());
        }
        assert!(!self.accepted);
        let words = self.result.strip_prefix("ERROR ").unwrap();
        Err(match words.split(':').next().unwrap() {
            "BadRpIdException" => Rejection::RelyingParty,
            "UserNotPresentException" => Rejection::UserAbsent,
            "InconsistentClientDataTypeException" => Rejection::ClientDataType {
                expected: if self.is_login() {
                    "webauthn.get"
                } else {
                    "webauthn.create"
                },
            },
            "BadChallengeException" => Rejection::Challenge,
            "BadOriginException" => Rejection::Origin,
            "BadSignatureException" => Rejection::Signature,
            "MaliciousCounterValueException" => Rejection::Counter {
                stored: self.registered_counter.unwrap(),
                presented: u32::from_be_bytes(
                    self.authenticator_data()[33..37].try_into().unwrap(),
                ),
            },
            other => panic!("unknown reason: {other}"),
        })
    }
}

pub(super) fn register(case: &Case) -> Result<StoredCredential, Rejection> {
    let id = hex(CREDENTIAL_ID);
    let registered = verify_registration(
        &Registration {
            credential_id: &id,
            attestation_object: &case.attestation_object(),
            client_data: case.client_data_json.as_bytes(),
        },
        &case.challenge(),
        &case.rp(),
    )?;
    assert_eq!(registered.credential_id.as_bytes(), id);
    Ok(registered.credential)
}

#[test]
fn all_registrations_and_logins_end_as_the_vectors_say() {
    let cases = vectors().cases;
    assert_eq!(cases.len(), 50);
    let (mut registrations, mut logins) = (0, 0);
    for case in &cases {
        let what = format!("{} {} {}", case.name, case.key, case.case);
        let presented = presented_challenge(case.client_data_json.as_bytes()).unwrap();
        assert_eq!(
            presented == case.challenge(),
            case.expected() != Err(Rejection::Challenge),
            "{what}"
        );
        if case.is_login() {
            logins += 1;
            let stored = case.stored();
            // Which key an answer is checked with is the caller's choice, made by credential id: the reference
            // does not look at the id of the answer either.
            assert_eq!(
                case.presented_credential_id_hex == case.registered_credential_id_hex,
                case.case != "other credential id"
            );
            let outcome = verify_assertion(
                &stored,
                &Assertion {
                    authenticator_data: &case.authenticator_data(),
                    client_data: case.client_data_json.as_bytes(),
                    signature: &case.signature(),
                },
                &case.challenge(),
                &case.rp(),
            );
            assert_eq!(outcome, case.expected(), "{what}");
        } else {
            registrations += 1;
            let outcome = register(case);
            assert_eq!(
                outcome.as_ref().map(|stored| stored.counter),
                case.expected().as_ref().map(|counter| *counter),
                "{what}"
            );
            // The same keys are used by the log-ins.
            let login = cases
                .iter()
                .find(|other| other.is_login() && other.key == case.key)
                .unwrap();
            if let Ok(stored) = outcome {
                assert_eq!(stored.key, login.stored().key);
            }
        }
    }
    assert_eq!((registrations, logins), (24, 26));
}

#[test]
fn the_credential_id_of_an_answer_is_the_attested_one() {
    let cases = vectors().cases;
    let case = cases.iter().find(|case| case.accepted).unwrap();
    for id in [&[][..], &[0xc8], &[0; 32]] {
        let outcome = verify_registration(
            &Registration {
                credential_id: id,
                attestation_object: &case.attestation_object(),
                client_data: case.client_data_json.as_bytes(),
            },
            &case.challenge(),
            &case.rp(),
        );
        assert_eq!(outcome, Err(Rejection::CredentialIdMismatch));
    }
}
