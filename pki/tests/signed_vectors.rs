//! `signed_time.json`.

use std::time::{Duration, SystemTime};

use champ::cbor::Record;
use pki::{
    keys::SecretSigningKey,
    signed::{AuthorizationError, SignedRequest, SignedTime},
};

use crate::support::each;

const WINDOW: Duration = Duration::from_secs(300);

fn moment(epoch_millis: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(epoch_millis.unsigned_abs())
}

#[test]
fn signed_times_and_requests() {
    each(
        "signed_time.json",
        "kind",
        &[],
        vec![
            ("time", &mut |case| {
                let key = SecretSigningKey::from_seed(&case.array("seed"));
                let epoch_millis = case.int("millis");
                let time = SignedTime { epoch_millis };
                assert_eq!(time.encode(), case.hex("message"));
                let signed = time.sign(&key);
                assert_eq!(signed, case.hex("signed"));
                let now = moment(epoch_millis);
                let verified = SignedTime::verify(&signed, &key.public(), now, WINDOW);
                assert_eq!(verified, Ok(time));
            }),
            ("request", &mut |case| {
                let key = SecretSigningKey::from_seed(&case.array("seed"));
                let epoch_millis = case.int("millis");
                let path = case.str("path").to_owned();
                let time = SignedTime { epoch_millis };
                let request = SignedRequest { path, time };
                assert_eq!(request.encode(), case.hex("message"));
                let signed = request.sign(&key);
                assert_eq!(signed, case.hex("signed"));
                let now = moment(epoch_millis);
                let path = &request.path;
                let verified = SignedRequest::verify(&signed, &key.public(), path, now, WINDOW);
                assert_eq!(verified.as_ref(), Ok(&request));
                let other = format!("/{path}");
                let refused = SignedRequest::verify(&signed, &key.public(), &other, now, WINDOW);
                let path = path.clone();
                assert_eq!(refused, Err(AuthorizationError::Path { path }));
            }),
            ("window", &mut |case| {
                let epoch_millis = case.int("millis");
                let window = Duration::from_secs(case.int("window_seconds").unsigned_abs());
                let result = SignedTime { epoch_millis }.check_age(moment(case.int("now")), window);
                assert_eq!(result.is_ok(), case.flag("accept"), "{}", case.name());
            }),
            ("reject", &mut |case| {
                let key = SecretSigningKey::from_seed(&case.array("seed")).public();
                let now = moment(1_794_000_000_123);
                let refused = SignedTime::verify(&case.hex("signed"), &key, now, WINDOW);
                match (case.str("reason"), refused) {
                    ("signature", Err(AuthorizationError::Signature(_)))
                    | ("not a cbor integer", Err(AuthorizationError::Malformed)) => {}
                    (reason, result) => panic!("{reason}: {result:?}"),
                }
            }),
        ],
    );
}
