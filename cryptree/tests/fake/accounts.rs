//! Sign-up, name chains and log-in (Spec: 08, 10).

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use champ::{Block, cbor::Record};
use cryptree::ApiRequest;
use data_encoding::HEXLOWER;
use pki::{
    chain::ClaimChain,
    keys::PublicSigningKey,
    proof_of_work::{Difficulty, ProofOfWork},
    wire::{
        Body,
        login_data::{LoginData, LoginResponse},
        op_log::Op,
        second_factor::{
            FactorAnswer, FactorName, MethodKind, MultiFactorMethod, MultiFactorMethods,
            MultiFactorRequest, MultiFactorResponse,
        },
        signup::{SignupReply, SignupRequest, UpdateChainRequest},
    },
};

use super::node::{FakeNode, Query, State, text};

impl FakeNode {
    pub(super) fn sign_up(&self, request: &ApiRequest) -> Result<Bytes, String> {
        let request = SignupRequest::from_body(&request.body.clone().unwrap()).map_err(text)?;
        let mut state = self.state.lock().unwrap();
        let difficulty = Difficulty::try_new(state.difficulty.into()).unwrap();
        let proof = ProofOfWork::decode(&request.proof).map_err(text)?;
        if !proof.is_valid(&request.link.proof_data(), difficulty) {
            let mut reply = vec![0];
            reply.extend_from_slice(&i32::from(state.difficulty).to_be_bytes());
            return Ok(reply.into());
        }
        if state.chains.contains_key(&request.username) {
            return Err("User already exists: Invalid key change attempt!".to_owned());
        }
        let name = pki::username::Username::parse_new(&request.username).map_err(text)?;
        let chain = ClaimChain::single(request.link.get().clone());
        let keys = pki::chain::OwnerKeys::inline_only();
        chain.valid(&name, &keys).map_err(text)?;
        if chain.home() != Some(&self.id) {
            return Err("Trying to signup to wrong host!".to_owned());
        }
        let owner = chain.identity().unwrap().clone();
        let login = request.ops.login.clone().unwrap();
        let identity = owner.0.inline_key().unwrap();
        identity
            .verify_detached(&login.data.encode(), &login.auth)
            .map_err(text)?;
        let bat = request.ops.mirror_bat.clone().unwrap();
        pki::signed::SignedRequest::verify(
            &bat.auth,
            &identity,
            "peergos/v0/bats/addBat",
            std::time::SystemTime::UNIX_EPOCH,
            std::time::Duration::MAX,
        )
        .map_err(text)?;
        let mut staged = State {
            writers: HashMap::from([(owner.as_writer(), owner.clone())]),
            ..State::default()
        };
        let mut used = HashSet::new();
        for op in &request.ops.ops {
            match op {
                Op::Block(write) => {
                    let key = write.writer.0.inline_key().unwrap();
                    let digest = key.verify_attached(&write.signature).map_err(text)?;
                    let block = Block::verified(write.cid(), write.block.clone()).map_err(text)?;
                    if digest != block.cid().hash().digest() {
                        return Err("Invalid signature for block!".to_owned());
                    }
                    used.insert(write.writer.clone());
                    let space = staged.blocks.entry(owner.clone()).or_default();
                    space.insert(block.cid().clone(), block);
                }
                Op::Pointer(write) => {
                    used.insert(write.writer.clone());
                    let update = staged.check_pointer(&owner, write)?;
                    staged.apply_pointer(&owner, &update, write.clone());
                }
            }
        }
        if !used
            .iter()
            .all(|writer| staged.writers.contains_key(writer))
        {
            return Err("unowned writer in sign-up".to_owned());
        }
        state.blocks.extend(staged.blocks);
        state.pointers.extend(staged.pointers);
        state.writers.extend(staged.writers);
        state.chains.insert(request.username.clone(), chain);
        state.logins.insert(
            request.username.clone(),
            (login.data.reader, login.data.record),
        );
        state.bats.insert(request.username, vec![bat.bat]);
        Ok(Bytes::from_static(&[1]))
    }

    pub(super) fn update_chain(&self, request: &ApiRequest) -> Result<Bytes, String> {
        let request = UpdateChainRequest::from_body(&request.body.clone().unwrap());
        let request = request.map_err(text)?;
        let name = pki::username::Username::parse(&request.username).map_err(text)?;
        let keys = pki::chain::OwnerKeys::inline_only();
        let mut state = self.state.lock().unwrap();
        let known = state.chains.get(name.as_str()).ok_or("no such user")?;
        let merged = ClaimChain::merge(known, request.chain.get(), &name, &keys).map_err(text)?;
        state.chains.insert(request.username, merged);
        Ok(SignupReply::Accepted.to_body().into())
    }

    pub(super) fn login(&self, query: &Query<'_>) -> Result<Bytes, String> {
        let wrong = || "Incorrect username or password".to_owned();
        let name = query.get("username");
        let author = HEXLOWER
            .decode(query.get("author").as_bytes())
            .map_err(text)?;
        let author = PublicSigningKey::decode(&author).map_err(text)?;
        let auth = HEXLOWER
            .decode(query.get("auth").as_bytes())
            .map_err(text)?;
        author.verify_attached(&auth).map_err(text)?;
        let state = self.state.lock().unwrap();
        let (reader, record) = state.logins.get(name).ok_or_else(wrong)?;
        if *reader != author {
            return Err(wrong());
        }
        if let Some(code) = state.totp.get(name) {
            let id = Bytes::from_static(&[9; 32]);
            match query.find("mfa") {
                None => {
                    let request = MultiFactorRequest {
                        challenge: [1; 32],
                        methods: MultiFactorMethods(vec![MultiFactorMethod {
                            created_epoch_day: 20_000,
                            is_enabled: true,
                            credential_id: id,
                            name: FactorName::parse("").unwrap(),
                            kind: MethodKind::Totp,
                        }]),
                    };
                    return Ok(LoginResponse::SecondFactor(request).encode().into());
                }
                Some(hex) => {
                    let bytes = HEXLOWER.decode(hex.as_bytes()).map_err(text)?;
                    let answer = MultiFactorResponse::decode(&bytes).map_err(text)?;
                    if !matches!(&answer.answer, FactorAnswer::Code(given) if given == code) {
                        return Err("Invalid TOTP code for credId 09".to_owned());
                    }
                }
            }
        }
        Ok(LoginResponse::Record(record.clone()).encode().into())
    }

    pub(super) fn set_login(
        &self,
        request: &ApiRequest,
        query: &Query<'_>,
    ) -> Result<Bytes, String> {
        let body = request.body.clone().unwrap();
        let data = LoginData::from_body(&body).map_err(text)?;
        let mut state = self.state.lock().unwrap();
        let name = data.username.as_str().to_owned();
        let owner = state
            .chains
            .get(&name)
            .and_then(|c| c.identity())
            .cloned()
            .ok_or("no user")?;
        let auth = HEXLOWER
            .decode(query.get("auth").as_bytes())
            .map_err(text)?;
        owner
            .0
            .inline_key()
            .unwrap()
            .verify_detached(&body, &auth)
            .map_err(text)?;
        if let Some(change) = &data.root_change {
            let block =
                Block::verified(change.block.cid(), change.block.block.clone()).map_err(text)?;
            let space = state.blocks.entry(owner.clone()).or_default();
            space.insert(block.cid().clone(), block);
            let update = state.check_pointer(&owner, &change.pointer)?;
            state.apply_pointer(&owner, &update, change.pointer.clone());
        }
        state.logins.insert(name, (data.reader, data.record));
        Ok(Bytes::from_static(&[1]))
    }

    pub(super) fn check_request(&self, query: &Query<'_>, path: &str) -> Result<(), String> {
        let state = self.state.lock().unwrap();
        let chain = state
            .chains
            .get(query.get("username"))
            .ok_or("unknown user")?;
        let key = chain.identity().unwrap().0.inline_key().unwrap();
        let auth = HEXLOWER
            .decode(query.get("auth").as_bytes())
            .map_err(text)?;
        pki::signed::SignedRequest::verify(
            &auth,
            &key,
            path,
            std::time::SystemTime::UNIX_EPOCH,
            std::time::Duration::MAX,
        )
        .map_err(text)?;
        Ok(())
    }
}
