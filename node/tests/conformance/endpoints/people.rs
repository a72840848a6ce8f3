//! `storage`, `admin`, `bats`, `server-message` and `social` (Spec: 09, 22 §3).

use champ::{
    access::Bat,
    cbor::{Record as _, Value, decode},
    text::to_hex,
};
use pki::wire::{
    call::Call,
    message::{MessageKind, ServerMessage},
    payment::{LabelledSpaceRequest, PaymentProperties, PendingSpaceRequests},
};

use super::{
    Asked, Auth, Endpoint, Kind, Takes, Text, Variant, case, fresh, may, needs,
    world::{World, follow_request, space_request},
};
use crate::conformance::{account::Account, harness::NOW};

const OWNER: super::Param = needs("owner", Kind::Owner);
const USER: super::Param = needs("username", Kind::User);
const CBOR: &str = "application/cbor";
const BYTES: &str = "application/octet-stream";
const TRUE: fn(&World, &[u8]) -> bool = |_, body| body == [0xf5];
const STALE: &str = "Stale auth time, is your clock accurate?";

fn owner(world: &World) -> Asked {
    Asked::of([("owner", world.alice.owner().to_string())])
}

fn username(_: &World) -> Asked {
    Asked::of([("username", "alice".to_owned())])
}

fn is_integer(_: &World, body: &[u8]) -> bool {
    matches!(decode(body), Ok(Value::Int(n)) if n > 0)
}

fn is_free_of_charge(_: &World, body: &[u8]) -> bool {
    body == PaymentProperties::free(1 << 40).encode()
}

const ROW: Endpoint = Endpoint {
    call: Call::Usage,
    params: &[OWNER],
    takes: Takes::Nothing,
    auth: Auth::Time(300),
    is_for_local_users: true,
    good: owner,
    reply: fresh(CBOR, is_integer),
    cases: &[],
    variants: &[],
};

fn wish(world: &World, who: &Account, name: &str, bytes: i64, millis: i64) -> Asked {
    let mut asked = owner(world);
    asked.set("req", to_hex(&space_request(who, name, bytes, millis)));
    asked
}

fn administration(world: &World, who: &Account) -> Asked {
    Asked::of([
        ("admin", who.owner().to_string()),
        ("instance", world.node.node.id().to_string()),
    ])
}

fn pending(world: &World, who: &Account, millis: i64) -> Asked {
    let mut asked = administration(world, who);
    asked.set("auth", who.time(millis));
    asked
}

fn approval(world: &World, who: &Account, signed: &[u8], name: &str) -> Asked {
    let labelled = LabelledSpaceRequest {
        signed: signed.to_vec().into(),
        username: name.parse().unwrap(),
    };
    let signed = who.identity.secret().sign_attached(&labelled.encode());
    let mut asked = administration(world, who);
    asked.set("req", to_hex(&signed));
    asked
}

fn bat() -> Bat {
    Bat::from_secret([9; 32])
}

fn message(who: &Account, kind: MessageKind, millis: i64, body: &str) -> Vec<u8> {
    let message = ServerMessage {
        id: -1,
        kind,
        sent_epoch_millis: millis,
        body: body.to_owned(),
        reply_to: None,
        is_dismissed: false,
    };
    who.identity.secret().sign_attached(&message.encode())
}

pub(super) const ROWS: &[Endpoint] = &[
    Endpoint {
        params: &[OWNER, may("local", Kind::Text)],
        variants: &[Variant {
            name: "with what is not committed yet",
            change: |_, asked| asked.set("local", "True"),
            body: is_integer,
        }],
        ..ROW
    },
    Endpoint {
        call: Call::Quota,
        reply: fresh(CBOR, |_, body| body == Value::Int(1 << 40).encode()),
        ..ROW
    },
    Endpoint {
        call: Call::PaymentProperties,
        params: &[OWNER, needs("new-client-secret", Kind::Text)],
        good: |world| {
            let mut asked = owner(world);
            asked.set("new-client-secret", "false");
            asked
        },
        reply: fresh(CBOR, is_free_of_charge),
        ..ROW
    },
    Endpoint {
        call: Call::RequestSpace,
        params: &[OWNER, needs("req", Kind::Hex)],
        auth: Auth::Own,
        good: |world| wish(world, &world.alice, "alice", 7000, NOW + 1),
        reply: fresh(CBOR, is_free_of_charge),
        cases: &[
            case(
                "signed by somebody else",
                |world, asked| *asked = wish(world, &world.bob, "alice", 7000, NOW),
                Text::Is("Invalid signature"),
            ),
            case(
                "for somebody else",
                |world, asked| *asked = wish(world, &world.alice, "bob", 7000, NOW),
                Text::Is("Space request is for another user"),
            ),
            case(
                "too old",
                |world, asked| *asked = wish(world, &world.alice, "alice", 7000, NOW - 300_001),
                Text::Begins("Stale auth time in space request!"),
            ),
            case(
                "from the future",
                |world, asked| *asked = wish(world, &world.alice, "alice", 7000, NOW + 300_001),
                Text::Begins("Stale auth time in space request!"),
            ),
            case(
                "negative",
                |world, asked| *asked = wish(world, &world.alice, "alice", -1, NOW),
                Text::Begins("Invalid space request"),
            ),
            case(
                "above 2^53",
                |world, asked| *asked = wish(world, &world.alice, "alice", (1 << 53) + 1, NOW),
                Text::Begins("Invalid space request"),
            ),
        ],
        variants: &[Variant {
            name: "an older request than the pending one changes nothing",
            change: |world, asked| *asked = wish(world, &world.alice, "alice", 1, NOW - 1),
            body: is_free_of_charge,
        }],
        ..ROW
    },
    Endpoint {
        call: Call::Version,
        params: &[],
        auth: Auth::Own,
        good: |_| Asked::default(),
        reply: fresh(CBOR, |_, body| {
            let version = env!("CARGO_PKG_VERSION");
            let expected = [
                &[0xa2, 0x61, b's', 0x60, 0x61, b'v'][..],
                &Value::from(version).encode(),
            ];
            body == expected.concat()
        }),
        ..ROW
    },
    Endpoint {
        call: Call::Signups,
        params: &[],
        auth: Auth::Own,
        good: |_| Asked::default(),
        reply: fresh(CBOR, |_, body| to_hex(body) == "a26166f56170f4"),
        ..ROW
    },
    Endpoint {
        call: Call::Waitlist,
        params: &[needs("email", Kind::Text)],
        auth: Auth::Own,
        good: |_| Asked::of([("email", "c+d@example.com".to_owned())]),
        reply: fresh(CBOR, TRUE),
        variants: &[
            Variant {
                name: "not an address",
                change: |_, asked| asked.set("email", "notanemail"),
                body: |_, body| body == [0xf4],
            },
            Variant {
                name: "an address with a line feed",
                change: |_, asked| asked.set("email", "a@example.com\n"),
                body: |_, body| body == [0xf4],
            },
            Variant {
                name: "an address of 257 characters",
                change: |_, asked| {
                    asked.set("email", format!("{}@example.com", "a".repeat(245)));
                },
                body: |_, body| body == [0xf4],
            },
        ],
        ..ROW
    },
    Endpoint {
        call: Call::Pending,
        params: &[
            needs("admin", Kind::Key),
            needs("instance", Kind::Peer),
            needs("auth", Kind::Hex),
        ],
        auth: Auth::Own,
        good: |world| pending(world, &world.admin, NOW + 10),
        reply: fresh(CBOR, |world, body| {
            let list = PendingSpaceRequests::decode(body).unwrap().0;
            list.len() == 1 && list[0].signed == world.space_request
        }),
        cases: &[
            case(
                "signed by somebody else",
                |world, asked| asked.set("auth", world.alice.time(NOW + 5)),
                Text::Is("Invalid signature"),
            ),
            case(
                "a minute old",
                |world, asked| asked.set("auth", world.admin.time(NOW - 60_001)),
                Text::Is(STALE),
            ),
            case(
                "more than a minute ahead",
                |world, asked| asked.set("auth", world.admin.time(NOW + 60_001)),
                Text::Is(STALE),
            ),
            case(
                "of the moment the node started, or before",
                |world, asked| asked.set("auth", world.admin.time(NOW)),
                Text::Is("Replay attack? Stale auth time for getPendingSpaceRequests"),
            ),
            case(
                "another server",
                |_, asked| {
                    let id = "12D3KooWEnCzE4uSeniFaCGXQuV1UnYkvqvbQJnYC363S2abgknr";
                    asked.set("instance", id);
                },
                Text::Is("This is another server"),
            ),
            case(
                "a key of nobody",
                |world, asked| *asked = pending(world, &world.stranger(), NOW + 5),
                Text::Of(|world| format!("Unknown identity key: {}", world.stranger().owner())),
            ),
        ],
        variants: &[Variant {
            name: "an ordinary user sees an empty list",
            change: |world, asked| *asked = pending(world, &world.alice, NOW + 5),
            body: |_, body| body == [0x80],
        }],
        ..ROW
    },
    Endpoint {
        call: Call::Approve,
        params: &[
            needs("admin", Kind::Key),
            needs("instance", Kind::Peer),
            needs("req", Kind::Hex),
        ],
        auth: Auth::Own,
        good: |world| approval(world, &world.admin, &world.space_request, "alice"),
        reply: fresh(CBOR, TRUE),
        cases: &[
            case(
                "an ordinary user",
                |world, asked| {
                    *asked = approval(world, &world.alice, &world.space_request, "alice");
                },
                Text::Is("User is not an admin on this instance!"),
            ),
            case(
                "signed by somebody else",
                |world, asked| {
                    let by_alice = approval(world, &world.alice, &world.space_request, "alice");
                    let (_, request) = &by_alice.query[2];
                    asked.set("req", request);
                },
                Text::Is("Invalid signature"),
            ),
            case(
                "another server",
                |_, asked| {
                    let id = "12D3KooWEnCzE4uSeniFaCGXQuV1UnYkvqvbQJnYC363S2abgknr";
                    asked.set("instance", id);
                },
                Text::Is("This is another server"),
            ),
            case(
                "an unknown user",
                |world, asked| {
                    *asked = approval(world, &world.admin, &world.space_request, "nobody");
                },
                Text::Is("Couldn't lookup user key!"),
            ),
            case(
                "a request that its user did not sign",
                |world, asked| {
                    let forged = space_request(&world.admin, "alice", 9000, NOW);
                    *asked = approval(world, &world.admin, &forged, "alice");
                },
                Text::Is("Invalid signature"),
            ),
            case(
                "under another name",
                |world, asked| {
                    let other = space_request(&world.bob, "alice", 9000, NOW);
                    *asked = approval(world, &world.admin, &other, "bob");
                },
                Text::Is("Space request is for another user"),
            ),
            case(
                "a request that is not pending",
                |world, asked| {
                    let other = space_request(&world.alice, "alice", 9000, NOW);
                    *asked = approval(world, &world.admin, &other, "alice");
                },
                Text::Is("This space request is not pending"),
            ),
        ],
        ..ROW
    },
    Endpoint {
        call: Call::GetUserBats,
        params: &[USER],
        auth: Auth::Request(300),
        good: username,
        reply: fresh(CBOR, |world, body| {
            body == Value::List(vec![world.alice.mirror_with_id().to_value()]).encode()
        }),
        ..ROW
    },
    Endpoint {
        call: Call::AddBat,
        params: &[USER, needs("batid", Kind::Cid), needs("bat", Kind::Encoded)],
        auth: Auth::Request(300),
        good: |world| {
            let mut asked = username(world);
            asked.set("batid", bat().secret_hash_id().cid());
            asked.set("bat", bat().to_text());
            asked
        },
        reply: fresh(CBOR, TRUE),
        cases: &[
            case(
                "an inline id",
                |_, asked| asked.set("batid", bat().inline_id().cid()),
                Text::Begins("Invalid BAT id"),
            ),
            case(
                "the id of another token",
                |_, asked| {
                    let other = Bat::from_secret([8; 32]);
                    asked.set("batid", other.secret_hash_id().cid());
                },
                Text::Is("Invalid BAT id for BAT"),
            ),
            case(
                "a token of another user",
                |world, asked| {
                    asked.set("batid", world.bob.mirror.secret_hash_id().cid());
                    asked.set("bat", world.bob.mirror.to_text());
                },
                Text::Is("This BAT id belongs to another user"),
            ),
        ],
        variants: &[Variant {
            name: "a token that is there already",
            change: |world, asked| {
                asked.set("batid", world.alice.mirror.secret_hash_id().cid());
                asked.set("bat", world.alice.mirror.to_text());
            },
            body: TRUE,
        }],
        ..ROW
    },
    Endpoint {
        call: Call::RetrieveMessages,
        params: &[USER],
        auth: Auth::Request(300),
        good: username,
        reply: fresh(CBOR, |_, body| body == [0x80]),
        ..ROW
    },
    Endpoint {
        call: Call::SendMessage,
        params: &[USER],
        takes: Takes::AtMost(10_240),
        auth: Auth::Own,
        good: |world| {
            username(world).body(message(&world.alice, MessageKind::FromUser, NOW, "hello"))
        },
        reply: fresh(CBOR, TRUE),
        cases: &[
            case(
                "signed by somebody else",
                |world, asked| {
                    asked.body = message(&world.bob, MessageKind::FromUser, NOW, "hello");
                },
                Text::Is("Invalid signature"),
            ),
            case(
                "more than an hour old",
                |world, asked| {
                    asked.body =
                        message(&world.alice, MessageKind::FromUser, NOW - 3_600_001, "old");
                },
                Text::Is("Invalid send time on message!"),
            ),
            case(
                "a dismissal more than an hour old",
                |world, asked| {
                    asked.body = message(&world.alice, MessageKind::Dismiss, NOW - 3_600_001, "");
                },
                Text::Is("Invalid send time on message!"),
            ),
            case(
                "as if it came from the server",
                |world, asked| {
                    asked.body = message(&world.alice, MessageKind::FromServer, NOW, "fake");
                },
                Text::Is("Invalid message type sent from user: FromServer"),
            ),
            case(
                "of 4097 characters",
                |world, asked| {
                    let long = "x".repeat(4097);
                    asked.body = message(&world.alice, MessageKind::FromUser, NOW, &long);
                },
                Text::Begins("Invalid server message"),
            ),
        ],
        variants: &[Variant {
            name: "dismissing what is not there",
            change: |world, asked| {
                asked.body = message(&world.alice, MessageKind::Dismiss, NOW, "")
            },
            body: TRUE,
        }],
        ..ROW
    },
    Endpoint {
        call: Call::SendFollowRequest,
        takes: Takes::AtMost(4096),
        auth: Auth::Own,
        good: |world| owner(world).body(follow_request(2)),
        reply: fresh(BYTES, |_, body| body == [1]),
        cases: &[
            case(
                "nothing",
                |_, asked| asked.body.clear(),
                Text::Is("Not a follow request"),
            ),
            case(
                "bytes after the record",
                |_, asked| asked.body.push(0),
                Text::Is("Not a follow request"),
            ),
            case(
                "a record of another shape",
                |_, asked| asked.body = vec![0xa0],
                Text::Is("Not a follow request"),
            ),
        ],
        variants: &[Variant {
            name: "a copy of a pending one",
            change: |_, asked| asked.body = follow_request(1),
            body: |_, body| body == [1],
        }],
        ..ROW
    },
    Endpoint {
        call: Call::GetFollowRequests,
        reply: fresh(BYTES, |_, body| {
            let list = [&[0x81][..], &follow_request(1)].concat();
            body == [&(list.len() as u32).to_be_bytes()[..], &list].concat()
        }),
        ..ROW
    },
    Endpoint {
        call: Call::RemoveFollowRequest,
        takes: Takes::AtMost(4096 + 64),
        auth: Auth::Own,
        good: |world| {
            let secret = world.alice.identity.secret();
            owner(world).body(secret.sign_attached(&follow_request(1)))
        },
        reply: fresh(BYTES, |_, body| body == [1]),
        variants: &[
            Variant {
                name: "signed by somebody else",
                change: |world, asked| {
                    let secret = world.bob.identity.secret();
                    asked.body = secret.sign_attached(&follow_request(1));
                },
                body: |_, body| body == [0],
            },
            Variant {
                name: "a request that is not there",
                change: |world, asked| {
                    let secret = world.alice.identity.secret();
                    asked.body = secret.sign_attached(&follow_request(9));
                },
                body: |_, body| body == [1],
            },
        ],
        ..ROW
    },
];
