//! `/peergos/v0/login/` (Spec: 08).

use bytes::Bytes;
use champ::{cbor::Record as _, text::to_hex};
use pki::{
    signed::SignedTime,
    wire::{
        Body as _,
        call::Call,
        login_data::{LoginData, LoginResponse},
        second_factor::{FactorAnswer, MultiFactorMethods, MultiFactorResponse, TotpKey},
    },
};

use super::{
    Asked, Auth, Endpoint, Kind, Takes, Text, Variant, case, fresh, may, needs, world::World,
};
use crate::conformance::{account::Account, accounts::code, harness::NOW};

const USER: super::Param = needs("username", Kind::User);
const TRUE: fn(&World, &[u8]) -> bool = |_, body| body == [0xf5];
const CBOR: &str = "application/cbor";
const STALE: &str = "Stale auth time, is your clock accurate?";
const WRONG: &str = "Incorrect username or password";

fn alice(_: &World) -> Asked {
    Asked::of([("username", "alice".to_owned())])
}

/// What most rows begin with: a change, signed for once.
const ROW: Endpoint = Endpoint {
    call: Call::AddTotp,
    params: &[USER],
    takes: Takes::Nothing,
    auth: Auth::OnceRequest,
    is_for_local_users: true,
    good: alice,
    reply: fresh("text/plain", |_, body| {
        let text = String::from_utf8(body.to_vec()).unwrap();
        text.len() == 105 && text.parse::<TotpKey>().is_ok()
    }),
    cases: &[],
    variants: &[],
};

fn set_login(who: &Account, data: &LoginData, signer: &Account) -> Asked {
    let auth = signer.identity.secret().sign_detached(&data.encode());
    Asked::of([("username", who.name.clone()), ("auth", to_hex(&auth))]).body(data.to_body())
}

fn data(world: &World, who: &Account) -> LoginData {
    who.login_data(&world.alice.login, 2)
}

/// Bob has no second factor, so he is given his record at once.
fn get_login(who: &Account, millis: i64) -> Asked {
    let time = SignedTime {
        epoch_millis: millis,
    };
    Asked::of([
        ("username", who.name.clone()),
        ("author", to_hex(&who.login.public().encode())),
        ("auth", to_hex(&time.sign(&who.login))),
    ])
}

fn code_of(world: &World, key: &TotpKey, millis: i64) -> Asked {
    let mut asked = alice(world);
    asked.set("credid", to_hex(&key.credential_id));
    asked.set("code", code(key, millis));
    asked
}

fn unknown_factor(_: &World) -> String {
    "Unknown credential id for user alice".to_owned()
}

fn registration(world: &World) -> Asked {
    let answer = world.authenticator().register(&world.challenge);
    let mut asked = alice(world).body(answer.encode());
    asked.set("keyname", "my key");
    asked
}

fn answered(world: &World, asked: &mut Asked, credential_id: &[u8], code: &str) {
    *asked = get_login(&world.alice, NOW);
    let answer = MultiFactorResponse {
        credential_id: Bytes::copy_from_slice(credential_id),
        answer: FactorAnswer::Code(code.to_owned()),
    };
    asked.set("mfa", to_hex(&answer.encode()));
}

pub(super) const ROWS: &[Endpoint] = &[
    Endpoint {
        call: Call::SetLogin,
        params: &[USER, needs("auth", Kind::Hex), may("local", Kind::Text)],
        takes: Takes::AtMost(16_384),
        auth: Auth::Own,
        good: |world| set_login(&world.bob, &data(world, &world.bob), &world.bob),
        reply: fresh("application/octet-stream", |_, body| body == [1]),
        cases: &[
            case(
                "unknown user",
                |world, asked| {
                    let who = world.stranger();
                    *asked = set_login(&who, &data(world, &who), &who);
                },
                Text::Is("No value present"),
            ),
            case(
                "a user of another server",
                |world, asked| {
                    let who = &world.carol;
                    *asked = set_login(who, &data(world, who), who);
                },
                Text::Begins("This server is not the home of the user"),
            ),
            case(
                "signed by somebody else",
                |world, asked| {
                    let data = data(world, &world.bob);
                    *asked = set_login(&world.bob, &data, &world.alice);
                },
                Text::Is("Invalid signature"),
            ),
            case(
                "signed over other data",
                |world, asked| {
                    let other = world.bob.login_data(&world.bob.login, 3);
                    asked.body = other.to_body();
                },
                Text::Is("Invalid signature"),
            ),
            case(
                "signature attached instead of detached",
                |world, asked| {
                    let data = data(world, &world.bob);
                    let signed = world.bob.identity.secret().sign_attached(&data.encode());
                    asked.set("auth", to_hex(&signed));
                },
                Text::Is("Invalid signature"),
            ),
            case(
                "an ill-formed signature comes before the body",
                |_, asked| {
                    asked.set("auth", "0");
                    asked.body = vec![0xff];
                },
                Text::Is("Invalid hex in parameter auth"),
            ),
            case(
                "bytes after the record",
                |_, asked| asked.body.push(0),
                Text::Begins(""),
            ),
        ],
        ..ROW
    },
    Endpoint {
        call: Call::GetLogin,
        params: &[
            USER,
            needs("author", Kind::Hex),
            needs("auth", Kind::Hex),
            may("proxy", Kind::Text),
            may("mfaTypes", Kind::Text),
            may("mfa", Kind::Hex),
        ],
        auth: Auth::Own,
        is_for_local_users: false,
        good: |world| get_login(&world.bob, NOW),
        reply: fresh(CBOR, |world, body| {
            let record = world.bob.login_data(&world.bob.login, 1).record;
            LoginResponse::decode(body).unwrap() == LoginResponse::Record(record)
        }),
        cases: &[
            case(
                "a key that is not this user's",
                |world, asked| {
                    *asked = get_login(&world.alice, NOW);
                    asked.set("username", "bob");
                },
                Text::Is(WRONG),
            ),
            case(
                "a time signed by another key",
                |world, asked| {
                    let time = SignedTime { epoch_millis: NOW };
                    asked.set("auth", to_hex(&time.sign(&world.alice.login)));
                },
                Text::Is("Invalid signature"),
            ),
            case(
                "a time of more than a day ago",
                |world, asked| *asked = get_login(&world.bob, NOW - 86_400_001),
                Text::Is(STALE),
            ),
            case(
                "a time more than a day ahead",
                |world, asked| *asked = get_login(&world.bob, NOW + 86_400_001),
                Text::Is(STALE),
            ),
            case(
                "a signed request instead of a time",
                |world, asked| {
                    let record = pki::signed::SignedRequest {
                        path: "peergos/v0/login/getLogin".to_owned(),
                        time: SignedTime { epoch_millis: NOW },
                    };
                    asked.set("auth", to_hex(&record.sign(&world.bob.login)));
                },
                Text::Is("Invalid cbor for time in authorisation!"),
            ),
            case(
                "a login key that is none",
                |_, asked| asked.set("author", "00"),
                Text::Begins("Invalid cbor for PublicSigningKey!"),
            ),
            case(
                "a kind of factor that is no number",
                |_, asked| asked.set("mfaTypes", "1,x"),
                Text::Begins(""),
            ),
            // LOG-2: who has no password learns nothing about factors.
            case(
                "a wrong key of a user with factors",
                |world, asked| {
                    *asked = get_login(&world.bob, NOW);
                    asked.set("username", "alice");
                },
                Text::Is(WRONG),
            ),
            case(
                "a wrong code",
                |world, asked| answered(world, asked, &world.totp.credential_id, "000000"),
                Text::Of(|world| {
                    let id = to_hex(&world.totp.credential_id);
                    format!("Invalid TOTP code for credId {id}")
                }),
            ),
            case(
                "a code for a factor that is not enabled",
                |world, asked| {
                    let key = &world.waiting_totp;
                    answered(world, asked, &key.credential_id, &code(key, NOW));
                },
                Text::Of(unknown_factor),
            ),
            case(
                "a code for nothing",
                |world, asked| answered(world, asked, &[], "123456"),
                Text::Of(unknown_factor),
            ),
        ],
        variants: &[
            Variant {
                name: "a user who moved and has space here still",
                change: |world, asked| *asked = get_login(&world.carol, NOW),
                body: |world, body| {
                    let record = world.carol.login_data(&world.carol.login, 1).record;
                    LoginResponse::decode(body).unwrap() == LoginResponse::Record(record)
                },
            },
            Variant {
                name: "a user with factors is asked for one",
                change: |world, asked| *asked = get_login(&world.alice, NOW),
                body: |world, body| {
                    let LoginResponse::SecondFactor(request) = LoginResponse::decode(body).unwrap()
                    else {
                        return false;
                    };
                    request.methods.0.len() == 1
                        && request.methods.0[0].credential_id == world.totp.credential_id[..]
                },
            },
            Variant {
                name: "factors of kinds the client does not know are left out",
                change: |world, asked| {
                    *asked = get_login(&world.alice, NOW);
                    asked.set("mfaTypes", "2");
                },
                body: |_, body| {
                    let LoginResponse::SecondFactor(request) = LoginResponse::decode(body).unwrap()
                    else {
                        return false;
                    };
                    request.methods.0.is_empty()
                },
            },
        ],
        ..ROW
    },
    Endpoint {
        call: Call::ListMfa,
        auth: Auth::Request(86_400),
        reply: fresh(CBOR, |world, body| {
            let listed = MultiFactorMethods::decode(body).unwrap().0;
            listed.len() == 1 && listed[0].credential_id == world.totp.credential_id[..]
        }),
        ..ROW
    },
    Endpoint {
        call: Call::AddTotp,
        ..ROW
    },
    Endpoint {
        call: Call::EnableTotp,
        params: &[USER, needs("credid", Kind::Hex), needs("code", Kind::Text)],
        good: |world| code_of(world, &world.waiting_totp, NOW),
        reply: fresh(CBOR, TRUE),
        cases: &[
            case(
                "unknown factor",
                |_, asked| asked.set("credid", "00".repeat(32)),
                Text::Of(unknown_factor),
            ),
            case(
                "a factor of another kind",
                |world, asked| asked.set("credid", to_hex(&world.waiting_mount.credential_id)),
                Text::Of(|world| {
                    let id = to_hex(&world.waiting_mount.credential_id);
                    format!("Second factor {id} is not a TOTP!")
                }),
            ),
            case(
                "a wrong code",
                |world, asked| asked.set("code", code(&world.waiting_totp, NOW + 30_000)),
                Text::Of(|world| {
                    let id = to_hex(&world.waiting_totp.credential_id);
                    format!("Invalid TOTP code for credId {id}")
                }),
            ),
        ],
        ..ROW
    },
    Endpoint {
        call: Call::AddMount,
        params: &[USER, needs("name", Kind::Text)],
        good: |world| {
            let mut asked = alice(world);
            asked.set("name", "my laptop");
            asked
        },
        cases: &[case(
            "a name of 33 characters",
            |_, asked| asked.set("name", "x".repeat(33)),
            Text::Is("Second factor names must be smaller than 33 characters"),
        )],
        ..ROW
    },
    Endpoint {
        call: Call::EnableMount,
        params: &[USER, needs("credid", Kind::Hex), needs("code", Kind::Text)],
        good: |world| code_of(world, &world.waiting_mount, NOW),
        reply: fresh(CBOR, TRUE),
        cases: &[case(
            "a factor of another kind",
            |world, asked| asked.set("credid", to_hex(&world.totp.credential_id)),
            Text::Of(|world| {
                let id = to_hex(&world.totp.credential_id);
                format!("Second factor {id} is not a MOUNT!")
            }),
        )],
        ..ROW
    },
    Endpoint {
        call: Call::GenBackupCodes,
        reply: fresh(CBOR, |_, body| {
            let codes = pki::wire::second_factor::BackupCodes::decode(body).unwrap();
            codes.codes.len() == 10
        }),
        cases: &[case(
            "a user without factors",
            |world, asked| {
                let path = "peergos/v0/login/genBackupCodes";
                asked.set("username", "bob");
                asked.set("auth", to_hex(&world.bob.request_auth(path, NOW)));
            },
            Text::Is(
                "Please set up an authenticator app or security key before generating backup codes.",
            ),
        )],
        ..ROW
    },
    Endpoint {
        call: Call::RegisterWebauthnStart,
        reply: fresh("application/octet-stream", |_, body| body.len() == 32),
        ..ROW
    },
    Endpoint {
        call: Call::RegisterWebauthnComplete,
        params: &[USER, needs("keyname", Kind::Text)],
        takes: Takes::AtMost(2048),
        good: registration,
        reply: fresh(CBOR, TRUE),
        cases: &[
            case(
                "a name of 33 characters",
                |_, asked| asked.set("keyname", "x".repeat(33)),
                Text::Is("Max second factor name length is 32 characters"),
            ),
            case(
                "an answer to a challenge that was not given",
                |world, asked| asked.body = world.authenticator().register(&[0; 32]).encode(),
                Text::Is("Security key refused: unknown challenge"),
            ),
            case(
                "a code instead of a key",
                |_, asked| {
                    let answer = MultiFactorResponse {
                        credential_id: Bytes::from_static(&[1; 32]),
                        answer: FactorAnswer::Code("123456".to_owned()),
                    };
                    asked.body = answer.encode();
                },
                Text::Is("Not a webauthn credential!"),
            ),
        ],
        ..ROW
    },
    Endpoint {
        call: Call::DeleteMfa,
        params: &[USER, needs("credid", Kind::Hex)],
        good: |world| {
            let mut asked = alice(world);
            asked.set("credid", to_hex(&world.totp.credential_id));
            asked
        },
        reply: fresh(CBOR, TRUE),
        ..ROW
    },
];
