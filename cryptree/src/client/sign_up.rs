//! Creating an account: everything it consists of in one request (Spec: 21 §5, 10 §7).

use bytes::Bytes;
use champ::{
    Block, MemoryBlocks,
    access::{Bat, BatId, BatWithId},
    cbor::{Record, Value},
    map::Champ,
};
use pki::{
    algorithm::LoginAlgorithm,
    chain::ClaimLink,
    claim::default_expiry,
    keys::{Owner, SecretKeyWithHash, SecretSigningKey, SigningKeyPair, Writer},
    owned::{OwnerProof, owned_key_label},
    pointer::{PointerUpdate, SignedPointer},
    proof_of_work::{Difficulty, MAX_CLIENT_DIFFICULTY, ProofOfWork, Search},
    signed::{SignedRequest, SignedTime},
    username::Username,
    wire::{
        block_group::BlockFormat,
        login_data::{LoginData, OpaqueCipherText},
        op_log::{BlockWrite, NewLogin, NewMirrorBat, Op, OpLog},
        pointer_batch::PointerWrite,
        signup::{SentLinks, SignupRequest},
    },
    writer_data::WriterData,
};
use rand_core::CryptoRng;

use super::{
    Client, Session,
    nodes::{self, NewNode},
    sign_in::SignIn,
};
use crate::{
    api::SignupAnswer,
    capability::EntryPoint,
    crypto::{BoxingKeyPair, SecretBoxingKey},
    directory::{ChildList, ItemKeys},
    environment::computed,
    error::{ClientError, Misbehavior},
    login::{EntryPoints, LoginKeys, UserStaticData, check_new_password},
    properties::{FileName, FileProperties, Timestamp},
};

/// Folders that every account has from the start (Spec: 21 §15).
const SYSTEM_FOLDERS: [&str; 3] = ["shared", ".transactions", ".capabilitycache"];
/// Hashes tried between two looks at whether the caller still waits.
const SEARCH_STEP: u32 = 1 << 16;

/// Everything a new account consists of.
struct NewAccount {
    identity: SecretKeyWithHash,
    ops: OpLog,
}

impl Client {
    /// Creates an account and signs in to it. `token` is what the node's operator handed out, or empty.
    ///
    /// Nothing is left behind when it fails before the node has accepted.
    ///
    /// # Errors
    /// [`ClientError::IllegalUsername`], [`ClientError::WeakPassword`], [`ClientError::NameTaken`],
    /// [`ClientError::SignupRefused`], [`ClientError::TooMuchWork`]; [`ClientError::NotAsked`] when the node failed before
    /// anything was sent. After any other failure there may be an account.
    pub async fn sign_up(
        &self,
        name: &str,
        password: &str,
        token: &str,
    ) -> Result<Session, ClientError> {
        let username = Username::parse_new(name).map_err(|_| ClientError::IllegalUsername {
            name: name.to_owned(),
        })?;
        check_new_password(name, password).map_err(|_| ClientError::WeakPassword {
            reason: "it is empty or hardly more than the user name",
        })?;
        let taken = || ClientError::NameTaken {
            name: name.to_owned(),
        };
        let not_asked = |error| ClientError::NotAsked(Box::new(error));
        let chain = self.api.chain(&username).await.map_err(not_asked)?;
        if !chain.is_empty() {
            return Err(taken());
        }
        let node_id = self.api.id().await.map_err(not_asked)?;
        let algorithm = LoginAlgorithm::current(&mut *self.api.environment().random());
        let keys = self.derive(&username, password, algorithm.clone());
        let keys = keys.await.map_err(not_asked)?;
        let account = self.build(&username, &keys, algorithm)?;
        let now = self.epoch_seconds();
        let link = ClaimLink::sign(
            &username,
            default_expiry(now),
            node_id,
            account.identity.secret(),
        )
        .map_err(|_| ClientError::Internal("the claim could not be signed"))?;
        let mut request = SignupRequest {
            username: name.to_owned(),
            link: SentLinks::new(link),
            ops: account.ops,
            proof: ProofOfWork::empty().encode().into(),
            token: token.to_owned(),
        };
        match self.send(&mut request).await {
            Ok(()) => {}
            Err(error) => {
                // Somebody was faster, or the answer to an accepted request was lost.
                let Ok(chain) = self.api.chain(&username).await else {
                    return Err(error);
                };
                match chain.identity() {
                    None => return Err(error),
                    Some(owner) if owner.0 == *account.identity.hash() => {}
                    Some(_) => return Err(taken()),
                }
            }
        }
        let session = match self.sign_in(name, password).await? {
            SignIn::Done(session) => session,
            SignIn::SecondFactor(_) => return Err(ClientError::SecondFactorNeeded),
        };
        if session.account.identity.hash() != account.identity.hash() {
            return Err(Misbehavior::IdentityMismatch {
                name: name.to_owned(),
            }
            .into());
        }
        Ok(session)
    }

    /// Sends the request, with a proof of work when the node asks for one: once.
    async fn send(&self, request: &mut SignupRequest) -> Result<(), ClientError> {
        let SignupAnswer::MoreWork { difficulty } = self.api.sign_up(request).await? else {
            return Ok(());
        };
        let too_much = ClientError::TooMuchWork {
            difficulty,
            max: MAX_CLIENT_DIFFICULTY.bits().into(),
        };
        let Ok(wanted) = Difficulty::try_new(difficulty.into()) else {
            return Err(too_much);
        };
        let mut search = Search::new(request.link.proof_data(), wanted).map_err(|_| too_much)?;
        let proof = loop {
            // In steps, so that a caller who gives up does not leave minutes of work behind.
            let step = computed(self.api.environment().as_ref(), move || {
                let found = search.step(SEARCH_STEP);
                (search, found)
            });
            let (rest, found) = step.await?;
            match found {
                Some(proof) => break proof,
                None => search = rest,
            }
        };
        request.proof = proof.encode().into();
        match self.api.sign_up(request).await? {
            SignupAnswer::Done => Ok(()),
            SignupAnswer::MoreWork { .. } => Err(ClientError::RateLimited {
                message: "the node is busy with sign-ups".to_owned(),
            }),
        }
    }

    /// Builds the account locally (Spec: 21 §5.2 to §5.4).
    fn build(
        &self,
        username: &Username,
        keys: &LoginKeys,
        algorithm: LoginAlgorithm,
    ) -> Result<NewAccount, ClientError> {
        let rng = &mut *self.api.environment().random();
        let internal = |_| ClientError::Internal("the new account could not be encoded");
        let identity = SecretKeyWithHash::new(SecretSigningKey::generate(rng));
        let boxing = BoxingKeyPair::new(SecretBoxingKey::random(rng)).map_err(internal)?;
        let home_writer = SecretKeyWithHash::new(SecretSigningKey::generate(rng));
        let mirror_secret = Bat::random(rng);
        let mirror = BatWithId {
            id: mirror_secret.secret_hash_id(),
            bat: mirror_secret,
        };
        let home_keys = ItemKeys::random(rng);
        let owner = Owner(identity.hash().clone());
        let home = home_keys.capability(owner.clone(), home_writer.writer());

        let mut log = Log::default();
        log.identity(&identity, &home_writer, &boxing, algorithm)?;
        let nodes = self.home_nodes(username, &home_keys, &owner, &home_writer, &mirror.id, rng)?;
        log.home(&home_writer, nodes)?;

        let entry = EntryPoint {
            capability: home,
            owner_name: username.to_string(),
        };
        let pair = SigningKeyPair::new(identity.secret().clone());
        let entry_points = EntryPoints::new(vec![entry], boxing, pair);
        let sealed = UserStaticData::seal(&keys.root, &entry_points, rng);
        let data = LoginData {
            username: username.clone(),
            record: OpaqueCipherText::from_value(sealed.to_value()).map_err(internal)?,
            reader: keys.signing.public(),
            root_change: None,
        };
        let auth = identity.secret().sign_detached(&data.encode());
        let request = SignedRequest {
            path: "peergos/v0/bats/addBat".to_owned(),
            time: SignedTime::at(self.api.environment().now()),
        };
        Ok(NewAccount {
            ops: OpLog {
                ops: log.ops,
                mirror_bat: Some(NewMirrorBat {
                    auth: request.sign(identity.secret()).into(),
                    bat: mirror,
                }),
                login: Some(NewLogin { data, auth }),
            },
            identity,
        })
    }

    /// Seals the home folder and the system folders in it.
    fn home_nodes(
        &self,
        username: &Username,
        home_keys: &ItemKeys,
        owner: &Owner,
        writer: &SecretKeyWithHash,
        mirror: &BatId,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<NewNode>, ClientError> {
        let name = |text: &str| {
            FileName::parse(text).map_err(|_| ClientError::Internal("a folder name is illegal"))
        };
        let now = Timestamp::from_epoch_seconds(self.epoch_seconds());
        let home = home_keys.capability(owner.clone(), writer.writer());
        let mut nodes = Vec::new();
        let mut children = ChildList::new();
        for folder in SYSTEM_FOLDERS {
            let keys = ItemKeys::random(rng);
            let properties = FileProperties::directory(name(folder)?, now, true);
            let capability = keys.capability(owner.clone(), writer.writer());
            children.push(nodes::entry(&home, &capability, &properties, rng)?);
            nodes.push(nodes::new_directory(
                &keys,
                properties,
                Some(home_keys.as_parent_link()),
                None,
                Some(mirror),
                &ChildList::new(),
                rng,
            )?);
        }
        nodes.push(nodes::new_directory(
            home_keys,
            FileProperties::directory(name(username.as_str())?, now, false),
            None,
            Some(writer),
            Some(mirror),
            &children,
            rng,
        )?);
        Ok(nodes)
    }

    fn epoch_seconds(&self) -> i64 {
        let now = self.api.environment().now();
        let since = now
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}

/// Writes in the order in which a node applies them.
#[derive(Default)]
struct Log {
    ops: Vec<Op>,
}

impl Log {
    /// Records the identity's space: boxing key, proof of the home writer, root block, pointer.
    fn identity(
        &mut self,
        identity: &SecretKeyWithHash,
        home_writer: &SecretKeyWithHash,
        boxing: &BoxingKeyPair,
        algorithm: LoginAlgorithm,
    ) -> Result<(), ClientError> {
        let internal = |_| ClientError::Internal("the new account could not be encoded");
        let proof = Block::cbor(OwnerProof::make(home_writer, identity.hash()).encode());
        let proof = proof.map_err(internal)?;
        let mut owned = Tree::default();
        owned.put(owned_key_label(home_writer.hash()), &proof)?;
        let (owned, owned_blocks) = owned.finish()?;
        let inbound = boxing.public().hash();
        let mut data = WriterData::new_identity(identity.writer(), inbound, algorithm);
        data.owned = Some(owned);
        let boxing = boxing.public().block().map_err(internal)?;
        let blocks = owned_blocks.into_iter().chain([proof]).chain(boxing);
        self.space(identity, blocks, &data)
    }

    /// Records the home writer's space: empty owned keys, folders, tree, root block, pointer.
    fn home(&mut self, writer: &SecretKeyWithHash, nodes: Vec<NewNode>) -> Result<(), ClientError> {
        let (owned, empty) = Tree::default().finish()?;
        let mut tree = Tree::default();
        let mut blocks = empty;
        for node in nodes {
            tree.put(node.key.bytes().to_vec(), &node.block)?;
            blocks.push(node.block);
            // A node with three children is inline; fragments would have to be written raw.
            if !node.fragments.is_empty() {
                return Err(ClientError::Internal("a new folder has fragments"));
            }
        }
        let (tree, tree_blocks) = tree.finish()?;
        let mut data = WriterData::new_writer(writer.writer());
        data.owned = Some(owned);
        data.tree = Some(tree);
        self.space(writer, blocks.into_iter().chain(tree_blocks), &data)
    }

    fn space(
        &mut self,
        signer: &SecretKeyWithHash,
        blocks: impl Iterator<Item = Block>,
        data: &WriterData,
    ) -> Result<(), ClientError> {
        let internal = |_| ClientError::Internal("the new account could not be encoded");
        let root = data.to_block().map_err(internal)?;
        let update = PointerUpdate::next(None, Some(root.cid().clone()))
            .map_err(|_| ClientError::Internal("the first pointer could not be made"))?;
        for block in blocks.chain([root]) {
            self.ops.push(Op::Block(block_write(&block, signer)));
        }
        self.ops.push(Op::Pointer(pointer_write(update, signer)));
        Ok(())
    }
}

pub(super) fn block_write(block: &Block, signer: &SecretKeyWithHash) -> BlockWrite {
    let digest = block.cid().hash().digest();
    BlockWrite {
        block: block.bytes().clone(),
        format: BlockFormat::DagCbor,
        signature: Bytes::from(signer.secret().sign_attached(digest)),
        writer: Writer(signer.hash().clone()),
    }
}

pub(super) fn pointer_write(update: PointerUpdate, signer: &SecretKeyWithHash) -> PointerWrite {
    PointerWrite {
        signed: SignedPointer::sign(update, signer.secret()).into_bytes(),
        writer: signer.writer(),
    }
}

/// A small tree built from nothing.
#[derive(Default)]
struct Tree {
    mappings: Vec<(Vec<u8>, Value)>,
}

impl Tree {
    fn put(&mut self, key: Vec<u8>, block: &Block) -> Result<(), ClientError> {
        self.mappings.push((key, Value::Link(block.cid().clone())));
        Ok(())
    }

    fn finish(self) -> Result<(champ::Cid, Vec<Block>), ClientError> {
        let none = MemoryBlocks::new();
        let built = futures_util::FutureExt::now_or_never(async {
            let mut champ = Champ::empty();
            for (key, value) in self.mappings {
                champ.put(key, None, value, &none).await?;
            }
            champ.finish()
        });
        // Nothing is read from outside, so the future is ready at once.
        built
            .ok_or(ClientError::Internal("a new tree had to wait"))?
            .map_err(ClientError::from)
    }
}
