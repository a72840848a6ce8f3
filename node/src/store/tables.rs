//! The registry of metadata tables. Names are stored: add, never rename.

use super::Table;

/// Signed pointers by writer.
pub const POINTERS: Table = Table::new("pointers");
/// Registered writers of a user and what is accounted for them.
pub const WRITERS: Table = Table::new("writers");
/// Claim chains by user name.
pub const CHAINS: Table = Table::new("chains");
/// User names by identity key hash.
pub const KEYS: Table = Table::new("keys");
/// Login data by user name.
pub const LOGINS: Table = Table::new("logins");
/// Second factors by user name.
pub const SECOND_FACTORS: Table = Table::new("second_factors");
/// Users by the digest of a credential id that one of their security keys has.
pub const SECURITY_KEYS: Table = Table::new("security_keys");
/// Digests of authorisations that work once, by the time they expire.
pub const USED_AUTHORISATIONS: Table = Table::new("used_authorisations");
/// Mirror access tokens by user.
pub const BATS: Table = Table::new("bats");
/// Quotas by user; having one makes a user local.
pub const QUOTAS: Table = Table::new("quotas");
/// Confirmed and pending bytes by user.
pub const USAGE: Table = Table::new("usage");
/// Requests for more space by user.
pub const SPACE_REQUESTS: Table = Table::new("space_requests");
/// Pending follow requests by owner.
pub const FOLLOW_REQUESTS: Table = Table::new("follow_requests");
/// Uses of secret links by user and label.
pub const LINK_COUNTS: Table = Table::new("link_counts");
/// Messages between operator and users.
pub const MESSAGES: Table = Table::new("messages");
/// The node's own identity and settings.
pub const NODE: Table = Table::new("node");
/// Users by name: writers registered for them, as name, zero byte, binary key hash.
pub const USER_WRITERS: Table = Table::new("user_writers");
/// Writers whose last update has not been accounted yet.
pub const UNSETTLED: Table = Table::new("unsettled");
/// Digests of login keys that were replaced, by user name and digest.
pub const PAST_LOGINS: Table = Table::new("past_logins");
/// Who does which background job; see `lease`.
pub const LEASES: Table = Table::new("leases");
/// Counted events of nodes that share this store, by limit and key.
pub const GUARDS: Table = Table::new("guards");
/// Challenges of security keys of nodes that share this store, by user and digest.
pub const CHALLENGES: Table = Table::new("challenges");
/// What nodes that share this store know of a user's writes on their way, by user.
pub const PENDING: Table = Table::new("pending");
/// Owners of mirror access tokens by id.
pub const BAT_IDS: Table = Table::new("bat_ids");
/// Sign-up tokens that have not been used.
pub const SIGNUP_TOKENS: Table = Table::new("signup_tokens");
/// Users who were removed from this node, or are being removed, by name: all their blocks are garbage.
pub const REMOVED: Table = Table::new("removed");
/// Addresses on the waiting list.
pub const WAITING_LIST: Table = Table::new("waiting_list");
/// A value by user name that changes with every pointer update of that user, for collections beside writers.
pub const POINTER_EPOCHS: Table = Table::new("pointer_epochs");
/// A value by user name that changes with every batch of blocks that a collection gives up.
pub const GC_SWEEPS: Table = Table::new("gc_sweeps");
/// Blocks by user name that a collection has given up and may not have deleted yet.
pub const GC_DOOMED: Table = Table::new("gc_doomed");
/// What the last collection of a user left, by user name.
pub const GC_STATES: Table = Table::new("gc_states");
/// Links of a user's cbor blocks, in chunks: name, zero byte, number of the chunk.
pub const GC_LINKS: Table = Table::new("gc_links");
/// Pointers that were dropped because their owner deleted the identity: name, zero byte, binary key hash.
pub const RETIRED_POINTERS: Table = Table::new("retired_pointers");
/// Blocks whose bytes are kept elsewhere, by partition and CID; the rows of the last four tables are described in
/// `store::split`.
pub const BLOCK_INDEX: Table = Table::new("block_index");
/// What each partition holds, in shards.
pub const BLOCK_COUNTS: Table = Table::new("block_counts");
/// Blocks in open transactions.
pub const BLOCK_TRANSACTIONS: Table = Table::new("block_transactions");
/// Blocks whose row in the index is of one that is not stored, by partition and CID.
pub const BLOCK_RESTLESS: Table = Table::new("block_restless");
/// Tables that say where blocks are: they mean nothing in another store.
pub const OF_THE_STORE: [Table; 4] = [
    BLOCK_INDEX,
    BLOCK_COUNTS,
    BLOCK_TRANSACTIONS,
    BLOCK_RESTLESS,
];
/// Copies of users of other nodes, by user name.
pub const MIRRORS: Table = Table::new("mirrors");
/// Users on their way from or to this node, by user name.
pub const MIGRATIONS: Table = Table::new("migrations");
/// Sign-ups that wait for the name authority's answer, by user name.
pub const PENDING_SIGNUPS: Table = Table::new("pending_signups");
