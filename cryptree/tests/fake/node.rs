//! The fake node.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use champ::{
    Block, BlockSource, Cid, SourceError,
    access::{Bat, BatWithId},
    cbor::{Record, Value},
    map::{LookupError, LookupKey, lookup_blocks},
};
use cryptree::{ApiRequest, ApiResponse, Transport, TransportError};
use data_encoding::HEXLOWER;
use pki::{
    block_access::{Held, Protection, Tokens},
    chain::ClaimChain,
    keys::{Owner, PublicSigningKey, Writer},
    owned::OwnerProof,
    pointer::{PointerUpdate, SignedPointer, check_successor},
    proof_of_work::{Difficulty, ProofOfWork},
    wire::{
        Body,
        block_group::{BlockFormat, BlockGroup},
        champ_lookup::{ChampCaps, ChampLookupReply},
        directory::{NameRequest, PublicKeyReply},
        login_data::{LoginData, LoginResponse, OpaqueCipherText},
        op_log::Op,
        pointer_batch::{PointerBatch, PointerWrite},
        put_reply::PutReply,
        second_factor::{
            FactorAnswer, FactorName, MethodKind, MultiFactorMethod, MultiFactorMethods,
            MultiFactorRequest, MultiFactorResponse,
        },
        signup::{SignupReply, SignupRequest, UpdateChainRequest},
        trailer::encode_trailer,
    },
    writer_data::WriterData,
};

/// What a lying or failing node does with one call.
pub(crate) enum Fault {
    /// Answers honestly.
    Honest,
    /// Fails before doing anything.
    Unreachable,
    /// Does what was asked and loses the answer.
    DropReply,
    /// Does what was asked twice and answers with the second outcome.
    Twice,
    /// Does what was asked after that many turns of the others, and answers after as many more.
    Slow(u32, u32),
    /// Loses the answer, and does what was asked only when that many other calls have come.
    Late(usize),
    /// Answers honestly with a changed body.
    Reply(Box<dyn FnOnce(Bytes) -> Bytes + Send>),
    /// Answers this without doing anything.
    Instead(ApiResponse),
}

type Script = Box<dyn FnMut(&ApiRequest) -> Fault + Send>;

pub(crate) struct FakeNode {
    pub(crate) state: Mutex<State>,
    script: Mutex<Option<Script>>,
    /// Requests still on their way, and how many others overtake them.
    late: Mutex<Vec<(usize, ApiRequest)>>,
    pub(crate) id: Cid,
}

#[derive(Default, Clone)]
pub(crate) struct State {
    pub(crate) chains: HashMap<String, ClaimChain>,
    pub(crate) blocks: HashMap<Owner, HashMap<Cid, Block>>,
    pub(crate) pointers: HashMap<Writer, Bytes>,
    pub(crate) logins: HashMap<String, (PublicSigningKey, OpaqueCipherText)>,
    pub(crate) bats: HashMap<String, Vec<BatWithId>>,
    pub(crate) transactions: HashSet<String>,
    pub(crate) writers: HashMap<Writer, Owner>,
    pub(crate) totp: HashMap<String, String>,
    pub(crate) difficulty: u16,
    pub(crate) quota: Option<usize>,
    pub(crate) calls: Vec<String>,
    /// Skips the walk over everything reachable at each commit.
    pub(crate) unchecked: bool,
}

impl FakeNode {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            script: Mutex::default(),
            late: Mutex::default(),
            id: pki::claim::placeholder_provider(),
        })
    }

    /// Asks `script` about every call from now on.
    pub(crate) fn lie(&self, script: impl FnMut(&ApiRequest) -> Fault + Send + 'static) {
        *self.script.lock().unwrap() = Some(Box::new(script));
    }

    pub(crate) fn tell_the_truth(&self) {
        *self.script.lock().unwrap() = None;
    }

    /// Lets everything that is still on its way arrive.
    pub(crate) async fn arrive(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        for (_, request) in late {
            let _ = self.answer(&request).await;
        }
    }

    async fn deliver_late(&self) {
        let due: Vec<ApiRequest> = {
            let mut late = self.late.lock().unwrap();
            late.iter_mut()
                .for_each(|(left, _)| *left = left.saturating_sub(1));
            let due = late.extract_if(.., |(left, _)| *left == 0);
            due.map(|(_, request)| request).collect()
        };
        for request in due {
            let _ = self.answer(&request).await;
        }
    }

    /// Drops every block that no pointer reaches.
    pub(crate) fn collect_garbage(&self) {
        let state = &mut *self.state.lock().unwrap();
        let roots: Vec<(Owner, Cid)> = state
            .writers
            .iter()
            .filter_map(|(writer, owner)| {
                Some((owner.clone(), state.current(writer)?.updated()?.clone()))
            })
            .collect();
        let mut reached: HashMap<Owner, HashSet<Cid>> = HashMap::new();
        for (owner, root) in roots {
            let reached = reached.entry(owner.clone()).or_default();
            state.reach(&owner, root, reached);
        }
        for (owner, space) in &mut state.blocks {
            let reached = reached.get(owner);
            space.retain(|cid, _| reached.is_some_and(|reached| reached.contains(cid)));
        }
    }

    /// Returns the number of stored blocks and their bytes.
    pub(crate) fn stored(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        let blocks = state.blocks.values().flat_map(HashMap::values);
        blocks.fold((0, 0), |(n, size), block| {
            (n + 1, size + block.bytes().len())
        })
    }

    /// Returns the paths of the calls made since the last time, without the constant part.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    async fn answer(&self, request: &ApiRequest) -> Result<Bytes, String> {
        let path = request.path.as_ref();
        self.state.lock().unwrap().calls.push(
            path.trim_start_matches("api/v0/")
                .trim_start_matches("peergos/v0/")
                .to_owned(),
        );
        let query = Query(request);
        match path {
            "api/v0/id" => Ok(format!("{{\"ID\":\"{}\"}}", self.id).into()),
            "api/v0/transaction/start" => {
                let mut state = self.state.lock().unwrap();
                let id = format!("transaction-{}", state.transactions.len());
                state.transactions.insert(id.clone());
                Ok(id.into())
            }
            "api/v0/transaction/close" => Ok("1".into()),
            "api/v0/block/put/bulk" => self.put_blocks(&query),
            "api/v0/block/get" => self.block_get(&query),
            "api/v0/champ/get/bulk" => self.champ_get(&query).await,
            "peergos/v0/mutable/getPointer" => {
                let state = self.state.lock().unwrap();
                let writer: Writer = query.get("writer").parse().map_err(text)?;
                Ok(state.pointers.get(&writer).cloned().unwrap_or_default())
            }
            "peergos/v0/mutable/setPointer" => {
                let writer: Writer = query.get("writer").parse().map_err(text)?;
                let signed = request.body.clone().unwrap();
                self.set_pointers(&query.owner(), vec![PointerWrite { signed, writer }])
            }
            "peergos/v0/mutable/setPointers" => {
                let batch = PointerBatch::decode(&request.body.clone().unwrap()).map_err(text)?;
                self.set_pointers(&query.owner(), batch.as_slice().to_vec())
            }
            "peergos/v0/core/getChain" => {
                let name = NameRequest::from_body(&request.body.clone().unwrap()).map_err(text)?;
                let state = self.state.lock().unwrap();
                let chain = state.chains.get(&name.0).map(Record::encode);
                Ok(chain.unwrap_or_else(|| vec![0x80]).into())
            }
            "peergos/v0/core/getPublicKey" => {
                let name = NameRequest::from_body(&request.body.clone().unwrap()).map_err(text)?;
                let state = self.state.lock().unwrap();
                let owner = state.chains.get(&name.0).and_then(|chain| chain.identity());
                Ok(PublicKeyReply(owner.map(|owner| owner.0.clone()))
                    .to_body()
                    .into())
            }
            "peergos/v0/core/signup" => self.sign_up(request),
            "peergos/v0/core/updateChain" => self.update_chain(request),
            "peergos/v0/login/getLogin" => self.login(&query),
            "peergos/v0/login/setLogin" => self.set_login(request, &query),
            "peergos/v0/bats/getUserBats" => {
                self.check_request(&query, path)?;
                let state = self.state.lock().unwrap();
                let bats = state.bats.get(query.get("username"));
                let list = bats.into_iter().flatten().map(Record::to_value).collect();
                Ok(Value::List(list).encode().into())
            }
            "peergos/v0/bats/addBat" => {
                self.check_request(&query, path)?;
                let bat = Bat::parse(query.get("bat")).map_err(text)?;
                let id = champ::access::BatId::new(query.get("batid").parse().map_err(text)?);
                let mut state = self.state.lock().unwrap();
                let name = query.get("username").to_owned();
                state
                    .bats
                    .entry(name)
                    .or_default()
                    .push(BatWithId { bat, id });
                Ok(Value::Bool(true).encode().into())
            }
            "peergos/v0/storage/usage" => Ok(Value::Int(self.stored().1.try_into().unwrap())
                .encode()
                .into()),
            "peergos/v0/storage/quota" => Ok(Value::Int(1 << 40).encode().into()),
            _ => Err(format!("unknown call {path}")),
        }
    }

    fn put_blocks(&self, query: &Query<'_>) -> Result<Bytes, String> {
        let owner = query.owner();
        let writer: Writer = query.get("writer").parse().map_err(text)?;
        let format = BlockFormat::from_parameter(query.get("format"));
        let group = BlockGroup::from_body(&query.0.body.clone().unwrap()).map_err(text)?;
        let key = writer.0.inline_key().unwrap();
        let size: usize = group.iter().map(|(block, _)| block.len()).sum();
        assert!(size <= 1_048_676, "request of {size} block bytes");
        let max = if format == BlockFormat::Raw { 50 } else { 1000 };
        assert!(group.len() <= max, "request of {} blocks", group.len());
        let used = self.stored().1;
        let mut state = self.state.lock().unwrap();
        state
            .transactions
            .insert(query.get("transaction").to_owned());
        if state.writers.get(&writer) != Some(&owner) {
            return Err(format!("Writer not present on this server: {writer}"));
        }
        if state.quota.is_some_and(|quota| used + size > quota) {
            return Err(format!("Storage quota reached! \nUsed {used} bytes."));
        }
        let mut cids = Vec::new();
        for (bytes, signature) in group.iter() {
            let block = match format {
                BlockFormat::Raw => Block::raw(bytes.clone()),
                BlockFormat::DagCbor => {
                    champ::cbor::decode_canonical(bytes).map_err(text)?;
                    Block::cbor(bytes.clone())
                }
            }
            .map_err(text)?;
            let digest = key.verify_attached(signature).map_err(text)?;
            if digest != block.cid().hash().digest() {
                return Err("Invalid signature for block!".to_owned());
            }
            cids.push(block.cid().clone());
            let space = state.blocks.entry(owner.clone()).or_default();
            space.insert(block.cid().clone(), block);
        }
        Ok(PutReply(cids).to_body().into())
    }

    fn block_get(&self, query: &Query<'_>) -> Result<Bytes, String> {
        let cid: Cid = query.get("arg").parse().map_err(text)?;
        let token = query.find("bat").map(|bat| BatWithId::parse(bat).unwrap());
        let source = Space {
            node: self,
            owner: query.owner(),
        };
        Ok(source
            .read(&cid, token.as_ref())?
            .map(|block| block.bytes().clone())
            .unwrap_or_default())
    }

    async fn champ_get(&self, query: &Query<'_>) -> Result<Bytes, String> {
        let root: Cid = query.get("arg").parse().map_err(text)?;
        let caps = ChampCaps::from_parameter(query.get("caps")).map_err(text)?;
        let keys: Vec<LookupKey> = caps
            .as_slice()
            .iter()
            .map(|cap| LookupKey {
                key: cap.map_key.to_vec().into(),
                value_token: cap.bat.clone(),
            })
            .collect();
        let source = Space {
            node: self,
            owner: query.owner(),
        };
        let blocks = lookup_blocks(&root, &keys, &source)
            .await
            .map_err(|error| match error {
                LookupError::RootMissing(cid) => format!("Champ root not present locally: {cid}"),
                _ => "Unauthorised!".to_owned(),
            })?;
        let blocks = blocks
            .into_iter()
            .map(|block| block.bytes().clone())
            .collect();
        Ok(ChampLookupReply(blocks).to_body().into())
    }

    fn set_pointers(&self, owner: &Owner, updates: Vec<PointerWrite>) -> Result<Bytes, String> {
        let mut state = self.state.lock().unwrap();
        let mut checked = Vec::new();
        for write in updates {
            if state.writers.get(&write.writer) != Some(owner) {
                return Err("writer is not owned".to_owned());
            }
            checked.push((state.check_pointer(owner, &write)?, write));
        }
        for (update, write) in checked {
            state.apply_pointer(owner, &update, write);
        }
        Ok(Bytes::from_static(&[1]))
    }

    fn sign_up(&self, request: &ApiRequest) -> Result<Bytes, String> {
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

    fn update_chain(&self, request: &ApiRequest) -> Result<Bytes, String> {
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

    fn login(&self, query: &Query<'_>) -> Result<Bytes, String> {
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

    fn set_login(&self, request: &ApiRequest, query: &Query<'_>) -> Result<Bytes, String> {
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

    fn check_request(&self, query: &Query<'_>, path: &str) -> Result<(), String> {
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

impl State {
    fn check_pointer(&self, owner: &Owner, write: &PointerWrite) -> Result<PointerUpdate, String> {
        let key = write.writer.0.inline_key().unwrap();
        let new = SignedPointer::verify(&key, write.signed.clone()).map_err(text)?;
        let current = self.current(&write.writer);
        check_successor(current.as_ref(), new.update()).map_err(|error| error.to_string())?;
        if let Some(root) = new.update().updated() {
            let block = self.blocks.get(owner).and_then(|space| space.get(root));
            let block =
                block.ok_or_else(|| format!("Couldn't retrieve WriterData from dht! {root}"))?;
            WriterData::in_block(block, &write.writer).map_err(text)?;
            if !self.unchecked {
                self.check_complete(owner, root);
            }
        }
        Ok(new.update().clone())
    }

    /// Nothing may ever be reachable from a pointer and not be there.
    fn check_complete(&self, owner: &Owner, root: &Cid) {
        self.reach(owner, root.clone(), &mut HashSet::new());
    }

    /// Adds everything reachable from `root` to `seen`.
    fn reach(&self, owner: &Owner, root: Cid, seen: &mut HashSet<Cid>) {
        let space = &self.blocks[owner];
        let mut todo = vec![root];
        while let Some(cid) = todo.pop() {
            if cid.identity_content().is_some() || !seen.insert(cid.clone()) {
                continue;
            }
            let block = space
                .get(&cid)
                .unwrap_or_else(|| panic!("dangling link {cid}"));
            if cid.codec() == champ::Codec::DagCbor {
                champ::cbor::decode(block.bytes())
                    .unwrap()
                    .links_into(&mut todo);
            }
        }
    }

    pub(crate) fn current(&self, writer: &Writer) -> Option<PointerUpdate> {
        let signed = self.pointers.get(writer)?;
        let key = writer.0.inline_key().unwrap();
        Some(
            SignedPointer::verify(&key, signed.clone())
                .unwrap()
                .update()
                .clone(),
        )
    }

    pub(crate) fn apply_pointer(
        &mut self,
        owner: &Owner,
        update: &PointerUpdate,
        write: PointerWrite,
    ) {
        self.pointers.insert(write.writer.clone(), write.signed);
        let Some(root) = update.updated() else { return };
        let space = &self.blocks[owner];
        let data = WriterData::decode(space[root].bytes()).unwrap();
        let mut todo: Vec<Cid> = data.owned.into_iter().collect();
        let mut found = Vec::new();
        while let Some(cid) = todo.pop() {
            let Some(block) = space.get(&cid) else {
                continue;
            };
            if let Ok(proof) = OwnerProof::decode(block.bytes()) {
                found.push(Writer(proof.owned().clone()));
            } else if let Ok(value) = champ::cbor::decode(block.bytes()) {
                value.links_into(&mut todo);
            }
        }
        for writer in found {
            self.writers.insert(writer, owner.clone());
        }
    }
}

struct Space<'a> {
    node: &'a FakeNode,
    owner: Owner,
}

impl Space<'_> {
    fn read(&self, cid: &Cid, token: Option<&BatWithId>) -> Result<Option<Block>, String> {
        let state = self.node.state.lock().unwrap();
        let Some(block) = state
            .blocks
            .get(&self.owner)
            .and_then(|space| space.get(cid))
        else {
            return Ok(None);
        };
        let protection = Protection::of(block).map_err(text)?;
        let tokens = Tokens {
            stored: None,
            instance: None,
            held: Held::Locally,
        };
        protection
            .check(token, &tokens)
            .map_err(|_| "Unauthorised!".to_owned())?;
        Ok(Some(block.clone()))
    }
}

#[async_trait::async_trait]
impl BlockSource for Space<'_> {
    async fn block(
        &self,
        cid: &Cid,
        token: Option<&BatWithId>,
    ) -> Result<Option<Block>, SourceError> {
        self.read(cid, token)
            .map_err(|reason| SourceError::Rejected {
                cid: cid.clone(),
                reason,
            })
    }
}

struct Query<'a>(&'a ApiRequest);

impl Query<'_> {
    fn find(&self, name: &str) -> Option<&str> {
        let entry = self.0.query.iter().find(|(key, _)| key == name);
        entry.map(|(_, value)| value.as_str())
    }

    fn get(&self, name: &str) -> &str {
        self.find(name)
            .unwrap_or_else(|| panic!("{} without {name}", self.0.path))
    }

    fn owner(&self) -> Owner {
        self.get("owner").parse().unwrap()
    }
}

#[async_trait::async_trait]
impl Transport for FakeNode {
    async fn call(&self, request: ApiRequest) -> Result<ApiResponse, TransportError> {
        // Every call is a point at which another session may run.
        tokio::task::yield_now().await;
        self.deliver_late().await;
        let fault = match &mut *self.script.lock().unwrap() {
            Some(script) => script(&request),
            None => Fault::Honest,
        };
        match fault {
            Fault::Unreachable => return Err(TransportError::Unreachable(lost())),
            Fault::Instead(response) => return Ok(response),
            Fault::Late(calls) => {
                self.late.lock().unwrap().push((calls, request));
                return Err(TransportError::Interrupted(lost()));
            }
            Fault::Slow(turns, _) => wait(turns).await,
            Fault::Twice => drop(self.answer(&request).await),
            _ => {}
        }
        let answer = self.answer(&request).await;
        match fault {
            Fault::DropReply => return Err(TransportError::Interrupted(lost())),
            Fault::Slow(_, turns) => wait(turns).await,
            _ => {}
        }
        Ok(match answer {
            Ok(body) => ok(match fault {
                Fault::Reply(change) => change(body),
                _ => body,
            }),
            Err(message) => ApiResponse {
                status: 400,
                trailer: Some(encode_trailer(&message)),
                body: Bytes::new(),
            },
        })
    }
}

pub(crate) fn ok(body: impl Into<Bytes>) -> ApiResponse {
    ApiResponse {
        status: 200,
        trailer: None,
        body: body.into(),
    }
}

async fn wait(turns: u32) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

fn lost() -> Arc<dyn std::error::Error + Send + Sync> {
    Arc::new(std::io::Error::other("connection lost"))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
