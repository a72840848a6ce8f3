//! `accounts.json` and `api_objects.json`: every record of the account, storage, space and message calls.

use bytes::Bytes;
use champ::{
    Cid,
    access::BatWithId,
    cbor::{Record, RecordError, Value},
    text::{from_hex, to_hex},
};
use pki::{
    keys::{PublicKeyHash, PublicSigningKey, SecretSigningKey},
    wire::{
        Body,
        admin::{AllowedSignups, VersionInfo},
        block_group::{BlockFormat, BlockGroup},
        champ_lookup::{ChampCap, ChampCaps},
        direct_store::{BlockReadCap, BlockStoreProperties, WriteAuthRequest},
        link::{EncryptedCapability, LinkCounts, LinkLabel, SecretLinkTarget},
        login_data::{LoginData, LoginResponse, OpaqueCipherText},
        message::{MessageKind, ServerMessage},
        op_log::BlockWrite,
        payment::{LabelledSpaceRequest, PaymentProperties, SpaceRequest},
        pointer_batch::{PointerBatch, PointerWrite},
        refusal::Refusal,
        second_factor::{
            BackupCodes, FactorAnswer, FactorName, MethodKind, MultiFactorMethod,
            MultiFactorRequest, MultiFactorResponse, TotpKey, backup_code, backup_code_hash,
            display_backup_code, match_backup_code, normalize_backup_code,
        },
        trailer::{decode_trailer, encode_trailer},
    },
};

use crate::support::{Case, each};

/// The fixed keys of both files.
fn secret(name: &str) -> SecretSigningKey {
    let first: u8 = match name {
        "identity" => 0x01,
        "login" => 0x41,
        "writer" => 0x81,
        other => panic!("unknown signer {other}"),
    };
    let mut seed = [0; 32];
    for (byte, value) in seed.iter_mut().zip(first..) {
        *byte = value;
    }
    SecretSigningKey::from_seed(&seed)
}

fn check_key(case: &Case, name: &str) {
    let key = secret(name);
    assert_eq!(key.seed().as_slice(), case.hex(&format!("{name}_seed_hex")));
    let public = key.public();
    assert_eq!(
        public.encode(),
        case.hex(&format!("{name}_public_cbor_hex"))
    );
    if let Some(hash) = case.text(&format!("{name}_hash")) {
        assert_eq!(PublicKeyHash::of(&public).to_string(), hash);
    }
}

/// Decodes the record of a case and checks that it is written the same way.
fn record<R: Record>(case: &Case) -> R {
    let bytes = case.hex("cbor_hex");
    let record = R::decode(&bytes).unwrap();
    assert_eq!(record.encode(), bytes, "{}", case.name());
    assert!(R::decode(&[&bytes[..], &[0]].concat()).is_err());
    assert!(R::decode(&bytes[..bytes.len() - 1]).is_err());
    record
}

fn body<B: Body>(case: &Case) -> B {
    let bytes = Bytes::from(case.hex("cbor_hex"));
    let body = B::from_body(&bytes).unwrap();
    assert_eq!(body.to_body(), bytes, "{}", case.name());
    body
}

fn fields(case: &Case) -> &serde_json::Value {
    case.raw("fields")
}

fn field_hex(case: &Case, field: &str) -> Vec<u8> {
    from_hex(fields(case)[field].as_str().unwrap()).unwrap()
}

#[test]
fn account_records() {
    let check_auth = |case: &Case, data: &LoginData| {
        let auth = case.hex("auth_hex");
        let signer = secret(case.str("signer"));
        assert_eq!(signer.sign_detached(&data.encode()).as_slice(), auth);
        signer
            .public()
            .verify_detached(&data.encode(), &auth)
            .unwrap();
    };
    let method = |case: &Case| {
        let method: MultiFactorMethod = record(case);
        let fields = fields(case);
        assert_eq!(fields["n"], method.name.as_str());
        assert_eq!(fields["c"], method.created_epoch_day);
        assert_eq!(fields["t"], method.kind.code());
        assert_eq!(fields["e"], method.is_enabled);
        assert_eq!(fields["i"], to_hex(&method.credential_id));
    };
    each(
        "accounts.json",
        "name",
        // The node computes codes.
        &["totp-code"],
        vec![
            ("keys", &mut |case| {
                check_key(case, "identity");
                check_key(case, "login");
            }),
            ("user-static-data", &mut |case| {
                let sealed: OpaqueCipherText = record(case);
                assert_eq!(sealed.nonce.as_slice(), field_hex(case, "nonce"));
                assert_eq!(sealed.cipher, field_hex(case, "cipher"));
            }),
            ("login-data", &mut |case| {
                let data: LoginData = body(case);
                assert_eq!(data.username.as_str(), "alice");
                assert_eq!(data.reader, secret("login").public());
                assert!(data.root_change.is_none());
            }),
            ("login-data-auth", &mut |case| {
                check_auth(case, &named("accounts.json", "login-data"));
            }),
            ("block-write", &mut |case| {
                let write: BlockWrite = record(case);
                assert_eq!(write.format, BlockFormat::DagCbor);
                let key = write.writer.hash().inline_key().unwrap();
                let digest = key.verify_attached(&write.signature).unwrap();
                assert_eq!(write.cid().hash().digest(), digest);
            }),
            ("pointer-write", &mut |case| {
                let write: PointerWrite = record(case);
                let key = write.writer.hash().inline_key().unwrap();
                key.verify_attached(&write.signed).unwrap();
            }),
            ("login-data-password-change", &mut |case| {
                let data: LoginData = body(case);
                let change = data.root_change.as_ref().unwrap();
                assert_eq!(change.block.writer, change.pointer.writer);
            }),
            ("login-data-password-change-auth", &mut |case| {
                check_auth(case, &named("accounts.json", "login-data-password-change"));
            }),
            ("login-get-auth", &mut |case| {
                let author = PublicSigningKey::decode(&case.hex("author_parameter")).unwrap();
                assert_eq!(author, secret(case.str("signer")).public());
                let auth = case.hex("auth_hex");
                let time = author.verify_attached(&auth).unwrap();
                assert_eq!(time, Value::Int(case.int("time_millis")).encode());
            }),
            ("mfa-method-totp", &mut { method }),
            ("mfa-method-webauthn", &mut { method }),
            ("mfa-method-backup_codes", &mut { method }),
            ("mfa-method-mount", &mut { method }),
            ("mfa-method-name-33-chars", &mut |case| {
                let error = FactorName::parse(&"x".repeat(33)).unwrap_err();
                assert!(case.str("result").ends_with(&error.to_string()));
            }),
            ("mfa-method-unknown-type", &mut |case| {
                assert!(case.str("result").contains("factor type: 9"));
                assert_eq!(MethodKind::from_code(9), None);
                let known: MultiFactorMethod = named("accounts.json", "mfa-method-totp");
                let Value::Map(mut map) = known.to_value() else {
                    panic!("not a map");
                };
                map.insert("t", 9);
                assert_eq!(
                    MultiFactorMethod::from_value(Value::Map(map)),
                    Err(RecordError::OutOfRange { field: "t" })
                );
            }),
            ("mfa-request", &mut |case| {
                let request: MultiFactorRequest = record(case);
                assert_eq!(request.challenge.as_slice(), field_hex(case, "c"));
                assert_eq!(request.methods.0.len(), 2);
            }),
            ("login-response-data", &mut |case| {
                let reply: LoginResponse = body(case);
                assert!(matches!(reply, LoginResponse::Record(_)));
            }),
            ("login-response-mfa", &mut |case| {
                let reply: LoginResponse = body(case);
                assert!(matches!(reply, LoginResponse::SecondFactor(_)));
            }),
            ("mfa-response-code", &mut |case| {
                let response: MultiFactorResponse = body(case);
                assert_eq!(response.credential_id, field_hex(case, "i"));
                assert_eq!(response.answer, FactorAnswer::Code("123456".into()));
            }),
            ("mfa-response-webauthn", &mut |case| {
                let response: MultiFactorResponse = body(case);
                let expected = FactorAnswer::WebAuthn {
                    authenticator_data: field_hex(case, "a").into(),
                    client_data: Bytes::from_static(b"{}"),
                    signature: field_hex(case, "s").into(),
                };
                assert_eq!(response.answer, expected);
            }),
            ("totp-key", &mut |case| {
                let key: TotpKey = case.str("encoded").parse().unwrap();
                assert_eq!(key.credential_id, case.array("credential_id_hex"));
                assert_eq!(key.key, case.array("key_hex"));
                assert_eq!(key.to_text(), case.str("encoded"));
            }),
            ("backup-code", &mut |case| {
                let code = backup_code(&case.array("random_hex"));
                assert_eq!(code, case.str("code"));
                assert_eq!(display_backup_code(&code), case.str("display"));
                assert_eq!(normalize_backup_code(case.str("display")), code);
            }),
            ("backup-code-normalise", &mut |case| {
                let normal = normalize_backup_code(case.str("input"));
                assert_eq!(normal, case.str("normalised"));
                let hash = backup_code_hash(&normal);
                assert_eq!(hash, case.array("stored_hash_hex"));
                let stored = [[0; 32], hash, [1; 32]];
                assert_eq!(match_backup_code(case.str("input"), &stored), Some(1));
                assert_eq!(match_backup_code("aaaaa-aaaaa", &stored), None);
            }),
            ("backup-codes", &mut |case| {
                let codes: BackupCodes = body(case);
                assert_eq!(codes.codes, ["a3f5b2xqz7", "bbbbbccccc"]);
                assert_eq!(codes.credential_id.as_slice(), field_hex(case, "i"));
            }),
        ],
    );
}

/// Decodes the record of another case of a file.
fn named<R: Record>(file: &str, name: &str) -> R {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let whole: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = whole["cases"].as_array().unwrap();
    let case = cases.iter().find(|case| case["name"] == name).unwrap();
    R::decode(&from_hex(case["cbor_hex"].as_str().unwrap()).unwrap()).unwrap()
}

fn signed_by<'a>(signer: &str, signed: &'a [u8]) -> &'a [u8] {
    // Ed25519 is deterministic, so the signature itself can be compared.
    let message = &signed[64..];
    assert_eq!(secret(signer).sign_attached(message), signed);
    message
}

#[test]
fn api_records() {
    let properties = |case: &Case| {
        let properties: BlockStoreProperties = body(case);
        let fields = fields(case);
        assert_eq!(fields["w"], properties.direct_writes);
        assert_eq!(fields["pr"], properties.public_reads);
        assert_eq!(fields["ar"], properties.authorized_reads);
        assert_eq!(fields["b"].as_str(), properties.public_read_url.as_deref());
        assert_eq!(fields["ba"].as_str(), properties.authorized_url.as_deref());
    };
    let read_cap = |case: &Case| {
        let cap: BlockReadCap = record(case);
        assert_eq!(fields(case)["h"], cap.cid.to_string());
        let bat = cap.bat.map(|bat| bat.to_text());
        assert_eq!(fields(case)["b"].as_str(), bat.as_deref());
    };
    let write_auth = |case: &Case| {
        let request: WriteAuthRequest = body(case);
        let [block] = request.as_slice() else {
            panic!("not one block");
        };
        assert_eq!(fields(case)["sizes"][0], block.size_bytes);
        assert_eq!(fields(case)["signatures"][0], to_hex(&block.signature));
        let ids: Vec<_> = block
            .bat_ids
            .iter()
            .map(|id| id.cid().to_string())
            .collect();
        assert_eq!(fields(case)["bat_ids"][0], serde_json::json!(ids));
    };
    let link_counts = |case: &Case| {
        let counts: LinkCounts = body(case);
        if let Some(count) = counts.0.first() {
            assert_eq!(fields(case)["label"], count.label);
            assert_eq!(fields(case)["count"], count.count);
            assert_eq!(
                fields(case)["modified_epoch_seconds"],
                count.modified_epoch_seconds
            );
        }
    };
    let capability = |case: &Case| {
        let capability: EncryptedCapability = body(case);
        assert_eq!(fields(case)["user_password"], capability.needs_password);
    };
    let target = |case: &Case| {
        let target: SecretLinkTarget = record(case);
        assert_eq!(
            fields(case)["user_password"],
            target.capability.needs_password
        );
        assert_eq!(
            fields(case)["expiry_epoch_seconds"].as_i64(),
            target.expiry_epoch_seconds
        );
        assert_eq!(fields(case)["max"].as_i64(), target.max_retrievals);
    };
    let batch = |case: &Case| {
        let batch: PointerBatch = body(case);
        for update in batch.as_slice() {
            let key = update.writer.hash().inline_key().unwrap();
            key.verify_attached(&update.signed).unwrap();
        }
    };
    let space_request = |case: &Case| {
        let request: SpaceRequest = record(case);
        assert_eq!(fields(case)["u"], request.username.as_str());
        assert_eq!(fields(case)["s"], request.quota_bytes);
        assert_eq!(fields(case)["a"], request.is_annual);
        assert_eq!(fields(case)["t"], request.epoch_millis);
        let proof = request.payment_proof.map(|proof| to_hex(&proof));
        assert_eq!(fields(case)["p"].as_str(), proof.as_deref());
    };
    let payment = |case: &Case| {
        let properties: PaymentProperties = body(case);
        let fields = fields(case);
        assert_eq!(fields["url"].as_str(), properties.url.as_deref());
        assert_eq!(fields["err"].as_str(), properties.error.as_deref());
        assert_eq!(
            fields["client_secret"].as_str(),
            properties.client_secret.as_deref()
        );
        assert_eq!(
            fields["expiry_epoch_seconds"].as_i64(),
            properties.expiry_epoch_seconds
        );
        for (field, value) in [
            ("freeQuota", properties.free_quota_bytes),
            ("desiredQuota", properties.desired_quota_bytes),
            ("nextCharge", properties.next_charge_cents),
        ] {
            // The cases list only what they are about.
            assert_eq!(fields[field].as_i64().unwrap_or(value), value, "{field}");
        }
        assert!(!format!("{properties:?}").contains("cs_123"));
    };
    let message = |case: &Case| {
        let message: ServerMessage = record(case);
        let fields = fields(case);
        assert_eq!(fields["id"], message.id);
        assert_eq!(fields["s"], message.sent_epoch_millis);
        assert_eq!(fields["b"], message.body);
        assert_eq!(fields["d"], message.is_dismissed);
        assert_eq!(fields["r"].as_i64(), message.reply_to);
        let kind = match fields["t"].as_i64() {
            Some(1) => MessageKind::FromServer,
            Some(2) => MessageKind::FromUser,
            Some(3) => MessageKind::Dismiss,
            other => panic!("unknown type {other:?}"),
        };
        assert_eq!(kind, message.kind);
    };
    let group = |case: &Case| {
        let group: BlockGroup = body(case);
        for (block, signature) in group.iter() {
            let digest = signed_by("writer", signature);
            assert_eq!(Cid::of_raw(block).hash().digest(), digest);
        }
    };
    let pointer = |case: &Case| {
        let signed = case.hex("signed_hex");
        assert_eq!(signed_by(case.str("signer"), &signed), case.hex("cbor_hex"));
        assert_eq!(
            case.int("signed_length"),
            i64::try_from(signed.len()).unwrap()
        );
    };
    each(
        "api_objects.json",
        "name",
        // Signed times and requests, owner proofs: with the keys that sign them.
        &["signed-time", "signed-request", "owner-proof"],
        vec![
            ("keys", &mut |case| {
                for name in ["identity", "login", "writer"] {
                    check_key(case, name);
                }
            }),
            ("block-signature", &mut |case| {
                let block = case.hex("block_hex");
                let signed = case.hex("signed_hash_hex");
                assert_eq!(
                    signed_by(case.str("signer"), &signed),
                    case.hex("sha256_hex")
                );
                let cids = [
                    (BlockFormat::DagCbor, "cid_if_dag_cbor"),
                    (BlockFormat::Raw, "cid_if_raw"),
                ];
                for (format, field) in cids {
                    assert_eq!(format.cid(&block).to_string(), case.str(field));
                    assert_eq!(BlockFormat::from_parameter(format.as_str()), format);
                }
            }),
            ("block-write-group", &mut { group }),
            ("block-write-group-empty", &mut { group }),
            ("blockstore-properties-none", &mut { properties }),
            ("blockstore-properties-s3", &mut { properties }),
            ("blockstore-properties-public", &mut { properties }),
            ("block-mirror-cap", &mut { read_cap }),
            ("block-mirror-cap-no-bat", &mut { read_cap }),
            ("chunk-mirror-cap", &mut |case| {
                let cap: ChampCap = record(case);
                assert_eq!(cap.map_key.as_slice(), field_hex(case, "m"));
                let bat = cap.bat.map(|bat| bat.to_text());
                assert_eq!(fields(case)["b"].as_str(), bat.as_deref());
            }),
            ("champ-caps-parameter", &mut |case| {
                let caps = ChampCaps::from_parameter(case.str("parameter")).unwrap();
                assert_eq!(caps.to_parameter(), case.str("parameter"));
                let list: Vec<_> = caps.as_slice().iter().map(Record::to_value).collect();
                assert_eq!(Value::List(list).encode(), case.hex("cbor_hex"));
                for (cap, expected) in caps.as_slice().iter().zip(case.list("caps")) {
                    assert_eq!(cap.map_key, expected.array("m"));
                    let bat = expected.text("b").map(|bat| BatWithId::parse(bat).unwrap());
                    assert_eq!(cap.bat, bat);
                }
            }),
            ("write-auth-request", &mut { write_auth }),
            ("write-auth-request-no-bats", &mut { write_auth }),
            ("link-counts", &mut { link_counts }),
            ("link-counts-empty", &mut { link_counts }),
            ("secret-link-target", &mut { target }),
            ("secret-link-target-unlimited", &mut { target }),
            ("encrypted-capability", &mut { capability }),
            ("encrypted-capability-with-user-password", &mut {
                capability
            }),
            ("secret-link-champ-key", &mut |case| {
                let label = LinkLabel::try_from(case.int("label")).unwrap();
                assert_eq!(label.champ_key(), case.array("key_hex"));
            }),
            ("pointer-first", &mut { pointer }),
            ("pointer-update", &mut { pointer }),
            ("pointer-deletion", &mut { pointer }),
            ("pointer-legacy-no-sequence", &mut { pointer }),
            ("multi-writer-commit", &mut { batch }),
            ("multi-writer-commit-empty", &mut { batch }),
            ("pointer-cas-error", &mut |case| {
                assert_eq!(encode_trailer(case.str("message")), case.str("header"));
                assert_eq!(decode_trailer(case.str("header")), case.str("message"));
                assert_eq!(Refusal::of(case.str("message")), Refusal::Conflict);
            }),
            ("pointer-cas-error-no-existing", &mut |case| {
                assert_eq!(Refusal::of(case.str("message")), Refusal::Conflict);
            }),
            ("space-request", &mut { space_request }),
            ("space-request-with-proof", &mut { space_request }),
            ("space-request-signed", &mut |case| {
                let signed = case.hex("signed_hex");
                SpaceRequest::decode(signed_by(case.str("signer"), &signed)).unwrap();
            }),
            ("labelled-space-request", &mut |case| {
                let labelled: LabelledSpaceRequest = record(case);
                assert_eq!(fields(case)["u"], labelled.username.as_str());
                assert_eq!(fields(case)["r"], to_hex(&labelled.signed));
            }),
            ("labelled-space-request-signed-by-admin", &mut |case| {
                let signed = case.hex("signed_hex");
                let message = signed_by(case.str("admin_key"), &signed);
                LabelledSpaceRequest::decode(message).unwrap();
            }),
            ("payment-properties-free-server", &mut |case| {
                payment(case);
                let free = PaymentProperties::free(1 << 30);
                assert_eq!(free.encode(), case.hex("cbor_hex"));
            }),
            ("payment-properties-paid", &mut { payment }),
            ("payment-properties-error", &mut { payment }),
            ("allowed-signups", &mut |case| {
                let allowed: AllowedSignups = body(case);
                assert!(allowed.free && !allowed.paid);
            }),
            ("version-info", &mut |case| {
                let version: VersionInfo = body(case);
                assert_eq!(version.version, "1.32.0");
                assert_eq!(version.build, "abc");
            }),
            ("server-message-from-user", &mut { message }),
            ("server-message-from-server", &mut { message }),
            ("server-message-reply", &mut { message }),
            ("server-message-dismiss", &mut { message }),
            ("server-message-from-user-signed", &mut |case| {
                let signed = case.hex("signed_hex");
                ServerMessage::decode(signed_by(case.str("signer"), &signed)).unwrap();
            }),
            ("server-message-too-long", &mut |case| {
                let known: ServerMessage = named("api_objects.json", "server-message-from-user");
                let units = usize::try_from(case.int("contents_chars")).unwrap();
                let long = ServerMessage {
                    body: "x".repeat(units),
                    ..known
                };
                assert!(ServerMessage::decode(&long.encode()).is_err());
            }),
        ],
    );
}
