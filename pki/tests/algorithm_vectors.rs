//! The records in `scrypt.json`; the derivations are exercised where they are done.

use champ::cbor::Record;
use pki::algorithm::{LoginAlgorithm, Scrypt};

use crate::support::{Case, each};

fn scrypt(case: &Case, field: &str) -> Scrypt {
    let encoded = case.hex(field);
    let algorithm = LoginAlgorithm::decode(&encoded).unwrap();
    assert_eq!(algorithm.encode(), encoded, "{}", case.name());
    let LoginAlgorithm::Scrypt(scrypt) = algorithm else {
        panic!("{}: not derived", case.name());
    };
    scrypt
}

#[test]
fn records() {
    each(
        "scrypt.json",
        "kind",
        &["derive"],
        vec![
            ("algorithm", &mut |case| {
                let encoded = case.hex("cbor");
                let algorithm = LoginAlgorithm::decode(&encoded).unwrap();
                assert_eq!(algorithm.encode(), encoded, "{}", case.name());
                match algorithm {
                    LoginAlgorithm::Random => assert!(case.name().contains("random")),
                    LoginAlgorithm::Scrypt(scrypt) => {
                        assert_eq!((scrypt.memory_cost(), scrypt.block_size()), (17, 8));
                        let salt = scrypt.extra_salt();
                        assert_eq!(salt, case.text("extra_salt").unwrap_or(salt));
                    }
                }
            }),
            ("algorithm_invalid", &mut |case| {
                let refused = LoginAlgorithm::decode(&case.hex("cbor"));
                assert!(refused.is_err(), "{}", case.name());
            }),
            ("login", &mut |case| {
                let scrypt = scrypt(case, "algorithm_cbor");
                let length = case.hex("scrypt_output").len();
                assert_eq!(usize::try_from(scrypt.output_bytes()), Ok(length));
                assert_eq!(scrypt.is_legacy_layout(), length == 96);
                assert!(LoginAlgorithm::Scrypt(scrypt).login_work().is_ok());
            }),
            ("secret_link", &mut |case| {
                let fixed = LoginAlgorithm::secret_link();
                assert_eq!(
                    fixed,
                    LoginAlgorithm::Scrypt(scrypt(case, "algorithm_cbor"))
                );
            }),
        ],
    );
}
