//! `/peergos/v0/core/`: names, sign-up, mirrors (Spec: 10 §6).

use champ::{cbor::Record as _, data_stream::Writer};
use futures_util::FutureExt as _;
use pki::{
    chain::ClaimChain,
    wire::{
        Body as _,
        call::Call,
        mirror::{
            CompletePaidMirror, MigrateRequest, MirrorRequest, SnapshotsRequest, StartPaidMirror,
        },
        payment::PaymentProperties,
        signup::{
            CompletePaidSignup, SentLinks, SignupRequest, StartPaidSignup, UpdateChainRequest,
        },
    },
};

use super::{Asked, Auth, Case, Endpoint, Reply, Takes, Text, Variant, case, fresh, world::World};
use crate::conformance::{account::Account, harness::NOW};

const BYTES: &str = "application/octet-stream";
const CBOR: &str = "application/cbor";
const NEVER: fn(&World, &[u8]) -> bool = |_, body| body == [0, 0, 0, 1, 0];

const ROW: Endpoint = Endpoint {
    call: Call::GetChain,
    params: &[],
    takes: Takes::AtMost(4096),
    auth: Auth::Own,
    is_for_local_users: false,
    good: |_| name("alice"),
    reply: fresh(CBOR, |_, _| true),
    cases: &[],
    variants: &[],
};

fn name(name: &str) -> Asked {
    Asked::default().body(Writer::new().string(name).finish())
}

fn empty_proof() -> Vec<u8> {
    pki::proof_of_work::ProofOfWork::empty().encode()
}

/// A new user, who signs up.
fn dave() -> Account {
    Account::new("dave", 20)
}

fn sign_up(world: &World) -> SignupRequest {
    signs_up(world, &dave())
}

/// Making a request waits for nothing: blocks are in memory.
fn signs_up(world: &World, who: &Account) -> SignupRequest {
    who.request(&world.node).now_or_never().unwrap()
}

fn spoiled(asked: &mut Asked, world: &World, spoil: impl FnOnce(&mut SignupRequest)) {
    let mut request = sign_up(world);
    spoil(&mut request);
    asked.body = request.to_body();
}

fn renewal(world: &World, who: &Account, days: i64) -> UpdateChainRequest {
    let expiry = pki::claim::default_expiry(NOW / 1000 + days * 86_400);
    let chain = ClaimChain::single(who.link(&world.node)).with_last_claim(
        &who.name.parse().unwrap(),
        expiry,
        world.node.node.id().clone(),
        who.identity.secret(),
    );
    UpdateChainRequest {
        username: who.name.clone(),
        chain: SentLinks::new(chain.unwrap()),
        proof: empty_proof().into(),
        token: String::new(),
    }
}

fn elsewhere(world: &World, who: &Account) -> SentLinks<pki::chain::ClaimLink> {
    let moved = ClaimChain::single(who.link(&world.node)).with_last_claim(
        &who.name.parse().unwrap(),
        pki::claim::default_expiry(NOW / 1000),
        champ::Cid::parse_peer_id("12D3KooWEnCzE4uSeniFaCGXQuV1UnYkvqvbQJnYC363S2abgknr").unwrap(),
        who.identity.secret(),
    );
    SentLinks::new(moved.unwrap().links()[0].clone())
}

fn wrong_host(_: &World) -> String {
    let id = champ::Cid::parse_peer_id("12D3KooWEnCzE4uSeniFaCGXQuV1UnYkvqvbQJnYC363S2abgknr");
    format!("Trying to signup to wrong host! {}", id.unwrap())
}

fn start_paid(world: &World) -> StartPaidSignup {
    StartPaidSignup {
        username: "dave".to_owned(),
        link: SentLinks::new(dave().link(&world.node)),
        proof: empty_proof().into(),
    }
}

fn complete_paid(world: &World) -> CompletePaidSignup {
    let request = sign_up(world);
    CompletePaidSignup {
        username: request.username,
        link: request.link,
        ops: request.ops,
        proof: request.proof,
        space_request: b"".as_slice().into(),
    }
}

fn is_unpaid(_: &World, body: &[u8]) -> bool {
    PaymentProperties::decode(body).unwrap()
        == PaymentProperties {
            error: Some("This server does not sell storage".to_owned()),
            ..PaymentProperties::default()
        }
}

fn time_of(who: &Account, millis: i64) -> bytes::Bytes {
    champ::text::from_hex(&who.time(millis)).unwrap().into()
}

fn mirror(who: &Account, millis: i64) -> MirrorRequest {
    MirrorRequest {
        username: who.name.clone(),
        bat: who.mirror_with_id(),
        auth: time_of(who, millis),
        proof: empty_proof().into(),
    }
}

fn chain_of(who: &Account, world: &World) -> Vec<u8> {
    ClaimChain::single(who.link(&world.node)).encode()
}

const SIGN_UP_CASES: &[Case] = &[
    case(
        "a name that cannot be registered",
        |world, asked| spoiled(asked, world, |request| request.username = "Dave".to_owned()),
        Text::Is("Invalid username"),
    ),
    case(
        "a name with a line feed",
        |world, asked| spoiled(asked, world, |request| request.username.push('\n')),
        Text::Is("Invalid username"),
    ),
    case(
        "a claim for another server",
        |world, asked| {
            let link = elsewhere(world, &dave());
            spoiled(asked, world, |request| request.link = link);
        },
        Text::Of(wrong_host),
    ),
    // The server is looked at before the name.
    case(
        "another server and a bad name",
        |world, asked| {
            let link = elsewhere(world, &dave());
            spoiled(asked, world, |request| {
                request.link = link;
                request.username = "Dave".to_owned();
            });
        },
        Text::Of(wrong_host),
    ),
    case(
        "the claim of another name",
        |world, asked| {
            let link = SentLinks::new(Account::new("erin", 20).link(&world.node));
            spoiled(asked, world, |request| request.link = link);
        },
        Text::Begins(""),
    ),
    case(
        "a name that is taken",
        |world, asked| {
            asked.body = signs_up(world, &Account::new("alice", 20)).to_body();
        },
        Text::Is("User already exists: Invalid key change attempt!"),
    ),
    case(
        "a key that has a name",
        |world, asked| {
            asked.body = signs_up(world, &Account::new("dave", 7)).to_body();
        },
        Text::Begins(""),
    ),
    case(
        "login data of another name",
        |world, asked| {
            spoiled(asked, world, |request| {
                let login = request.ops.login.as_mut().unwrap();
                login.data.username = "erin".parse().unwrap();
            });
        },
        Text::Is("Invalid signup data!"),
    ),
    case(
        "login data signed by another key",
        |world, asked| {
            let secret = world.bob.identity.secret();
            spoiled(asked, world, |request| {
                let login = request.ops.login.as_mut().unwrap();
                login.auth = secret.sign_detached(&login.data.encode());
            });
        },
        Text::Is("Invalid signature"),
    ),
];

pub(super) const ROWS: &[Endpoint] = &[
    Endpoint {
        reply: fresh(CBOR, |world, body| body == chain_of(&world.alice, world)),
        variants: &[
            Variant {
                name: "a name that nobody has",
                change: |_, asked| *asked = name("nobody"),
                body: |_, body| body == [0x80],
            },
            Variant {
                name: "a name that nobody can have",
                change: |_, asked| *asked = name("../x"),
                body: |_, body| body == [0x80],
            },
        ],
        cases: &[case(
            "a name of 1025 bytes",
            |_, asked| *asked = name(&"a".repeat(1025)),
            Text::Begins("malformed body"),
        )],
        ..ROW
    },
    Endpoint {
        call: Call::GetPublicKey,
        reply: fresh(BYTES, |world, body| {
            let hash = world.alice.identity.hash().encode();
            body == Writer::new().boolean(true).bytes(&hash).finish()
        }),
        variants: &[Variant {
            name: "a name that nobody has",
            change: |_, asked| *asked = name("nobody"),
            body: |_, body| body == [0],
        }],
        ..ROW
    },
    Endpoint {
        call: Call::GetUsername,
        takes: Takes::AtMost((1 << 20) + 4),
        good: |world| {
            let hash = world.alice.identity.hash().encode();
            Asked::default().body(Writer::new().bytes(&hash).finish())
        },
        reply: fresh(BYTES, |_, body| {
            body == Writer::new().string("alice").finish()
        }),
        cases: &[case(
            "a key of nobody",
            |world, asked| {
                let hash = world.stranger().identity.hash().encode();
                asked.body = Writer::new().bytes(&hash).finish();
            },
            Text::Of(|world| format!("Unknown identity key: {}", world.stranger().owner())),
        )],
        ..ROW
    },
    Endpoint {
        call: Call::GetUsernames,
        takes: Takes::Nothing,
        good: |_| Asked::default(),
        reply: fresh("application/json", |_, body| {
            let mut json = String::new();
            let mut gzip = flate2::read::GzDecoder::new(body);
            std::io::Read::read_to_string(&mut gzip, &mut json).unwrap();
            json == r#"["admin1","alice","bob","carol","peergos"]"#
        }),
        ..ROW
    },
    Endpoint {
        call: Call::Signup,
        takes: Takes::AtMost(SignupRequest::MAX_BYTES),
        good: |world| Asked::default().body(sign_up(world).to_body()),
        reply: fresh(BYTES, |_, body| body == [1]),
        cases: SIGN_UP_CASES,
        ..ROW
    },
    Endpoint {
        call: Call::UpdateChain,
        takes: Takes::AtMost(UpdateChainRequest::MAX_BYTES),
        good: |world| Asked::default().body(renewal(world, &world.alice, 30).to_body()),
        reply: fresh(BYTES, |_, body| body == [1]),
        cases: &[
            case(
                "a name that is not registered",
                |world, asked| asked.body = renewal(world, &dave(), 30).to_body(),
                Text::Begins(""),
            ),
            case(
                "an earlier expiry",
                |world, asked| asked.body = renewal(world, &world.alice, -1).to_body(),
                Text::Is("New claim chain expiry before existing!"),
            ),
            case(
                "another key",
                |world, asked| {
                    let mallory = Account::new("alice", 66);
                    asked.body = renewal(world, &mallory, 30).to_body();
                },
                Text::Is("User already exists: Invalid key change attempt!"),
            ),
            case(
                "the chain of another name",
                |world, asked| {
                    let mut request = renewal(world, &world.bob, 30);
                    request.username = "alice".to_owned();
                    asked.body = request.to_body();
                },
                Text::Begins(""),
            ),
        ],
        variants: &[Variant {
            name: "what is there already",
            change: |world, asked| {
                asked.body = {
                    let mut request = renewal(world, &world.bob, 0);
                    request.chain = SentLinks::new(ClaimChain::single(world.bob.link(&world.node)));
                    request.to_body()
                }
            },
            body: |_, body| body == [1],
        }],
        ..ROW
    },
    Endpoint {
        call: Call::StartPaidSignup,
        takes: Takes::AtMost(StartPaidSignup::MAX_BYTES),
        good: |world| Asked::default().body(start_paid(world).to_body()),
        reply: fresh(BYTES, NEVER),
        cases: &[case(
            "a claim for another server",
            |world, asked| {
                let mut request = start_paid(world);
                request.link = elsewhere(world, &dave());
                asked.body = request.to_body();
            },
            Text::Of(wrong_host),
        )],
        ..ROW
    },
    Endpoint {
        call: Call::CompletePaidSignup,
        takes: Takes::AtMost(CompletePaidSignup::MAX_BYTES),
        good: |world| Asked::default().body(complete_paid(world).to_body()),
        reply: fresh(CBOR, is_unpaid),
        cases: &[case(
            "a claim for another server",
            |world, asked| {
                let mut request = complete_paid(world);
                request.link = elsewhere(world, &dave());
                asked.body = request.to_body();
            },
            Text::Of(wrong_host),
        )],
        ..ROW
    },
    Endpoint {
        call: Call::Mirror,
        takes: Takes::AtMost(MirrorRequest::MAX_BYTES),
        // Carol has moved to another server and kept her space here.
        good: |world| Asked::default().body(mirror(&world.carol, NOW).to_body()),
        reply: fresh(BYTES, |_, body| body == [1]),
        cases: &[
            case(
                "a name that is not registered",
                |_, asked| asked.body = mirror(&dave(), NOW).to_body(),
                Text::Is("No value present"),
            ),
            case(
                "a time of more than ten minutes ago",
                |world, asked| asked.body = mirror(&world.alice, NOW - 600_001).to_body(),
                Text::Is("Stale auth time, is your clock accurate?"),
            ),
            case(
                "a time of another user",
                |world, asked| {
                    let mut request = mirror(&world.alice, NOW);
                    request.auth = time_of(&world.bob, NOW);
                    asked.body = request.to_body();
                },
                Text::Is("Invalid signature"),
            ),
            case(
                "a token under another id",
                |world, asked| {
                    let mut request = mirror(&world.alice, NOW);
                    request.bat.id = world.bob.mirror.secret_hash_id();
                    asked.body = request.to_body();
                },
                Text::Is("Invalid BAT id for BAT"),
            ),
        ],
        ..ROW
    },
    Endpoint {
        call: Call::StartPaidMirror,
        takes: Takes::AtMost(StartPaidMirror::MAX_BYTES),
        good: |world| {
            let request = StartPaidMirror {
                username: "alice".to_owned(),
                auth: time_of(&world.alice, NOW),
                proof: empty_proof().into(),
            };
            Asked::default().body(request.to_body())
        },
        reply: fresh(BYTES, NEVER),
        ..ROW
    },
    Endpoint {
        call: Call::CompletePaidMirror,
        takes: Takes::AtMost(CompletePaidMirror::MAX_BYTES),
        good: |world| {
            let request = CompletePaidMirror {
                username: "alice".to_owned(),
                bat: world.alice.mirror_with_id(),
                proof: empty_proof().into(),
                space_request: b"".as_slice().into(),
            };
            Asked::default().body(request.to_body())
        },
        reply: fresh(CBOR, is_unpaid),
        ..ROW
    },
    Endpoint {
        call: Call::GetUserSnapshots,
        takes: Takes::AtMost(SnapshotsRequest::MAX_BYTES),
        good: |world| {
            let request = SnapshotsRequest {
                cursor: String::new(),
                instance_bat: world.alice.mirror_with_id(),
                after_epoch_seconds: 0,
            };
            Asked::default().body(request.to_body())
        },
        reply: Reply::Refused("This server does not have an instance bat."),
        ..ROW
    },
    Endpoint {
        call: Call::MigrateUser,
        takes: Takes::AtMost(MigrateRequest::MAX_BYTES),
        // The move itself takes two nodes: network::migration.
        good: |world| {
            let request = MigrateRequest {
                username: "alice".to_owned(),
                chain: ClaimChain::single(world.alice.link(&world.node)),
                current_server: world.node.node.id().clone(),
                bat: None,
                after_epoch_seconds: 0,
                usage_bytes: 0,
                commit: true,
            };
            Asked::default().body(request.to_body())
        },
        reply: Reply::Refused("The new claim does not move the user to another server"),
        ..ROW
    },
];
