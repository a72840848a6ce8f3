//! Uploads below `/api/v0/` (Spec: 06 §4).

use bytes::Bytes;
use champ::{
    Cid,
    cbor::{Map, Value},
    text::to_hex,
};
use pki::wire::{
    Body as _, block_group::BlockGroup, call::Call, direct_store::MAX_AUTHORIZE_BYTES,
};

use super::{
    Asked, Case, Endpoint, Kind, Reply, Takes, Text, Variant,
    blocks::{OWNER, ROW, owner},
    case, fresh, needs,
    world::World,
};
use crate::conformance::account::{cbor_block, sign_block};

/// A group of one new block, signed by alice's home writer.
fn new_block() -> Bytes {
    cbor_block("new", &[]).bytes().clone()
}

fn put_query(world: &World) -> Asked {
    Asked::of([
        ("format", "dag-cbor".to_owned()),
        owner(world),
        ("transaction", "t2".to_owned()),
        ("writer", world.alice.home.writer().to_string()),
    ])
}

fn group(world: &World, blocks: &[Bytes], spoil: impl Fn(&mut Vec<Bytes>)) -> Vec<u8> {
    let mut signatures = blocks
        .iter()
        .map(|block| sign_block(&world.alice.home, &Cid::of_cbor(block)))
        .collect();
    spoil(&mut signatures);
    let mut map = Map::new();
    let list = |items: &[Bytes]| items.iter().cloned().map(Value::Bytes).collect::<Vec<_>>();
    map.insert("b", list(blocks));
    map.insert("s", list(&signatures));
    Value::Map(map).encode()
}

fn put(world: &World) -> Asked {
    put_query(world).body(group(world, &[new_block()], |_| {}))
}

fn hash_of_new(_: &World, body: &[u8]) -> bool {
    body == format!("{{\"Hash\":\"{}\"}}", Cid::of_cbor(&new_block())).as_bytes()
}

fn multipart(world: &World) -> Asked {
    let mut asked = put_query(world);
    let signature = sign_block(&world.alice.home, &Cid::of_cbor(&new_block()));
    asked.set("signatures", to_hex(&signature));
    asked.headers = vec![(
        "content-type",
        "multipart/form-data; boundary=x123".to_owned(),
    )];
    asked.body(
        [
            b"--x123\r\nA: b\r\n\r\n",
            &new_block()[..],
            b"\r\n--x123--\r\n",
        ]
        .concat(),
    )
}

fn unknown_writer(world: &World) -> String {
    format!(
        "Writer not present on this server: {}",
        world.foreign_writer().hash()
    )
}

/// What both ways of uploading refuse after the query.
macro_rules! block_write_cases {
    () => {
        case(
            "a key that nobody owns",
            |world, asked| {
                let stranger = world.foreign_writer();
                asked.set("writer", stranger.writer());
                let block = new_block();
                let signature = sign_block(&stranger, &Cid::of_cbor(&block));
                if asked.query.iter().any(|(name, _)| *name == "signatures") {
                    asked.set("signatures", to_hex(&signature));
                } else {
                    let group = BlockGroup::new(vec![block], vec![signature]).unwrap();
                    asked.body = group.to_body();
                }
            },
            Text::Of(unknown_writer),
        )
    };
}

const PUT_CASES: &[Case] = &[
    block_write_cases!(),
    case(
        "fewer signatures than blocks",
        |world, asked| {
            let blocks = [new_block(), new_block()];
            asked.body = group(world, &blocks, |signatures| drop(signatures.pop()));
        },
        Text::Is("Different number of of blocks and signatures! 2 != 1"),
    ),
    case(
        "signature of another block",
        |world, asked| {
            asked.body = group(world, &[new_block()], |signatures| {
                signatures[0] = sign_block(&world.alice.home, &world.public.0);
            });
        },
        Text::Is("Invalid signature for block!"),
    ),
    case(
        "signature by another key",
        |world, asked| {
            asked.body = group(world, &[new_block()], |signatures| {
                let cid = Cid::of_cbor(&new_block());
                signatures[0] = sign_block(&world.bob.home, &cid);
            });
        },
        Text::Is("Invalid signature"),
    ),
    case(
        "another user's writer",
        |world, asked| {
            asked.set("owner", world.bob.owner());
        },
        Text::Of(|world| {
            format!(
                "Writer not present on this server: {}",
                world.alice.home.hash()
            )
        }),
    ),
    case(
        "block above the limit",
        |world, asked| {
            asked.set("format", "raw");
            let block = Bytes::from(vec![1; 1_048_677]);
            let signature = sign_block(&world.alice.home, &Cid::of_raw(&block));
            let mut map = Map::new();
            map.insert("b", vec![Value::Bytes(block)]);
            map.insert("s", vec![Value::Bytes(signature)]);
            asked.body = Value::Map(map).encode();
        },
        Text::Is("Block too big!"),
    ),
    case(
        "empty block",
        |world, asked| asked.body = group(world, &[Bytes::new()], |_| {}),
        Text::Is("Empty block!"),
    ),
    case(
        "cbor that readers would hash differently",
        |world, asked| {
            let odd = Bytes::from_static(&[0x18, 0x01]);
            asked.body = group(world, &[odd], |_| {});
        },
        Text::Begins("Invalid cbor block!"),
    ),
    case(
        "unreadable token list in front of raw bytes",
        |world, asked| {
            asked.set("format", "raw");
            let bad = [
                &[0x71, 0x1d, 0x10, 0xcf, 0x3d, 0x32, 0x2f, 0x2b][..],
                &[0x81, 0x41, 0x01],
            ]
            .concat();
            let bad = Bytes::from(bad);
            let signature = sign_block(&world.alice.home, &Cid::of_raw(&bad));
            let group = BlockGroup::new(vec![bad], vec![signature]).unwrap();
            asked.body = group.to_body();
        },
        Text::Is("Invalid block access prefix!"),
    ),
    case(
        "transaction id of illegal characters",
        |_, asked| asked.set("transaction", "a/b"),
        Text::Begins("Invalid transaction id"),
    ),
    case(
        "transaction id of 65 characters",
        |_, asked| asked.set("transaction", "a".repeat(65)),
        Text::Begins("Invalid transaction id"),
    ),
    // The order of checks: parameters, body, user, signatures, writer.
    case(
        "missing writer comes before an unreadable body",
        |_, asked| {
            asked.unset("writer");
            asked.body = vec![0xff];
        },
        Text::Is("Missing parameter: writer"),
    ),
    case(
        "unequal lists come before an unknown owner",
        |world, asked| {
            asked.set("owner", world.stranger().owner());
            asked.body = group(world, &[new_block()], |signatures| signatures.clear());
        },
        Text::Is("Different number of of blocks and signatures! 1 != 0"),
    ),
    case(
        "a wrong signature comes before an unknown writer",
        |world, asked| asked.set("writer", world.foreign_writer().writer()),
        Text::Is("Invalid signature"),
    ),
];

const MULTIPART_CASES: &[Case] = &[
    block_write_cases!(),
    case(
        "no boundary",
        |_, asked| asked.headers.clear(),
        Text::Is("No multipart boundary in Content-Type"),
    ),
    case(
        "another boundary",
        |_, asked| asked.headers[0].1 = "multipart/form-data; boundary=other".to_owned(),
        Text::Is("Incorrect boundary! other != x123"),
    ),
    case(
        "two signatures for one part",
        |_, asked| {
            let (_, signatures) = asked.query.last().unwrap();
            let two = format!("{signatures},{signatures}");
            asked.set("signatures", two);
        },
        Text::Is("Different number of of blocks and signatures! 1 != 2"),
    ),
];

pub(super) const ROWS: &[Endpoint] = &[
    Endpoint {
        call: Call::BlockstoreAuth,
        params: &[
            OWNER,
            needs("writer", Kind::Key),
            needs("transaction", Kind::Text),
            needs("raw", Kind::Text),
        ],
        takes: Takes::AtMost(MAX_AUTHORIZE_BYTES),
        good: |world| {
            let mut asked =
                put_query(world).body(champ::text::from_hex("a3616280616c80617380").unwrap());
            asked.set("raw", "true");
            asked
        },
        reply: Reply::Refused("Unimplemented call!"),
        ..ROW
    },
    Endpoint {
        call: Call::BlockPutBulk,
        params: &[
            needs("format", Kind::Text),
            OWNER,
            needs("transaction", Kind::Text),
            needs("writer", Kind::Key),
        ],
        takes: Takes::AtMost(4 << 20),
        good: put,
        reply: fresh("application/json", hash_of_new),
        cases: PUT_CASES,
        variants: &[
            Variant {
                name: "an empty group",
                change: |world, asked| asked.body = group(world, &[], |_| {}),
                body: |_, body| body.is_empty(),
            },
            Variant {
                name: "a block that is there",
                change: |world, asked| {
                    asked.body = group(world, std::slice::from_ref(&world.public.1), |_| {});
                },
                body: |world, body| {
                    body == format!("{{\"Hash\":\"{}\"}}", world.public.0).as_bytes()
                },
            },
        ],
        ..ROW
    },
    Endpoint {
        call: Call::BlockPut,
        params: &[
            needs("format", Kind::Text),
            OWNER,
            needs("transaction", Kind::Text),
            needs("writer", Kind::Key),
            needs("signatures", Kind::Hex),
        ],
        takes: Takes::AtMost(4 * champ::MAX_BLOCK_BYTES + (64 << 10)),
        good: multipart,
        reply: fresh("application/json", hash_of_new),
        cases: MULTIPART_CASES,
        ..ROW
    },
];
