//! Paid sign-up and paid mirroring, on a node that sells nothing (Spec: 10 §6, §7.4, 12 §5.1).
//!
//! Requests are read and checked as far as every node checks them, so that a mistake gets the same answer
//! everywhere; then a client is told never to try, or that the payment failed. Nothing is stored.

use pki::wire::{
    Body as _,
    mirror::{CompletePaidMirror, StartPaidMirror},
    payment::PaymentProperties,
    signup::{CompletePaidSignup, StartPaidReply, StartPaidSignup},
};

use super::read;
use crate::{
    error::Refusal,
    http::{Call, Reply, RequestBody},
    signup::check_provider,
};

/// What a client shows its user when it asks to pay nevertheless.
const SELLS_NOTHING: &str = "This server does not sell storage";

pub(super) async fn start_sign_up(
    call: &Call<'_>,
    body: &mut RequestBody,
) -> Result<Reply, Refusal> {
    let request = read::<StartPaidSignup>(body).await?;
    check_provider(call.state, &request.link.get().claim)?;
    Ok(never())
}

pub(super) async fn complete_sign_up(
    call: &Call<'_>,
    body: &mut RequestBody,
) -> Result<Reply, Refusal> {
    let request = read::<CompletePaidSignup>(body).await?;
    check_provider(call.state, &request.link.get().claim)?;
    Ok(unpaid())
}

pub(super) async fn start_mirror(body: &mut RequestBody) -> Result<Reply, Refusal> {
    read::<StartPaidMirror>(body).await?;
    Ok(never())
}

pub(super) async fn complete_mirror(body: &mut RequestBody) -> Result<Reply, Refusal> {
    read::<CompletePaidMirror>(body).await?;
    Ok(unpaid())
}

/// A difficulty that no proof reaches.
fn never() -> Reply {
    Reply::bytes(StartPaidReply::NEVER.to_body())
}

/// No charge, no space, and why.
fn unpaid() -> Reply {
    Reply::record(&PaymentProperties {
        error: Some(SELLS_NOTHING.to_owned()),
        ..PaymentProperties::default()
    })
}
