//! Names, login data, mirror tokens (Spec: 08, 09 §5, 10 §6).

use bytes::Bytes;
use champ::{
    access::BatWithId,
    cbor::{Record, Value},
};
use data_encoding::HEXLOWER;
use pki::{
    chain::ClaimChain,
    keys::{Owner, PublicKeyHash, PublicSigningKey},
    proof_of_work::ProofOfWork,
    username::Username,
    wire::{
        Body,
        directory::{NameRequest, PublicKeyReply},
        login_data::{LoginData, LoginResponse, MAX_LOGIN_RESPONSE_BYTES, OpaqueCipherText},
        second_factor::{MultiFactorMethods, MultiFactorRequest, MultiFactorResponse},
        signup::{SentLinks, SignupReply, SignupRequest, UpdateChainRequest},
        social::FollowRequests,
    },
};

use super::{Api, Repeat, space::cbor_reply};
use crate::{error::ClientError, transport::ApiRequest};

/// Largest claim chain that is read.
const MAX_CHAIN_BYTES: usize = 4 << 20;
/// Largest of the small replies.
const MAX_REPLY_BYTES: usize = 64 << 10;
/// Types of second factor this client can answer: one-time and backup codes.
const FACTOR_TYPES: &str = "1,3";

/// What a login gives.
#[derive(Debug)]
pub enum LoginAnswer {
    /// The encrypted login data.
    Record(OpaqueCipherText),
    /// A second factor is asked for.
    SecondFactor(MultiFactorRequest),
}

/// What a sign-up gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignupAnswer {
    /// The account exists.
    Done,
    /// A stronger proof of work is asked for.
    MoreWork {
        /// Bits.
        difficulty: u32,
    },
}

impl Api {
    /// Returns the identity that the node says holds `name`.
    pub async fn public_key(&self, name: &Username) -> Result<Option<PublicKeyHash>, ClientError> {
        const CALL: &str = "peergos/v0/core/getPublicKey";
        let body = self.by_name(CALL, name, MAX_REPLY_BYTES).await?;
        PublicKeyReply::from_body(&body)
            .map(|reply| reply.0)
            .map_err(|_| ClientError::malformed(CALL))
    }

    /// Returns the claim chain that the node says `name` has; empty when the name is free.
    pub async fn chain(&self, name: &Username) -> Result<ClaimChain, ClientError> {
        const CALL: &str = "peergos/v0/core/getChain";
        let body = self.by_name(CALL, name, MAX_CHAIN_BYTES).await?;
        ClaimChain::from_value(cbor_reply(CALL, &body)?).map_err(|_| ClientError::malformed(CALL))
    }

    /// Replaces the claim chain of a name by one that extends it; false when the registrar asks for a proof of work.
    pub async fn update_chain(
        &self,
        name: &Username,
        chain: &ClaimChain,
    ) -> Result<bool, ClientError> {
        const CALL: &str = "peergos/v0/core/updateChain";
        let request = UpdateChainRequest {
            username: name.to_string(),
            chain: SentLinks::new(chain.clone()),
            proof: ProofOfWork::empty().encode().into(),
            token: String::new(),
        };
        let request = ApiRequest::new(CALL, SignupReply::MAX_BYTES).with_body(request.to_body());
        // The same chain again changes nothing.
        let body = self.call(request, Repeat::Safe).await?;
        match SignupReply::from_body(&body) {
            Ok(SignupReply::Accepted) => Ok(true),
            Ok(SignupReply::MoreWork(_)) => Ok(false),
            Err(_) => Err(ClientError::malformed(CALL)),
        }
    }

    async fn by_name(
        &self,
        call: &'static str,
        name: &Username,
        max: usize,
    ) -> Result<Bytes, ClientError> {
        let body = NameRequest(name.as_str().to_owned()).to_body();
        self.call(ApiRequest::new(call, max).with_body(body), Repeat::Safe)
            .await
    }

    /// Registers a name together with everything the new account consists of.
    pub async fn sign_up(&self, request: &SignupRequest) -> Result<SignupAnswer, ClientError> {
        const CALL: &str = "peergos/v0/core/signup";
        let request = ApiRequest::new(CALL, MAX_REPLY_BYTES).with_body(request.to_body());
        let body = self.call(request, Repeat::Never).await?;
        let mut reader = champ::data_stream::Reader::new(&body);
        let malformed = |_| ClientError::malformed(CALL);
        if reader.boolean().map_err(malformed)? {
            return Ok(SignupAnswer::Done);
        }
        let difficulty = reader.int().map_err(malformed)?;
        u32::try_from(difficulty)
            .map(|difficulty| SignupAnswer::MoreWork { difficulty })
            .map_err(|_| ClientError::malformed(CALL))
    }

    /// Asks for the login data stored for the holder of `reader`; `auth` is a signed time by that key.
    pub async fn login(
        &self,
        name: &Username,
        reader: &PublicSigningKey,
        auth: &[u8],
        factor: Option<&MultiFactorResponse>,
    ) -> Result<LoginAnswer, ClientError> {
        const CALL: &str = "peergos/v0/login/getLogin";
        let mut request = ApiRequest::new(CALL, MAX_LOGIN_RESPONSE_BYTES)
            .with("username", name.as_str())
            .with("author", HEXLOWER.encode(&reader.encode()))
            .with("auth", HEXLOWER.encode(auth))
            .with("mfaTypes", FACTOR_TYPES);
        // A code is used up by the node that sees it, so only a plain login is repeated by itself.
        let mut repeat = Repeat::Safe;
        if let Some(factor) = factor {
            request = request.with("mfa", HEXLOWER.encode(&factor.encode()));
            repeat = Repeat::Never;
        }
        let body = self.call(request, repeat).await?;
        match LoginResponse::from_value(cbor_reply(CALL, &body)?) {
            Ok(LoginResponse::Record(record)) => Ok(LoginAnswer::Record(record)),
            Ok(LoginResponse::SecondFactor(request)) => Ok(LoginAnswer::SecondFactor(request)),
            Err(_) => Err(ClientError::malformed(CALL)),
        }
    }

    /// Replaces the login data; `auth` is the identity's signature over it.
    ///
    /// Returns false when the node refused; the caller finds out what happened when the answer is lost.
    pub async fn set_login(&self, data: &LoginData, auth: &[u8; 64]) -> Result<bool, ClientError> {
        const CALL: &str = "peergos/v0/login/setLogin";
        let request = ApiRequest::new(CALL, 16)
            .with("username", data.username.as_str())
            .with("auth", HEXLOWER.encode(auth))
            .with_body(data.to_body());
        let body = self.call(request, Repeat::Never).await?;
        match body.as_ref() {
            [1] => Ok(true),
            [0] => Ok(false),
            _ => Err(ClientError::malformed(CALL)),
        }
    }

    /// Returns the mirror tokens, oldest first; `auth` is a signed request for this path by the identity.
    pub async fn mirror_bats(
        &self,
        name: &Username,
        auth: &[u8],
    ) -> Result<Vec<BatWithId>, ClientError> {
        const CALL: &str = "peergos/v0/bats/getUserBats";
        let value = self.signed(CALL, name, auth, &[]).await?;
        value
            .into_list("tokens")
            .and_then(|list| list.into_iter().map(BatWithId::from_value).collect())
            .map_err(|_| ClientError::malformed(CALL))
    }

    /// Adds a mirror token.
    pub async fn add_mirror_bat(
        &self,
        name: &Username,
        bat: &BatWithId,
        auth: &[u8],
    ) -> Result<(), ClientError> {
        const CALL: &str = "peergos/v0/bats/addBat";
        let extra = [
            ("batid", bat.id.cid().to_string()),
            ("bat", bat.bat.to_text()),
        ];
        match self.signed(CALL, name, auth, &extra).await? {
            Value::Bool(true) => Ok(()),
            _ => Err(ClientError::malformed(CALL)),
        }
    }

    /// Returns how many follow requests wait for the owner; `auth` is a signed time by the identity.
    pub async fn pending_follow_requests(
        &self,
        owner: &Owner,
        auth: &[u8],
    ) -> Result<usize, ClientError> {
        const CALL: &str = "peergos/v0/social/getFollowRequests";
        let request = ApiRequest::new(CALL, FollowRequests::MAX_BYTES)
            .with("owner", owner.to_string())
            .with("auth", HEXLOWER.encode(auth));
        let body = self.call(request, Repeat::Safe).await?;
        FollowRequests::from_body(&body)
            .map(|requests| requests.0.len())
            .map_err(|_| ClientError::malformed(CALL))
    }

    /// Returns the second factors of an account.
    pub async fn second_factors(
        &self,
        name: &Username,
        auth: &[u8],
    ) -> Result<MultiFactorMethods, ClientError> {
        const CALL: &str = "peergos/v0/login/listMfa";
        MultiFactorMethods::from_value(self.signed(CALL, name, auth, &[]).await?)
            .map_err(|_| ClientError::malformed(CALL))
    }

    async fn signed(
        &self,
        call: &'static str,
        name: &Username,
        auth: &[u8],
        extra: &[(&'static str, String)],
    ) -> Result<Value, ClientError> {
        let mut request = ApiRequest::new(call, MAX_REPLY_BYTES).with("username", name.as_str());
        for (name, value) in extra {
            request = request.with(name, value.as_str());
        }
        let body = self
            .call(request.with("auth", HEXLOWER.encode(auth)), Repeat::Safe)
            .await?;
        cbor_reply(call, &body)
    }
}
