//! The calls, one module per family: parse, ask a service, encode (Spec: 05 §2, §12).

mod admin;
mod asker;
mod bats;
mod core;
mod direct;
mod links;
mod login;
mod messages;
mod mirror;
mod mutable;
mod paid;
mod second_factors;
mod social;
mod space;
mod storage;

pub(crate) use storage::legacy_put;

use bytes::Bytes;
use pki::wire::{Body, WireError, call::Call as Name, second_factor::MethodKind};

use crate::{
    error::Refusal,
    http::{Call, Reply, RequestBody},
};

/// Answers one call. A call that is in the table and not here does not compile.
pub(crate) async fn answer(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, Refusal> {
    match call.what {
        Name::Id => Ok(storage::id(call)),
        Name::Ids => Ok(storage::ids(call)),
        Name::LinkHost => storage::link_host(call).await,
        Name::BlockstoreProps => Ok(direct::properties(call)),
        Name::BlockstoreAuth => direct::write(call, body).await,
        Name::BlockstoreAuthReads => direct::reads(call, body).await,
        Name::TransactionStart => storage::start_transaction(call).await,
        Name::TransactionClose => storage::close_transaction(call).await,
        Name::BlockPutBulk => storage::put_bulk(call, body).await,
        Name::BlockPut => storage::put_multipart(call, body).await,
        Name::BlockGet => storage::guarded(call, storage::get(call)).await,
        Name::BlockStat => storage::stat(call).await,
        Name::ChampGetBulk | Name::ChampGet => {
            storage::guarded(call, storage::champ_lookup(call)).await
        }
        Name::LinkGet => links::get(call).await,
        Name::LinkCounts => links::counts(call).await,
        Name::IpnsGet => storage::identity_record(call).await,

        Name::GetPointer => mutable::get(call).await,
        Name::SetPointer => mutable::set(call, body).await,
        Name::SetPointers => mutable::set_all(call, body).await,

        Name::SetLogin => login::set_login(call, body).await,
        Name::GetLogin => login::get_login(call).await,
        Name::ListMfa => second_factors::list(call).await,
        Name::AddTotp => second_factors::add_totp(call).await,
        Name::EnableTotp => second_factors::enable(call, MethodKind::Totp).await,
        Name::AddMount => second_factors::add_mount(call).await,
        Name::EnableMount => second_factors::enable(call, MethodKind::Mount).await,
        Name::GenBackupCodes => second_factors::make_backup_codes(call).await,
        Name::RegisterWebauthnStart => second_factors::start_webauthn(call).await,
        Name::RegisterWebauthnComplete => second_factors::complete_webauthn(call, body).await,
        Name::DeleteMfa => second_factors::delete(call).await,

        Name::Usage => space::usage(call).await,
        Name::Quota => space::quota(call).await,
        Name::PaymentProperties => space::payment_properties(call).await,
        Name::RequestSpace => space::request(call).await,

        Name::Version => Ok(admin::version()),
        Name::Signups => admin::signups(call).await,
        Name::Waitlist => admin::waitlist(call).await,
        Name::Pending => admin::pending(call).await,
        Name::Approve => admin::approve(call).await,

        Name::GetUserBats => bats::list(call).await,
        Name::AddBat => bats::add(call).await,

        Name::RetrieveMessages => messages::retrieve(call).await,
        Name::SendMessage => messages::send(call, body).await,

        Name::SendFollowRequest => social::send(call, body).await,
        Name::GetFollowRequests => social::list(call).await,
        Name::RemoveFollowRequest => social::remove(call, body).await,

        Name::GetChain => core::get_chain(call, body).await,
        Name::GetPublicKey => core::get_public_key(call, body).await,
        Name::GetUsername => core::get_username(call, body).await,
        Name::GetUsernames => core::get_usernames(call).await,
        Name::Signup => core::sign_up(call, body).await,
        Name::UpdateChain => core::update_chain(call, body).await,
        Name::StartPaidSignup => paid::start_sign_up(call, body).await,
        Name::CompletePaidSignup => paid::complete_sign_up(call, body).await,
        Name::StartPaidMirror => paid::start_mirror(body).await,
        Name::CompletePaidMirror => paid::complete_mirror(body).await,
        Name::Mirror => mirror::mirror(call, body).await,
        Name::GetUserSnapshots => mirror::snapshots(call, body).await,
        Name::MigrateUser => mirror::migrate(call, body).await,
    }
}

/// Reads a body of a wire type within its limit.
async fn read<B: Body>(body: &mut RequestBody) -> Result<B, Refusal> {
    let bytes = body.read(B::MAX_BYTES).await?;
    B::from_body(&bytes).map_err(wire)
}

/// Reads a body of at most `max` bytes.
async fn read_bytes(body: &mut RequestBody, max: usize) -> Result<Bytes, Refusal> {
    body.read(max).await
}

/// Turns unreadable input into an answer that says what is wrong with it.
fn wire(error: WireError) -> Refusal {
    let text = match &error {
        WireError::Record(source) => format!("{error}: {source}"),
        WireError::Stream(source) => format!("{error}: {source}"),
        _ => error.to_string(),
    };
    Refusal::malformed(text)
}
