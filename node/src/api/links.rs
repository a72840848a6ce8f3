//! Secret links, under `/api/v0/link/` (Spec: 06 §7).

use champ::{
    BlockSource as _,
    cbor::{Record as _, Value},
    map::Champ,
};
use pki::{
    wire::link::{LabelError, LinkCountsQuery, LinkLabel, SecretLinkTarget},
    writer_data::WriterData,
};
use subtle::ConstantTimeEq as _;

use crate::{
    bats,
    blocks::{AuthorisedBlocks, StoredBlocks, source_refusal},
    directory::User,
    error::Refusal,
    http::{Call, Origin, Reply},
    link_counts,
    pointers::stored_update,
    state::State,
};

pub(super) async fn get(call: &Call<'_>) -> Result<Reply, Refusal> {
    let label =
        call.query
            .required("label")?
            .parse::<LinkLabel>()
            .map_err(|error| match error {
                LabelError::NotPositive => Refusal::rule(error.to_string()),
                _ => Refusal::malformed(error.to_string()),
            })?;
    let owner = call.query.owner()?;
    let state = call.state;
    let user = state.directory.user(&owner).await?;
    if !user.is_local {
        return Err(Refusal::ForeignLink);
    }
    // How often it was used is known when the user has arrived.
    if state.directory.arrivals.contains(&user.name) {
        return Err(Refusal::Moving);
    }
    let now = state.clock.now_seconds();
    let source = user.name.as_str().to_owned();
    let counted_at = state.limit_seconds();
    let is_exhausted = state
        .guards
        .link_misses
        .is_exhausted(&*state.store, &source, counted_at)
        .await?;
    if is_exhausted {
        return Err(Refusal::RateLimit("Too many wrong links"));
    }
    let Some(target) = find(state, &user, label).await? else {
        state
            .guards
            .link_misses
            .record(&*state.store, &source, counted_at)
            .await?;
        return Err(Refusal::rule("No secret link present!"));
    };
    // Expiry is written in UTC whatever the time zone of anybody.
    if target
        .expiry_epoch_seconds
        .is_some_and(|expiry| expiry < now)
    {
        return Err(Refusal::rule("Secret link expired!"));
    }
    link_counts::count_use(state, &user.name, label, target.max_retrievals, now).await?;
    Ok(Reply::record(&target.capability))
}

async fn find(
    state: &State,
    user: &User,
    label: LinkLabel,
) -> Result<Option<SecretLinkTarget>, Refusal> {
    let none_published = || Refusal::rule("No secret link published!");
    let identity = user.identity.as_writer();
    let update = stored_update(state, &identity).await?;
    let root = update
        .as_ref()
        .and_then(|update| update.updated())
        .ok_or_else(none_published)?;
    let stored = StoredBlocks { state, user };
    let block = stored
        .block(root, None)
        .await
        .map_err(source_refusal)?
        .ok_or_else(|| Refusal::internal("the root block of a local user is missing"))?;
    let data = WriterData::in_block(&block, &identity).map_err(Refusal::internal)?;
    let mut links = Champ::at(data.links.ok_or_else(none_published)?);
    if let Some(bat) = bats::newest(state, &user.name).await? {
        links = links.with_root_token(bat);
    }
    let authorised = AuthorisedBlocks { state, user };
    let value = links
        .get(&label.champ_key(), &authorised)
        .await
        .map_err(|_| Refusal::Unauthorised)?;
    let Some(Value::Link(target)) = value else {
        return Ok(None);
    };
    let block = authorised
        .block(&target, None)
        .await
        .map_err(source_refusal)?;
    Ok(block.and_then(|block| SecretLinkTarget::decode_shared(block.bytes()).ok()))
}

pub(super) async fn counts(call: &Call<'_>) -> Result<Reply, Refusal> {
    let asked = LinkCountsQuery::from_query(call.query.wire())?;
    let state = call.state;
    let user = state.directory.named_local(&asked.owner).await?;
    let newest = bats::newest(state, &user.name)
        .await?
        .ok_or(Refusal::MirrorToken)?;
    let is_same = newest.bat.secret().ct_eq(asked.bat.bat.secret());
    if !bool::from(is_same) || newest.id != asked.bat.id {
        return Err(Refusal::MirrorToken);
    }
    if let Origin::Peer(peer) = call.origin
        && state.mirrors.holders.of_user(&user.name, peer)
    {
        state.scrub.look_again();
    }
    let counts = link_counts::changed_after(state, &user.name, asked.after_epoch_seconds).await?;
    Ok(Reply::record(&counts))
}
