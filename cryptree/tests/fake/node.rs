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
use pki::{
    block_access::{Held, Protection, Tokens},
    chain::ClaimChain,
    keys::{Owner, PublicSigningKey, Writer},
    wire::{
        Body,
        block_group::{BlockFormat, BlockGroup},
        champ_lookup::{ChampCaps, ChampLookupReply},
        directory::{NameRequest, PublicKeyReply},
        login_data::OpaqueCipherText,
        node_info::{IdentityRecord, NodeIds},
        pointer_batch::{PointerBatch, PointerWrite},
        put_reply::PutReply,
        social::{FollowRequest, FollowRequests},
        trailer::encode_trailer,
    },
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
    /// Follow requests that wait, all alike.
    pub(crate) follow_requests: Vec<FollowRequest>,
    pub(crate) difficulty: u16,
    pub(crate) quota: Option<usize>,
    pub(crate) calls: Vec<String>,
    /// Ids of the node, the present one last, when it is to go by others than its first one.
    pub(crate) ids: Vec<Cid>,
    /// Records of ids, by the text they are asked for with.
    pub(crate) records: HashMap<String, IdentityRecord>,
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
            "api/v0/ids" => {
                let ids = self.state.lock().unwrap().ids.clone();
                let ids = NodeIds::new(ids).or_else(|| NodeIds::new(vec![self.id.clone()]));
                Ok(ids.unwrap().to_body().into())
            }
            "api/v0/ipns/get" => {
                let state = self.state.lock().unwrap();
                let record = state.records.get(query.get("arg"));
                Ok(record.ok_or("No identity record found")?.to_body().into())
            }
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
            "peergos/v0/social/getFollowRequests" => {
                let auth = data_encoding::HEXLOWER.decode(query.get("auth").as_bytes());
                let key = query.owner().0.inline_key().unwrap();
                key.verify_attached(&auth.map_err(text)?).map_err(text)?;
                let state = self.state.lock().unwrap();
                Ok(FollowRequests(state.follow_requests.clone())
                    .to_body()
                    .into())
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

pub(super) struct Query<'a>(&'a ApiRequest);

impl Query<'_> {
    pub(super) fn find(&self, name: &str) -> Option<&str> {
        let entry = self.0.query.iter().find(|(key, _)| key == name);
        entry.map(|(_, value)| value.as_str())
    }

    pub(super) fn get(&self, name: &str) -> &str {
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

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
