//! `/peergos/v0/mutable/` (Spec: 07).

use champ::{
    Cid,
    cbor::{Map, Record as _, Value},
};
use pki::{
    keys::SecretKeyWithHash,
    wire::{
        Body as _,
        call::Call,
        pointer_batch::{PointerBatch, PointerWrite},
    },
};

use super::{
    Asked, Auth, Case, Endpoint, Kind, Reply, Takes, Text, Variant, case, fresh, needs,
    world::World,
};
use crate::conformance::account::update;

const OWNER: super::Param = needs("owner", Kind::Owner);
const WRITER: super::Param = needs("writer", Kind::Key);

fn asked(world: &World) -> Asked {
    Asked::of([
        ("owner", world.alice.owner().to_string()),
        ("writer", world.alice.home.writer().to_string()),
    ])
}

fn next(world: &World) -> PointerWrite {
    move_home(
        world,
        Some(&world.first_root),
        Some(&world.next_root),
        Some(2),
    )
}

fn move_home(
    world: &World,
    original: Option<&Cid>,
    updated: Option<&Cid>,
    sequence: Option<i64>,
) -> PointerWrite {
    update(&world.alice.home, original, updated, sequence)
}

/// Puts an update into a request of either call.
fn send(asked: &mut Asked, write: PointerWrite) {
    if asked.query.iter().any(|(name, _)| *name == "writer") {
        asked.set("writer", &write.writer);
        asked.body = write.signed.to_vec();
    } else {
        asked.body = PointerBatch::new(vec![write]).unwrap().to_body();
    }
}

fn sign(key: &SecretKeyWithHash, list: Vec<Value>) -> PointerWrite {
    PointerWrite {
        signed: key
            .secret()
            .sign_attached(&Value::List(list).encode())
            .into(),
        writer: key.writer(),
    }
}

/// What both calls refuse, in the order of Spec: 07 §3.
const CASES: [Case; 12] = [
    case(
        "longer than any update",
        |world, asked| {
            send(
                asked,
                PointerWrite {
                    signed: vec![1; 148].into(),
                    writer: world.alice.home.writer(),
                },
            );
        },
        Text::Is("Pointer update too big! 148"),
    ),
    case(
        "previous and new are the same",
        |world, asked| {
            let root = Value::from(world.first_root.to_bytes());
            let list = vec![root.clone(), root, Value::Int(2)];
            send(asked, sign(&world.alice.home, list));
        },
        Text::Is("Tried to create a CAS pair with original == target!"),
    ),
    case(
        "another previous value",
        |world, asked| {
            let other = Cid::of_cbor(b"other");
            send(
                asked,
                move_home(world, Some(&other), Some(&world.next_root), Some(2)),
            );
        },
        Text::Of(|world| {
            format!(
                "PointerCAS:{},1,{}",
                world.first_root,
                Cid::of_cbor(b"other")
            )
        }),
    ),
    case(
        "no previous value where there is one",
        |world, asked| {
            send(
                asked,
                move_home(world, None, Some(&world.next_root), Some(2)),
            )
        },
        Text::Of(|world| format!("PointerCAS:{},1,EMPTY", world.first_root)),
    ),
    case(
        "the previous value comes before the sequence",
        |world, asked| {
            send(
                asked,
                move_home(world, None, Some(&world.next_root), Some(1)),
            )
        },
        Text::Of(|world| format!("PointerCAS:{},1,EMPTY", world.first_root)),
    ),
    case(
        "the same sequence",
        |world, asked| {
            let (first, next) = (&world.first_root, &world.next_root);
            send(asked, move_home(world, Some(first), Some(next), Some(1)));
        },
        Text::Is("Invalid sequence number update in mutable pointer: Optional[1] => Optional[1]"),
    ),
    case(
        "no sequence where there is one",
        |world, asked| {
            let (first, next) = (&world.first_root, &world.next_root);
            send(asked, move_home(world, Some(first), Some(next), None));
        },
        Text::Is(
            "Invalid sequence number update in mutable pointer: Optional[1] => Optional.empty",
        ),
    ),
    case(
        "a sequence that would freeze the writer",
        |world, asked| {
            let (first, next) = (&world.first_root, &world.next_root);
            send(
                asked,
                move_home(world, Some(first), Some(next), Some(1 << 21)),
            );
        },
        Text::Begins("Invalid sequence number update in mutable pointer: Optional[1] => "),
    ),
    case(
        "a root that is not stored",
        |world, asked| {
            let absent = Cid::of_cbor(b"absent");
            send(
                asked,
                move_home(world, Some(&world.first_root), Some(&absent), Some(2)),
            );
        },
        Text::Of(|_| {
            format!(
                "Couldn't retrieve WriterData from dht! {}",
                Cid::of_cbor(b"absent")
            )
        }),
    ),
    case(
        "a block that is no root",
        |world, asked| {
            let (first, other) = (&world.first_root, &world.public.0);
            send(asked, move_home(world, Some(first), Some(other), Some(2)));
        },
        Text::Begins("Cbor for WriterData should be a map!"),
    ),
    case(
        "a writer that nobody owns",
        |world, asked| {
            let stranger = world.foreign_writer();
            let root = &world.stray_root;
            send(asked, update(&stranger, None, Some(root), Some(1)));
        },
        Text::Of(|world| {
            let stranger = world.foreign_writer();
            format!("Writer not present on this server: {}", stranger.hash())
        }),
    ),
    case(
        "the writer of another user",
        |world, asked| {
            let bob = &world.bob.home;
            send(asked, update(bob, Some(&Cid::of_cbor(b"x")), None, Some(2)));
        },
        Text::Begins("PointerCAS:"),
    ),
];

/// Not signed by the writer, and a root of another writer.
fn forged(world: &World) -> PointerWrite {
    PointerWrite {
        writer: world.alice.home.writer(),
        ..update(
            &world.foreign_writer(),
            Some(&world.first_root),
            Some(&world.next_root),
            Some(2),
        )
    }
}

fn root_of_another(world: &World) -> PointerWrite {
    let (root, next) = (&world.identity_root, &world.next_root);
    update(&world.alice.identity, Some(root), Some(next), Some(3))
}

pub(super) const ROWS: &[Endpoint] = &[
    Endpoint {
        call: Call::GetPointer,
        params: &[OWNER, WRITER],
        takes: Takes::Nothing,
        auth: Auth::Own,
        is_for_local_users: true,
        good: asked,
        reply: fresh("application/octet-stream", |world, body| {
            let first = move_home(world, None, Some(&world.first_root), Some(1));
            body == first.signed
        }),
        cases: &[case(
            "the owner is looked at first",
            |_, asked| asked.query.clear(),
            Text::Is("No value present"),
        )],
        variants: &[Variant {
            name: "a writer without pointer",
            change: |world, asked| asked.set("writer", world.foreign_writer().writer()),
            body: |_, body| body.is_empty(),
        }],
    },
    Endpoint {
        call: Call::SetPointer,
        params: &[OWNER, WRITER],
        takes: Takes::AtMost(1024),
        auth: Auth::Own,
        is_for_local_users: true,
        good: |world| asked(world).body(next(world).signed),
        reply: fresh("application/octet-stream", |_, body| body == [1]),
        cases: &CASES,
        // 200 and `00`, as the reference answers (Spec: 07 §3.2).
        variants: &[
            Variant {
                name: "not signed by the writer",
                change: |world, asked| send(asked, forged(world)),
                body: |_, body| body == [0],
            },
            Variant {
                name: "shorter than a signature",
                change: |_, asked| asked.body = vec![1; 63],
                body: |_, body| body == [0],
            },
            Variant {
                name: "the root of another writer",
                change: |world, asked| send(asked, root_of_another(world)),
                body: |_, body| body == [0],
            },
        ],
    },
    Endpoint {
        call: Call::SetPointers,
        params: &[OWNER],
        takes: Takes::AtMost(1 << 20),
        auth: Auth::Own,
        is_for_local_users: true,
        good: |world| {
            let body = PointerBatch::new(vec![next(world)]).unwrap().to_body();
            Asked::of([("owner", world.alice.owner().to_string())]).body(body)
        },
        reply: Reply::Ok {
            kind: "application/octet-stream",
            hash: None,
            body: |_, body| body == [1],
        },
        cases: &[
            CASES[0],
            CASES[1],
            CASES[2],
            CASES[3],
            CASES[4],
            CASES[5],
            CASES[6],
            CASES[7],
            CASES[8],
            CASES[9],
            CASES[11],
            // `00` would be taken for success here (Spec: 07 §4).
            case(
                "not signed by the writer",
                |world, asked| send(asked, forged(world)),
                Text::Is("Invalid signature"),
            ),
            case(
                "the root of another writer",
                |world, asked| send(asked, root_of_another(world)),
                Text::Of(|world| {
                    format!(
                        "WriterData controller mismatch for {}",
                        world.alice.identity.writer()
                    )
                }),
            ),
            case(
                "one writer twice",
                |world, asked| {
                    let mut twice = Map::new();
                    let value = next(world).to_value();
                    twice.insert("p", vec![value.clone(), value]);
                    asked.body = Value::Map(twice).encode();
                },
                Text::Begins(""),
            ),
            case(
                "one stale update among good ones",
                |world, asked| {
                    let other = Cid::of_cbor(b"other");
                    let stale = update(&world.alice.identity, Some(&other), None, Some(3));
                    let batch = PointerBatch::new(vec![next(world), stale]).unwrap();
                    asked.body = batch.to_body();
                },
                Text::Of(|world| {
                    let (root, other) = (&world.identity_root, Cid::of_cbor(b"other"));
                    format!("PointerCAS:{root},2,{other}")
                }),
            ),
        ],
        variants: &[Variant {
            name: "nothing to do",
            change: |_, asked| {
                asked.body = PointerBatch::new(Vec::new()).unwrap().to_body();
            },
            body: |_, body| body == [1],
        }],
    },
];
