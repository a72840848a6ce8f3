//! Every recorded exchange with the official server: `traces/*.json` (complete sessions of two official
//! clients) and `*_examples.json` (single calls, many of them refused).
//!
//! Each request is parsed into path, query and body, each reply into its record, and everything is written
//! again and compared byte for byte. What a server accepted must be accepted here.

mod exchange;

use bytes::Bytes;
use champ::{
    Cid,
    access::Bat,
    cbor::{Record, Value, decode},
    text::{from_hex, to_hex},
};
use exchange::{Payload, exchanges};
use pki::{
    chain::ClaimChain,
    keys::{Owner, PublicSigningKey, Writer},
    username::Username,
    wire::{
        Body,
        admin::{AllowedSignups, VersionInfo, is_email},
        block_group::{BlockFormat, BlockGroup},
        call::{Call, Target},
        champ_lookup::{ChampCaps, ChampLookupReply},
        direct_store::{BlockStoreProperties, ReadAuthRequest, WriteAuthRequest},
        directory::{KeyRequest, NameRequest, PublicKeyReply},
        link::{EncryptedCapability, LinkCountsQuery, LinkLabel},
        login_data::{LoginData, LoginResponse},
        message::{ServerMessage, ServerMessages},
        node_info::{BlockStat, NodeId, NodeIds},
        payment::{LabelledSpaceRequest, PaymentProperties, PendingSpaceRequests, SpaceRequest},
        pointer_batch::{MAX_SET_POINTER_BYTES, PointerBatch},
        put_reply::PutReply,
        query::{Query, QueryError},
        refusal::Refusal,
        reply::{
            ByteBoolean, CborBoolean, LinkHost, MirrorBats, SpaceBytes, TransactionClosed,
            TransactionId,
        },
        second_factor::{
            BackupCodes, MethodKind, MultiFactorMethods, MultiFactorResponse, TotpKey,
        },
        signup::{SignupReply, SignupRequest},
        trailer::{decode_trailer, encode_trailer},
    },
};

type Checked = Result<(), Box<dyn std::error::Error>>;

fn ensure(fact: bool, what: &'static str) -> Checked {
    match fact {
        true => Ok(()),
        false => Err(what.into()),
    }
}

/// Reads a body and compares what it is written as.
fn body<B: Body>(bytes: &Bytes) -> Result<B, Box<dyn std::error::Error>> {
    let body = B::from_body(bytes)?;
    ensure(body.to_body() == *bytes, "body is written differently")?;
    Ok(body)
}

fn record<R: Record>(bytes: &[u8]) -> Result<R, Box<dyn std::error::Error>> {
    let record = R::decode(bytes)?;
    ensure(record.encode() == bytes, "record is written differently")?;
    Ok(record)
}

#[test]
fn paths_lead_to_calls() {
    let mut seen = std::collections::HashSet::new();
    for exchange in exchanges() {
        let path = exchange.decoded_path();
        let target = Call::at_path(&path);
        // Refused because of method or host: nothing to learn about paths.
        let about_paths = exchange.path != "/api/v0/id";
        match (&target, exchange.status) {
            (Target::Call(call, _), Some(200 | 400) | None) => {
                seen.insert(*call);
            }
            (Target::Call(..), Some(404 | 405)) => assert!(!about_paths, "{}", exchange.name),
            (Target::NoSuchBlockCall, status) => assert_eq!(status, Some(404), "{}", exchange.name),
            (Target::NoSuchCall(text), status) => {
                assert_eq!(status, Some(400), "{}", exchange.name);
                let expected = exchange.message.as_deref();
                assert_eq!(expected, Some(text.as_ref()), "{}", exchange.name);
            }
            (Target::Other, Some(404)) => {}
            // The redirect for public files is not a call.
            (Target::Other, _) => assert!(exchange.path.starts_with("/public/")),
            other => panic!("{}: {other:?}", exchange.name),
        }
    }
    assert!(seen.len() >= 43, "{}", seen.len());
}

#[test]
fn queries_are_read_and_written() {
    let mut exact = 0;
    for exchange in exchanges() {
        let Some(raw) = &exchange.query else { continue };
        let name = &exchange.name;
        match Query::parse(raw) {
            Ok(query) => {
                let written = query.to_text();
                assert_eq!(Query::parse(&written).as_ref(), Ok(&query), "{name}");
                // Other ways to write the same: needless or missing escapes.
                let odd = ["%7A", "%40", "?bat=", "c+d"];
                if odd.iter().any(|odd| raw.contains(odd)) {
                    assert_ne!(written, *raw, "{name}");
                } else {
                    assert_eq!(written, *raw, "{name}");
                    exact += 1;
                }
            }
            Err(QueryError::Repeated) => assert!(name.contains("repeated"), "{name}"),
            Err(QueryError::MissingEquals) => assert!(name.contains("without-equals"), "{name}"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
    assert!(exact > 850, "{exact}");
}

#[test]
fn messages_are_read_and_written() {
    let mut messages = 0;
    for exchange in exchanges() {
        let Some(trailer) = &exchange.trailer else {
            continue;
        };
        if trailer == "(form-encoded runtime error text)" {
            continue;
        }
        let message = decode_trailer(trailer);
        assert_eq!(encode_trailer(&message), *trailer, "{}", exchange.name);
        if let Some(expected) = &exchange.message {
            assert_eq!(message, *expected, "{}", exchange.name);
        }
        let refusal = Refusal::of(&message);
        for (text, expected) in [
            ("PointerCAS", Refusal::Conflict),
            ("Unauthorised!", Refusal::Unauthorized),
            ("Storage quota reached", Refusal::QuotaReached),
            ("Champ root not present", Refusal::ChampRootAbsent),
            ("Incorrect username or password", Refusal::BadLogin),
            ("Invalid TOTP code", Refusal::BadCode),
            ("Stale auth time, is", Refusal::StaleClock),
        ] {
            if message.starts_with(text) {
                assert_eq!(refusal, expected, "{}", exchange.name);
            }
        }
        messages += 1;
    }
    assert!(messages > 80, "{messages}");
}

#[test]
fn parameters_have_their_kinds() {
    let mut checked = 0;
    for exchange in exchanges() {
        let Some((call, query)) = exchange.call() else {
            continue;
        };
        match parameters(call, &query) {
            Ok(()) => checked += 1,
            Err(error) => assert!(
                !exchange.succeeded() || refused_here(&exchange.name),
                "{}: {error}",
                exchange.name
            ),
        }
    }
    assert!(checked > 900, "{checked}");
}

/// What the official server answers with 200 and is refused here: an inline token id (Spec: 09 §5), one
/// writer twice in a batch (Spec: 07 §4), and pointer updates whose signature fails, which it answers with
/// `00` (Spec: 07 §3.2).
fn refused_here(name: &str) -> bool {
    [
        "bats-add-inline-id",
        "pointers-set-same-update-twice",
        "pointer-set-bad-signature",
        "pointer-set-empty-body",
    ]
    .iter()
    .any(|known| name.contains(known))
}

fn parameters(call: Call, query: &Query<'_>) -> Checked {
    use Call as C;

    if call == C::LinkCounts {
        LinkCountsQuery::from_query(query)?;
        return Ok(());
    }
    if query.get("owner").is_some() {
        let owner: Owner = query.parsed("owner")?;
        ensure(query.get("owner") == Some(&owner.to_string()), "owner")?;
    }
    if query.get("writer").is_some() {
        let writer: Writer = query.parsed("writer")?;
        ensure(query.get("writer") == Some(&writer.to_string()), "writer")?;
    }
    if query.get("username").is_some() {
        query.parsed::<Username>("username")?;
    }
    if query.get("author").is_some() {
        let author: PublicSigningKey = query.hex_record("author")?;
        ensure(
            query.get("author") == Some(&to_hex(&author.encode())),
            "author",
        )?;
    }
    if query.get("mfa").is_some() {
        let answer: MultiFactorResponse = query.hex_record("mfa")?;
        ensure(query.get("mfa") == Some(&to_hex(&answer.encode())), "mfa")?;
    }
    if query.get("credid").is_some() {
        query.hex("credid")?;
    }
    MethodKind::parse_list(query.get("mfaTypes"))?;
    match call {
        C::BlockPutBulk | C::BlockPut => {
            query.parsed::<TransactionId>("transaction")?;
            BlockFormat::from_parameter(query.required("format")?);
            ensure(query.get("writer").is_some(), "writer")?;
        }
        C::TransactionClose => {
            query.parsed::<TransactionId>("arg")?;
        }
        C::BlockGet | C::BlockStat => {
            query.cid("arg")?;
            let token = query.token()?.map(|token| token.to_text());
            ensure(query.get("bat") == token.as_deref(), "bat")?;
        }
        C::ChampGetBulk | C::ChampGet => {
            let mut positional = query.positional();
            let root: Cid = positional.next().ok_or("no root")?.parse()?;
            ensure(query.get("arg") == Some(&root.to_string()), "root")?;
            match (query.get("caps"), positional.next()) {
                (Some(text), None) => {
                    let caps = ChampCaps::from_parameter(text)?;
                    ensure(caps.to_parameter() == text, "caps")?;
                }
                (None, Some(key)) => {
                    from_hex(key)?;
                }
                _ => return Err("neither caps nor key".into()),
            }
        }
        C::LinkGet => {
            query.parsed::<LinkLabel>("label")?;
        }
        C::IpnsGet => {
            Cid::parse_peer_id(query.required("arg")?)?;
        }
        C::AddBat => {
            query.cid("batid")?;
            let bat = Bat::parse(query.required("bat")?)?;
            ensure(query.get("bat") == Some(&bat.to_text()), "bat")?;
            let id: Cid = query.cid("batid")?;
            ensure(id.identity_content().is_none(), "inline token id")?;
        }
        C::GetLogin => {
            let author: PublicSigningKey = query.hex_record("author")?;
            time_signed_by(&author, &query.hex("auth")?)?;
        }
        C::Usage | C::Quota | C::PaymentProperties => {
            let owner: Owner = query.parsed("owner")?;
            let key = owner.hash().inline_key().ok_or("no inline key")?;
            time_signed_by(&key, &query.hex("auth")?)?;
        }
        C::RequestSpace => {
            let owner: Owner = query.parsed("owner")?;
            let key = owner.hash().inline_key().ok_or("no inline key")?;
            record::<SpaceRequest>(key.verify_attached(&query.hex("req")?)?)?;
        }
        C::Pending => {
            let admin: Owner = query.parsed("admin")?;
            Cid::parse_peer_id(query.required("instance")?)?;
            let key = admin.hash().inline_key().ok_or("no inline key")?;
            time_signed_by(&key, &query.hex("auth")?)?;
        }
        C::Approve => {
            let admin: Owner = query.parsed("admin")?;
            let key = admin.hash().inline_key().ok_or("no inline key")?;
            record::<LabelledSpaceRequest>(key.verify_attached(&query.hex("req")?)?)?;
        }
        C::ListMfa
        | C::AddTotp
        | C::EnableTotp
        | C::AddMount
        | C::EnableMount
        | C::GenBackupCodes
        | C::RegisterWebauthnStart
        | C::RegisterWebauthnComplete
        | C::DeleteMfa
        | C::GetUserBats
        | C::RetrieveMessages => request_for(call, &query.hex("auth")?)?,
        C::SetLogin => ensure(query.hex("auth")?.len() == 64, "detached signature")?,
        _ => {}
    }
    if call == C::AddBat {
        request_for(call, &query.hex("auth")?)?;
    }
    Ok(())
}

/// The key of the user is not part of these requests; what is signed names the call.
fn request_for(call: Call, auth: &[u8]) -> Checked {
    let Value::Map(map) = decode(auth.get(64..).ok_or("no signature")?)? else {
        return Err("not a signed request".into());
    };
    ensure(map.get("p") == Some(&Value::from(call.path())), "path")?;
    ensure(matches!(map.get("t"), Some(Value::Int(_))), "time")
}

fn time_signed_by(key: &PublicSigningKey, auth: &[u8]) -> Checked {
    let time = decode(key.verify_attached(auth)?)?;
    ensure(matches!(time, Value::Int(_)), "signed time")
}

#[test]
fn request_bodies_are_read_and_written() {
    let (mut whole, mut beginnings) = (0, 0);
    for exchange in exchanges() {
        let Some((call, query)) = exchange.call() else {
            continue;
        };
        match &exchange.request {
            Payload::Beginning(bytes) => {
                assert!(!bytes.is_empty());
                beginnings += 1;
            }
            Payload::Whole(bytes) => match request_body(call, &query, bytes) {
                Ok(0) => {}
                Ok(_) => whole += 1,
                Err(error) => assert!(
                    !exchange.succeeded() || refused_here(&exchange.name),
                    "{}: {error}",
                    exchange.name
                ),
            },
        }
    }
    assert!(whole > 80, "{whole}");
    assert_eq!(beginnings, 113);
}

/// Returns the number of bodies checked.
fn request_body(
    call: Call,
    query: &Query<'_>,
    bytes: &Bytes,
) -> Result<usize, Box<dyn std::error::Error>> {
    use Call as C;

    match call {
        C::BlockPutBulk => {
            let group: BlockGroup = body(bytes)?;
            let writer: Writer = query.parsed("writer")?;
            let key = writer.hash().inline_key().ok_or("no inline key")?;
            let format = BlockFormat::from_parameter(query.required("format")?);
            for (block, signature) in group.iter() {
                let digest = key.verify_attached(signature)?;
                ensure(format.cid(block).hash().digest() == digest, "digest")?;
            }
        }
        C::SetPointer => {
            ensure(bytes.len() <= MAX_SET_POINTER_BYTES, "too large")?;
            let writer: Writer = query.parsed("writer")?;
            let key = writer.hash().inline_key().ok_or("no inline key")?;
            decode(key.verify_attached(bytes)?)?;
        }
        C::SetPointers => {
            for update in body::<PointerBatch>(bytes)?.as_slice() {
                let key = update.writer.hash().inline_key().ok_or("no inline key")?;
                decode(key.verify_attached(&update.signed)?)?;
            }
        }
        C::SetLogin => {
            body::<LoginData>(bytes)?;
        }
        C::RegisterWebauthnComplete => {
            body::<MultiFactorResponse>(bytes)?;
        }
        C::SendMessage => {
            record::<ServerMessage>(bytes.get(64..).ok_or("no signature")?)?;
        }
        C::BlockstoreAuth => {
            body::<WriteAuthRequest>(bytes)?;
        }
        C::BlockstoreAuthReads => {
            body::<ReadAuthRequest>(bytes)?;
        }
        C::GetChain | C::GetPublicKey => {
            body::<NameRequest>(bytes)?;
        }
        C::GetUsername => {
            body::<KeyRequest>(bytes)?;
        }
        C::Signup => {
            let request: SignupRequest = body(bytes)?;
            let name = Username::parse_new(&request.username)?;
            let chain = ClaimChain::single(request.link.into_inner());
            chain.valid(&name, &pki::chain::OwnerKeys::inline_only())?;
            let key = chain
                .identity()
                .and_then(|owner| owner.hash().inline_key())
                .ok_or("no inline key")?;
            let login = request.ops.login.as_ref().ok_or("no login data")?;
            key.verify_detached(&login.data.encode(), &login.auth)?;
            ensure(login.data.username == name, "name")?;
            let mirror = request.ops.mirror_bat.as_ref().ok_or("no mirror token")?;
            key.verify_attached(&mirror.auth)?;
            request_for(C::AddBat, &mirror.auth)?;
        }
        // Multipart is for the server.
        C::BlockPut => return Ok(0),
        _ => return Ok(0),
    }
    Ok(1)
}

#[test]
fn replies_are_read_and_written() {
    let (mut whole, mut beginnings) = (0, 0);
    for exchange in exchanges() {
        let Some((call, _)) = exchange.call() else {
            continue;
        };
        if !exchange.succeeded() {
            continue;
        }
        match &exchange.reply {
            Payload::Beginning(bytes) => {
                assert!(!bytes.is_empty());
                beginnings += 1;
            }
            Payload::Whole(bytes) => match reply(call, bytes) {
                Ok(count) => whole += count,
                Err(error) => panic!("{}: {error}", exchange.name),
            },
        }
    }
    assert!(whole > 250, "{whole}");
    assert_eq!(beginnings, 430);
}

/// Returns the number of bodies checked.
fn reply(call: Call, bytes: &Bytes) -> Result<usize, Box<dyn std::error::Error>> {
    use Call as C;

    match call {
        C::Id => drop(body::<NodeId>(bytes)?),
        C::Ids => drop(body::<NodeIds>(bytes)?),
        C::LinkHost => drop(body::<LinkHost>(bytes)?),
        C::BlockstoreProps => drop(body::<BlockStoreProperties>(bytes)?),
        C::TransactionStart => drop(body::<TransactionId>(bytes)?),
        C::TransactionClose => drop(body::<TransactionClosed>(bytes)?),
        C::BlockPutBulk | C::BlockPut => drop(body::<PutReply>(bytes)?),
        C::BlockStat => drop(body::<BlockStat>(bytes)?),
        C::ChampGetBulk | C::ChampGet => drop(body::<ChampLookupReply>(bytes)?),
        C::LinkGet => drop(body::<EncryptedCapability>(bytes)?),
        C::SetPointer | C::SetPointers | C::SetLogin => drop(body::<ByteBoolean>(bytes)?),
        C::GetLogin => drop(body::<LoginResponse>(bytes)?),
        C::ListMfa => drop(body::<MultiFactorMethods>(bytes)?),
        C::AddTotp | C::AddMount => {
            let text = std::str::from_utf8(bytes)?;
            ensure(text.parse::<TotpKey>()?.to_text() == text, "totp key")?;
        }
        C::GenBackupCodes => drop(body::<BackupCodes>(bytes)?),
        C::RegisterWebauthnStart => ensure(bytes.len() == 32, "challenge")?,
        C::EnableTotp
        | C::EnableMount
        | C::RegisterWebauthnComplete
        | C::DeleteMfa
        | C::AddBat
        | C::Approve
        | C::SendMessage
        | C::Waitlist => drop(body::<CborBoolean>(bytes)?),
        C::Usage | C::Quota => drop(body::<SpaceBytes>(bytes)?),
        C::PaymentProperties | C::RequestSpace => drop(body::<PaymentProperties>(bytes)?),
        C::Version => drop(body::<VersionInfo>(bytes)?),
        C::Signups => drop(body::<AllowedSignups>(bytes)?),
        C::Pending => drop(body::<PendingSpaceRequests>(bytes)?),
        C::GetUserBats => drop(body::<MirrorBats>(bytes)?),
        C::RetrieveMessages => drop(body::<ServerMessages>(bytes)?),
        C::GetChain => drop(body::<ClaimChain>(bytes)?),
        C::GetPublicKey => drop(body::<PublicKeyReply>(bytes)?),
        C::Signup => drop(body::<SignupReply>(bytes)?),
        C::GetUsernames => {
            // Compressed: for the node, which has the decoder.
            ensure(bytes.starts_with(&[0x1f, 0x8b]), "gzip")?;
            return Ok(0);
        }
        // Block bytes and signed pointers are not records of these calls.
        C::BlockGet | C::GetPointer => return Ok(0),
        other => return Err(format!("no reply of {other:?} is expected").into()),
    }
    Ok(1)
}

#[test]
fn recorded_waiting_list_entries_are_addresses() {
    for exchange in exchanges() {
        let Some((Call::Waitlist, query)) = exchange.call() else {
            continue;
        };
        let Payload::Whole(reply) = &exchange.reply else {
            panic!("short replies are whole");
        };
        let taken = exchange.succeeded() && CborBoolean::from_body(reply) == Ok(CborBoolean(true));
        let email = query.get("email").unwrap_or_default();
        if taken {
            assert!(is_email(email), "{}: {email}", exchange.name);
        }
    }
}
