//! `/api/v0/` (Spec: 06).

use bytes::Bytes;
use champ::{
    Cid, Codec,
    cbor::{Record as _, Value, decode},
    text::{to_hex, to_multibase},
};
use pki::wire::{call::Call, champ_lookup::ChampCap, direct_store::MAX_AUTHORIZE_BYTES};

use super::{
    Asked, Auth, Case, Endpoint, Kind, Reply, Takes, Text, Variant, case, fresh, may, needs,
    world::{LABEL, World},
};

pub(super) const OWNER: super::Param = needs("owner", Kind::Owner);

const fn ask_nothing(_: &World) -> Asked {
    Asked {
        query: Vec::new(),
        body: Vec::new(),
        headers: Vec::new(),
    }
}

/// What most rows begin with.
pub(super) const ROW: Endpoint = Endpoint {
    call: Call::Id,
    params: &[],
    takes: Takes::Nothing,
    auth: Auth::Own,
    is_for_local_users: true,
    good: ask_nothing,
    reply: Reply::Refused(""),
    cases: &[],
    variants: &[],
};

pub(super) fn owner(world: &World) -> (&'static str, String) {
    ("owner", world.alice.owner().to_string())
}

fn block_get(world: &World) -> Asked {
    Asked::of([
        ("arg", world.raw.0.to_string()),
        owner(world),
        ("bat", world.raw.2.to_text()),
    ])
}

const GET_CASES: &[Case] = &[
    case(
        "without token",
        |_, asked| asked.unset("bat"),
        Text::Is("Unauthorised!"),
    ),
    case(
        "with the token of another user",
        |world, asked| asked.set("bat", world.bob.mirror_with_id().to_text()),
        Text::Is("Unauthorised!"),
    ),
    case(
        "not the cid of a block",
        |world, asked| {
            let cid = Cid::v1(Codec::DagPb, world.raw.0.hash().clone());
            asked.set("arg", cid);
        },
        Text::Is("Not the cid of a block"),
    ),
    case(
        "an ill-formed token comes before an unknown owner",
        |world, asked| {
            asked.set("owner", world.stranger().owner());
            asked.set("bat", "z11");
        },
        Text::Begins("Incorrect cbor for Bat"),
    ),
];

fn lookup(world: &World) -> Asked {
    let cap = ChampCap {
        map_key: world.tree.1,
        bat: Some(world.raw.2.clone()),
    };
    let caps = Value::List(vec![cap.to_value()]).encode();
    Asked::of([
        ("arg", world.tree.0.to_string()),
        owner(world),
        ("caps", to_multibase(&caps)),
    ])
}

fn old_lookup(world: &World) -> Asked {
    let mut asked = Asked::of([
        ("arg", world.tree.0.to_string()),
        owner(world),
        ("bat", world.raw.2.to_text()),
    ]);
    asked.query.insert(1, ("arg", to_hex(&world.tree.1)));
    asked
}

fn holds_root_and_value(world: &World, body: &[u8]) -> bool {
    let Ok(Value::List(blocks)) = decode(body) else {
        return false;
    };
    let blocks: Vec<Bytes> = blocks
        .into_iter()
        .map(|block| block.into_bytes("block").unwrap())
        .collect();
    blocks.contains(&world.tree.2)
        && blocks
            .iter()
            .any(|block| Cid::of_cbor(block) == world.tree.0)
}

fn absent_root(_: &World) -> String {
    format!(
        "Champ root not present locally: {}",
        Cid::of_cbor(b"absent")
    )
}

const LOOKUP_CASES: &[Case] = &[
    case(
        "root that is not stored",
        |_, asked| asked.query[0].1 = Cid::of_cbor(b"absent").to_string(),
        Text::Of(absent_root),
    ),
    case(
        "root that is no champ",
        |world, asked| asked.query[0].1 = world.public.0.to_string(),
        Text::Begins("Invalid cbor for CHAMP!"),
    ),
    case(
        "wrong token for the value",
        |world, asked| {
            let bat = world.bob.mirror_with_id();
            let cap = ChampCap {
                map_key: world.tree.1,
                bat: Some(bat.clone()),
            };
            let caps = Value::List(vec![cap.to_value()]).encode();
            match asked.query.iter().any(|(name, _)| *name == "caps") {
                true => asked.set("caps", to_multibase(&caps)),
                false => asked.set("bat", bat.to_text()),
            }
        },
        Text::Is("Unauthorised!"),
    ),
];

const MANY_CAPS: Case = case(
    "more than twenty keys",
    |_, asked| {
        let cap = ChampCap {
            map_key: [1; 32],
            bat: None,
        };
        let caps = Value::List(vec![cap.to_value(); 21]).encode();
        asked.set("caps", to_multibase(&caps));
    },
    Text::Is("Too many caps in bulk champ get call! 21"),
);

pub(super) const ROWS: &[Endpoint] = &[
    Endpoint {
        reply: fresh("application/json", |world, body| {
            body == format!("{{\"ID\":\"{}\"}}", world.node.node.id()).as_bytes()
        }),
        ..ROW
    },
    Endpoint {
        call: Call::Ids,
        reply: fresh("application/json", |world, body| {
            body == format!("{{\"IDS\":[\"{}\"]}}", world.node.node.id()).as_bytes()
        }),
        ..ROW
    },
    Endpoint {
        call: Call::LinkHost,
        params: &[OWNER],
        good: |world| Asked::of([owner(world)]),
        reply: fresh("text/plain", |_, body| body.starts_with(b"localhost:")),
        ..ROW
    },
    Endpoint {
        call: Call::BlockstoreProps,
        reply: fresh("application/cbor", |_, body| {
            to_hex(body) == "a36177f4626172f4627072f4"
        }),
        ..ROW
    },
    Endpoint {
        call: Call::BlockstoreAuthReads,
        params: &[OWNER],
        takes: Takes::AtMost(MAX_AUTHORIZE_BYTES),
        good: |world| Asked::of([owner(world)]).body([0x80]),
        reply: Reply::Refused("Unimplemented call!"),
        ..ROW
    },
    Endpoint {
        call: Call::TransactionStart,
        params: &[OWNER],
        good: |world| Asked::of([owner(world)]),
        reply: fresh("text/plain", |_, body| {
            body.len() == 36 && body.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-')
        }),
        ..ROW
    },
    Endpoint {
        call: Call::TransactionClose,
        params: &[needs("arg", Kind::Text), OWNER],
        good: |world| Asked::of([("arg", "t1".to_owned()), owner(world)]),
        reply: fresh("text/plain", |_, body| body == b"1"),
        variants: &[
            Variant {
                name: "an id that was never given out",
                change: |_, asked| asked.set("arg", "nosuch"),
                body: |_, body| body == b"1",
            },
            Variant {
                name: "an id that nobody can have",
                change: |_, asked| asked.set("arg", "a/b"),
                body: |_, body| body == b"1",
            },
        ],
        ..ROW
    },
    Endpoint {
        call: Call::BlockGet,
        params: &[needs("arg", Kind::Cid), OWNER, may("bat", Kind::Encoded)],
        good: block_get,
        reply: Reply::Ok {
            kind: "application/octet-stream",
            hash: Some(|world| world.raw.0.clone()),
            body: |world, body| body == world.raw.1,
        },
        cases: GET_CASES,
        variants: &[
            Variant {
                name: "absent",
                change: |_, asked| asked.set("arg", Cid::of_raw(b"absent")),
                body: |_, body| body.is_empty(),
            },
            Variant {
                name: "absent in the space of another user",
                change: |world, asked| asked.set("owner", world.bob.owner()),
                body: |_, body| body.is_empty(),
            },
            Variant {
                name: "public, without token",
                change: |world, asked| {
                    asked.unset("bat");
                    asked.set("arg", &world.public.0);
                },
                body: |world, body| body == world.public.1,
            },
            Variant {
                name: "the user's mirror token",
                change: |world, asked| asked.set("bat", world.alice.mirror_with_id().to_text()),
                body: |world, body| body == world.raw.1,
            },
            Variant {
                name: "a hash that holds its content",
                change: |_, asked| {
                    let hash = champ::Multihash::identity(b"inline").unwrap();
                    asked.set("arg", Cid::v1(Codec::Raw, hash));
                },
                body: |_, body| body == b"inline",
            },
        ],
        ..ROW
    },
    Endpoint {
        call: Call::BlockStat,
        params: &[needs("arg", Kind::Cid), OWNER],
        good: |world| Asked::of([("arg", world.raw.0.to_string()), owner(world)]),
        reply: Reply::Ok {
            kind: "application/json",
            hash: Some(|world| world.raw.0.clone()),
            body: |world, body| body == format!("{{\"Size\":{}}}", world.raw.1.len()).as_bytes(),
        },
        variants: &[Variant {
            name: "absent",
            change: |_, asked| asked.set("arg", Cid::of_raw(b"absent")),
            body: |_, body| body == b"{\"Size\":0}",
        }],
        ..ROW
    },
    Endpoint {
        call: Call::ChampGetBulk,
        params: &[needs("arg", Kind::Cid), OWNER, needs("caps", Kind::Encoded)],
        good: lookup,
        reply: Reply::Ok {
            kind: "application/cbor",
            hash: Some(|world| world.tree.0.clone()),
            body: holds_root_and_value,
        },
        cases: &[LOOKUP_CASES[0], LOOKUP_CASES[1], LOOKUP_CASES[2], MANY_CAPS],
        variants: &[Variant {
            name: "the older form",
            change: |world, asked| *asked = old_lookup(world),
            body: holds_root_and_value,
        }],
        ..ROW
    },
    Endpoint {
        call: Call::ChampGet,
        params: &[
            needs("arg", Kind::Cid),
            needs("arg", Kind::Hex),
            OWNER,
            may("bat", Kind::Encoded),
        ],
        good: old_lookup,
        reply: Reply::Ok {
            kind: "application/cbor",
            hash: Some(|world| world.tree.0.clone()),
            body: holds_root_and_value,
        },
        cases: LOOKUP_CASES,
        ..ROW
    },
    Endpoint {
        call: Call::LinkGet,
        params: &[needs("label", Kind::Integer), OWNER],
        good: |world| Asked::of([("label", LABEL.to_string()), owner(world)]),
        reply: fresh("application/cbor", |world, body| {
            body == world.link.encode()
        }),
        cases: &[
            case(
                "label 0",
                |_, asked| asked.set("label", 0),
                Text::Is("Link labels must be positive!"),
            ),
            case(
                "negative label",
                |_, asked| asked.set("label", -5),
                Text::Is("Link labels must be positive!"),
            ),
            case(
                "no such link",
                |_, asked| asked.set("label", 5),
                Text::Is("No secret link present!"),
            ),
            case(
                "user without links",
                |world, asked| asked.set("owner", world.bob.owner()),
                Text::Is("No secret link published!"),
            ),
            case(
                "a bad label comes before an unknown owner",
                |world, asked| {
                    asked.set("owner", world.stranger().owner());
                    asked.set("label", 0);
                },
                Text::Is("Link labels must be positive!"),
            ),
        ],
        ..ROW
    },
    Endpoint {
        call: Call::LinkCounts,
        params: &[
            needs("after", Kind::Integer),
            needs("bat", Kind::Encoded),
            needs("owner", Kind::User),
        ],
        good: |world| {
            Asked::of([
                ("after", "0".to_owned()),
                ("bat", world.alice.mirror_with_id().to_text()),
                ("owner", "alice".to_owned()),
            ])
        },
        reply: fresh("application/cbor", |_, body| to_hex(body) == "a1616480"),
        cases: &[
            case(
                "a token of the same user that is not the mirror's",
                |world, asked| asked.set("bat", world.raw.2.to_text()),
                Text::Is("Unauthorized!"),
            ),
            case(
                "the mirror token of another user",
                |world, asked| asked.set("bat", world.bob.mirror_with_id().to_text()),
                Text::Is("Unauthorized!"),
            ),
        ],
        variants: &[Variant {
            name: "as official clients write it",
            change: |world, asked| {
                asked.unset("bat");
                let bat = world.alice.mirror_with_id().to_text();
                asked.set("after", format!("0?bat={bat}"));
            },
            body: |_, body| to_hex(body) == "a1616480",
        }],
        ..ROW
    },
    Endpoint {
        call: Call::IpnsGet,
        params: &[needs("arg", Kind::Peer)],
        good: |world| Asked::of([("arg", world.node.node.id().bare_multihash_text())]),
        reply: Reply::Refused("Unimplemented!"),
        ..ROW
    },
];
