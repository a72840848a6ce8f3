//! `usernames.json`, `pki.json`, `pki_champ.json`: names, claims, chains and the bodies of the name API.

use bytes::Bytes;
use champ::{
    Block, Cid, MemoryBlocks,
    access::BatWithId,
    cbor::{Record, Value, decode_canonical},
    text::from_hex,
};
use pki::{
    chain::{
        Adoption, ClaimChain, ClaimLink, KnownChains, Learned, NameDirectory, OwnerKeys,
        Registration, RegistrationError, Ruling,
    },
    claim::{Claim, placeholder_provider},
    keys::{Owner, PublicKeyHash, PublicSigningKey, SecretSigningKey},
    proof_of_work::{Difficulty, ProofOfWork},
    username::{Username, UsernameError},
    wire::{
        Body,
        directory::{KeyRequest, NameRequest, PublicKeyReply, UsernameReply, Usernames},
        link::LinkCounts,
        mirror::{
            CompletePaidMirror, FROM_THE_BEGINNING, MigrateRequest, MirrorRequest,
            SnapshotsRequest, StartPaidMirror, UserSnapshots,
        },
        op_log::{BlockWrite, Op, OpLog},
        payment::PaymentProperties,
        pointer_batch::PointerWrite,
        reply::ByteBoolean,
        signup::{
            CompletePaidSignup, MAX_PROOF_BYTES, SignupReply, SignupRequest, StartPaidReply,
            StartPaidSignup, UpdateChainRequest,
        },
        snapshot::UserSnapshot,
    },
};

use crate::support::{Case, each, key_hash, now};

/// The test keys are seeds of one repeated byte.
fn signer(name: &str) -> SecretSigningKey {
    let seed = match name {
        "alice1" => 1,
        "alice2" => 2,
        other => panic!("unknown signer {other}"),
    };
    SecretSigningKey::from_seed(&[seed; 32])
}

fn chain(case: &Case, field: &str) -> ClaimChain {
    let bytes = case.hex(field);
    let chain = ClaimChain::decode(&bytes).unwrap();
    assert_eq!(chain.encode(), bytes, "{field}");
    chain
}

fn keys() -> OwnerKeys {
    OwnerKeys::inline_only()
}

#[test]
fn user_names() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/usernames.json");
    let whole: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = whole["cases"].as_array().unwrap();
    for case in cases {
        let text = case["username"].as_str().unwrap();
        let flag = |name: &str| case[name].as_bool().unwrap_or(false);
        // Old names are known by their chain, not by a list; the line feed is a defect of the pattern.
        let registrable = flag("valid") && !flag("legacy_list") && !flag("reference_quirk");
        let new = Username::parse_new(text);
        assert_eq!(new.is_ok(), registrable, "{text:?}");
        match Username::parse(text) {
            Ok(name) => assert_eq!(name.check_new().is_ok(), registrable, "{text:?}"),
            Err(_) => assert!(!registrable, "{text:?}"),
        }
        if flag("legacy_list") {
            assert!(Username::parse(text).is_ok(), "{text:?}");
        }
        if flag("reserved") {
            assert_eq!(new, Err(UsernameError::NotRegistrable), "{text:?}");
        }
    }
    assert_eq!(cases.len(), 121);
}

#[test]
fn names_and_chains() {
    each(
        "pki.json",
        "kind",
        // In proof_of_work_vectors.
        &["difficulty_generator"],
        vec![
            ("key", &mut key),
            ("peer_id", &mut peer_id),
            ("claim", &mut claim),
            ("valid_chain", &mut |case| {
                let chain = chain(case, "chain");
                // A name of more than 64 bytes is no name at all.
                let valid = Username::parse(case.str("username"))
                    .is_ok_and(|name| chain.valid(&name, &keys()).is_ok());
                assert_eq!(valid, case.flag("valid"), "{}", case.str("note"));
            }),
            ("merge", &mut merge),
            ("op_log", &mut op_log),
            ("core_request", &mut core_request),
            ("user_snapshot", &mut |case| {
                round_trip::<UserSnapshot>(&case.hex("cbor"));
            }),
            ("link_counts", &mut |case| {
                let counts = LinkCounts::decode(&case.hex("cbor")).unwrap();
                assert_eq!(counts.0.len(), 1);
                assert_eq!((counts.0[0].label, counts.0[0].count), (5, 2));
                assert_eq!(counts.0[0].modified_epoch_seconds, 1_700_000_000);
                assert_eq!(counts.encode(), case.hex("cbor"));
            }),
            ("migration_chain", &mut |case| {
                let name = Username::parse("alice").unwrap();
                let (existing, result) = (chain(case, "existing"), chain(case, "result"));
                let provider = Cid::decode(&case.hex("new_storage")).unwrap();
                let signer = signer(case.str("signer"));
                let moved = existing.migrated(&name, provider, &signer).unwrap();
                assert_eq!(moved, result);
                let merged = ClaimChain::merge(&existing, &moved, &name, &keys());
                assert_eq!(merged, Ok(result));
            }),
            ("tofu_store", &mut tofu_store),
            ("proof_of_work", &mut |case| {
                let proof: ProofOfWork = round_trip(&case.hex("proof_cbor"));
                assert_eq!(proof.prefix(), &case.hex("prefix"));
                let difficulty = Difficulty::try_new(case.int("difficulty")).unwrap();
                assert!(difficulty.is_met_by(&case.array("hash")));
                let valid = proof.is_valid(&case.hex("data"), difficulty);
                assert_eq!(valid, case.flag("satisfied"));
                assert!(proof.encode().len() <= MAX_PROOF_BYTES);
            }),
            ("pow_check", &mut |case| {
                let difficulty = Difficulty::try_new(case.int("difficulty")).unwrap();
                let met = difficulty.is_met_by(&case.array("hash"));
                assert_eq!(met, case.flag("satisfied"));
            }),
        ],
    );
}

fn round_trip<R: Record>(bytes: &[u8]) -> R {
    let record = R::decode(bytes).unwrap();
    assert_eq!(record.encode(), bytes);
    record
}

fn key(case: &Case) {
    let seed: [u8; 32] = case.array("ed25519_seed");
    let key = SecretSigningKey::from_seed(&seed).public();
    assert_eq!(key.as_bytes().as_slice(), case.hex("ed25519_public"));
    assert_eq!(key.encode(), case.hex("public_key_cbor"));
    let hash = PublicKeyHash::of(&key);
    assert_eq!(hash.cid().to_bytes(), case.hex("key_hash_cid_bytes"));
    assert_eq!(hash.to_string(), case.str("key_hash_string"));
    assert_eq!(hash.encode(), case.hex("key_hash_cbor"));
    assert_eq!(key_hash(case.str("key_hash_string")), hash);
    assert_eq!(hash.inline_key(), Some(key));
}

fn peer_id(case: &Case) {
    let bytes = case.hex("cid_bytes");
    let id = Cid::decode(&bytes).unwrap();
    assert_eq!(id.to_bytes(), bytes);
    assert_eq!(id.to_string(), case.str("cid_string"));
    assert_eq!(id.hash().to_bytes(), case.hex("bare_multihash"));
    assert_eq!(id.bare_multihash_text(), case.str("bare_base58"));
    let prefix = format!("/p2p/{id}/http/");
    assert_eq!(prefix, case.str("proxy_url_prefix"));
    for text in ["cid_string", "bare_base58"] {
        let read = Cid::parse_peer_id(case.str(text)).unwrap();
        assert_eq!(read.hash(), id.hash(), "{text}");
    }
    if id.hash().sha2_256_digest() == Some(&[0; 32]) {
        assert_eq!(id, placeholder_provider());
    }
}

fn claim(case: &Case) {
    let signer = signer(case.str("signer"));
    let name = Username::parse(case.str("username")).unwrap();
    let providers: Vec<_> = case
        .raw("storage_providers")
        .as_array()
        .unwrap()
        .iter()
        .map(|id| Cid::decode(&from_hex(id.as_str().unwrap()).unwrap()).unwrap())
        .collect();
    let count = providers.len();
    let expiry = case.str("expiry").parse().unwrap();
    let claim = Claim::sign(&name, expiry, providers, &signer).unwrap();
    assert_eq!(claim.payload(), case.hex("signed_payload"));
    assert_eq!(claim.signed, case.hex("signed"));
    assert_eq!(claim.encode(), case.hex("claim_cbor"));
    assert_eq!(round_trip::<Claim>(&case.hex("claim_cbor")), claim);
    assert_eq!(
        claim.verify(&name, &signer.public()).is_ok(),
        count <= 1,
        "{}",
        case.str("note")
    );
    let link: ClaimLink = round_trip(&case.hex("link_cbor"));
    assert_eq!(link.claim, claim);
    assert_eq!(link.owner, Owner(PublicKeyHash::of(&signer.public())));
    assert_eq!(link.keychange, None);
}

fn merge(case: &Case) {
    let (existing, update) = (chain(case, "existing"), chain(case, "update"));
    let name = Username::parse(case.str("username")).unwrap();
    let merged = ClaimChain::merge(&existing, &update, &name, &keys());
    let note = case.str("note");
    assert_eq!(
        merged.is_ok(),
        case.flag("implementations_accept"),
        "{note}"
    );
    match merged {
        Ok(merged) => {
            assert_eq!(merged.encode(), case.hex("result"), "{note}");
            // What a registrar stores, every mirror accepts.
            let mut directory = NameDirectory::new();
            if !existing.is_empty() {
                directory.apply(&name, Some(existing.clone()), &keys());
            }
            let expected = match merged == existing {
                true => Adoption::Unchanged,
                false => Adoption::Accepted,
            };
            assert_eq!(directory.judge(&name, Some(&merged), &keys()), expected);
        }
        Err(error) => {
            // Refusals that have a text of their own keep it.
            let reference = case.text("reference_error").unwrap_or_default();
            if let Some(text) = reference.strip_prefix("IllegalStateException: ") {
                assert_eq!(error.to_string(), text, "{note}");
            }
        }
    }
}

fn op_log(case: &Case) {
    let log: OpLog = round_trip(&case.hex("cbor"));
    if case.text("block_write_cbor").is_none() {
        assert_eq!(log, OpLog::default());
        return;
    }
    let [Op::Block(_), Op::Block(raw), Op::Pointer(_)] = log.ops.as_slice() else {
        panic!("not two blocks and a pointer");
    };
    assert_eq!(
        log.ops[0],
        Op::Block(round_trip::<BlockWrite>(&case.hex("block_write_cbor")))
    );
    assert_eq!(
        *raw,
        round_trip::<BlockWrite>(&case.hex("raw_block_write_cbor"))
    );
    assert_eq!(
        log.ops[2],
        Op::Pointer(round_trip::<PointerWrite>(&case.hex("pointer_write_cbor")))
    );
    let mirror = log.mirror_bat.as_ref().unwrap();
    assert_eq!(
        mirror.bat,
        round_trip::<BatWithId>(&case.hex("mirror_bat_cbor"))
    );
    assert!(log.login.is_none());
    for op in &log.ops {
        let Op::Block(write) = op else { continue };
        let key: PublicSigningKey = write.writer.hash().inline_key().unwrap();
        let signed = key.verify_attached(&write.signature).unwrap();
        assert_eq!(write.cid().hash().digest(), signed);
    }
}

/// Decodes a body, checks that it is written the same way, and returns it.
fn body<B: Body>(bytes: &[u8]) -> B {
    let decoded = B::from_body(&Bytes::copy_from_slice(bytes)).unwrap();
    assert_eq!(decoded.to_body(), bytes);
    decoded
}

fn core_request(case: &Case) {
    let request = case.hex("request_body");
    let path = case.str("path");
    let (_, call) = path.split_once("/core/").unwrap();
    let input = |field: &str| case.raw("inputs")[field].as_str().map(str::to_owned);
    let username = input("username");
    let check_name = |sent: &str| {
        if let Some(username) = &username {
            assert_eq!(sent, username);
        }
    };
    let reply = case
        .text("response_body")
        .map(|_| case.hex("response_body"));
    match call {
        "getChain" => {
            check_name(&body::<NameRequest>(&request).0);
            if let Some(reply) = reply {
                body::<ClaimChain>(&reply);
            }
        }
        "getPublicKey" => {
            check_name(&body::<NameRequest>(&request).0);
            body::<PublicKeyReply>(&reply.unwrap());
        }
        "getUsername" => {
            let sent = body::<KeyRequest>(&request);
            assert_eq!(Some(sent.0.to_string()), input("identity"));
            body::<UsernameReply>(&reply.unwrap());
        }
        "getUsernamesGzip/" => {
            assert!(request.is_empty());
            let names = body::<Usernames>(&reply.unwrap());
            assert_eq!(names.0, ["alice", "bob"]);
        }
        "signup" => {
            let sent = body::<SignupRequest>(&request);
            check_name(&sent.username);
            assert_eq!(Some(sent.token), input("token"));
            body::<SignupReply>(&reply.unwrap());
        }
        "updateChain" => {
            let sent = body::<UpdateChainRequest>(&request);
            check_name(&sent.username);
            assert_eq!(sent.chain.get().encode(), *sent.chain.proof_data());
            body::<SignupReply>(&reply.unwrap());
        }
        "startPaidSignup" => {
            let sent = body::<StartPaidSignup>(&request);
            check_name(&sent.username);
            let single = ClaimChain::single(sent.link.get().clone());
            assert_eq!(sent.link.proof_data(), single.encode());
            body::<StartPaidReply>(&reply.unwrap());
        }
        "completePaidSignup" => {
            let sent = body::<CompletePaidSignup>(&request);
            check_name(&sent.username);
            assert_eq!(sent.space_request.as_ref(), [1, 2]);
            body::<PaymentProperties>(&reply.unwrap());
        }
        "mirror" => {
            let sent = body::<MirrorRequest>(&request);
            check_name(&sent.username);
            assert_eq!(sent.auth.as_ref(), [10, 11]);
            assert_eq!(body::<ByteBoolean>(&reply.unwrap()), ByteBoolean(true));
        }
        "startPaidMirror" => {
            check_name(&body::<StartPaidMirror>(&request).username);
            body::<StartPaidReply>(&reply.unwrap());
        }
        "completePaidMirror" => {
            check_name(&body::<CompletePaidMirror>(&request).username);
            body::<PaymentProperties>(&reply.unwrap());
        }
        "getUserSnapshots" => {
            let sent = body::<SnapshotsRequest>(&request);
            assert_eq!(Some(sent.cursor), input("cursor"));
            let after = case.raw("inputs")["after_epoch_seconds"].as_i64();
            assert_eq!(
                sent.after_epoch_seconds,
                after.unwrap_or(FROM_THE_BEGINNING)
            );
            body::<UserSnapshots>(&reply.unwrap());
        }
        "migrateUser" => {
            let sent = body::<MigrateRequest>(&request);
            check_name(&sent.username);
            if let Some(server) = input("current_storage") {
                assert_eq!(sent.current_server.to_string(), server);
                assert_eq!(Some(sent.commit), case.raw("inputs")["commit"].as_bool());
                assert_eq!(Some(sent.usage_bytes), case.raw("inputs")["usage"].as_i64());
            }
            if let Some(reply) = reply {
                body::<UserSnapshot>(&reply);
            }
        }
        other => panic!("unknown call {other}"),
    }
}

fn tofu_store(case: &Case) {
    let mut known = KnownChains::new();
    let alice = Username::parse("alice").unwrap();
    if case.raw("steps").is_null() {
        assert_eq!(known.encode(), case.hex("cbor"));
        assert_eq!(KnownChains::decode(&case.hex("cbor")), Ok(known));
        return;
    }
    for step in case.list("steps") {
        let chain = chain(&step, "chain");
        let before = known.clone();
        let learned = known.learn(&alice, &chain, &keys());
        let note = step.str("note");
        match step.text("refused") {
            Some(_) => {
                assert!(learned.is_err(), "{note}");
                assert_eq!(known, before, "{note}");
            }
            None => assert_eq!(
                learned.unwrap() != Learned::Nothing,
                step.flag("changed"),
                "{note}"
            ),
        }
    }
    let stored: KnownChains = round_trip(&case.hex("cbor"));
    let bob = Username::parse("bob").unwrap();
    assert!(stored.chain(&bob).is_some());
    known
        .learn(&bob, stored.chain(&bob).unwrap(), &keys())
        .unwrap();
    assert_eq!(known, stored);
}

#[test]
fn the_registrar_decides() {
    let mut directory = NameDirectory::new();
    each(
        "pki_champ.json",
        "kind",
        // Pointers, root blocks and champ nodes are exercised where those are.
        &["pki_owner", "champ_key", "pki_root", "pki_lookup"],
        vec![("pki_update", &mut |case: &Case| {
            let update = chain(case, "chain");
            let name = case.str("username");
            let none = ClaimChain::default();
            let ruling = Registration {
                name,
                update: &update,
                existing: directory.chain(name).unwrap_or(&none),
                reserved_for: None,
                // The claims in this file name no server.
                allows_placeholder: true,
            }
            .decide(&keys(), || None, |key| directory.name_of(key));
            let note = case.str("note");
            assert_eq!(
                ruling.is_ok(),
                case.flag("implementations_accept"),
                "{note}"
            );
            match ruling {
                Ok(Ruling::Store(chain)) => {
                    let name = Username::parse(name).unwrap();
                    let (adoption, elsewhere) = directory.apply(&name, Some(chain), &keys());
                    assert_eq!(adoption, Adoption::Accepted, "{note}");
                    assert!(elsewhere.is_empty());
                }
                Ok(Ruling::Unchanged) => assert!(note.starts_with("same chain again")),
                Ok(Ruling::MoreWork(_)) => panic!("no work was asked for"),
                Err(RegistrationError::Username(_)) => {
                    assert!(case.str("reference_error").ends_with("Invalid username"));
                }
                Err(error) => {
                    if let Some(reference) = case.text("reference_error") {
                        assert!(reference.ends_with(&error.to_string()), "{note}");
                    }
                }
            }
        })],
    );
    // After the key change both keys lead to the name.
    let alice = Username::parse("alice").unwrap();
    each(
        "pki_champ.json",
        "kind",
        &["pki_owner", "champ_key", "pki_root", "pki_update"],
        vec![("pki_lookup", &mut |case: &Case| {
            let chain = directory.chain("alice").unwrap();
            for link in chain.links() {
                assert_eq!(directory.name_of(link.owner.hash()), Some(&alice));
            }
            assert_eq!(
                chain.identity().unwrap().to_string(),
                case.str("public_key_hash")
            );
        })],
    );
}

#[test]
fn stored_chains_are_valid_for_their_names() {
    let mut chains = 0;
    each(
        "pki_champ.json",
        "kind",
        &["pki_owner", "champ_key", "pki_update", "pki_lookup"],
        vec![("pki_root", &mut |case: &Case| {
            let mut blocks = MemoryBlocks::new();
            for block in case.list("blocks") {
                let cid: Cid = block.str("cid").parse().unwrap();
                blocks.insert(Block::verified(cid, block.hex("data")).unwrap());
            }
            for block in blocks.iter() {
                // Chain blocks are the lists whose first element is a link map.
                let value = decode_canonical(block.bytes()).unwrap();
                if !matches!(&value, Value::List(l) if matches!(l.first(), Some(Value::Map(_)))) {
                    continue;
                }
                let chain = ClaimChain::from_value(value).unwrap();
                assert_eq!(chain.encode(), *block.bytes());
                let claimed = &chain.last().unwrap().claim.username;
                let name = Username::parse(claimed).unwrap();
                assert_eq!(chain.valid(&name, &keys()), Ok(()));
                chains += 1;
            }
            if case.raw("names").is_null() {
                return;
            }
            for entry in case.list("names") {
                let chain = chain(&entry, "chain");
                let name = Username::parse(entry.str("username")).unwrap();
                let mut gathered = OwnerKeys::inline_only();
                now(gathered.gather(&chain, &blocks));
                assert_eq!(chain.valid(&name, &gathered), Ok(()));
                let signer = SecretSigningKey::from_seed(&entry.array("seed"));
                let own = Owner(PublicKeyHash::of(&signer.public()));
                assert_eq!(chain.identity(), Some(&own));
                let expiry = chain.last().unwrap().claim.expiry;
                let again =
                    ClaimLink::sign(&name, expiry, placeholder_provider(), &signer).unwrap();
                assert_eq!(ClaimChain::single(again), chain);
                chains += 1;
            }
        })],
    );
    assert_eq!(chains, 31);
}
