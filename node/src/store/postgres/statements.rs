//! The statements; what they call is in the migrations.

/// Table, key.
pub(super) const GET: &str = "SELECT value FROM entry WHERE tab = $1 AND key = $2";

/// Table, keys.
pub(super) const GET_MANY: &str =
    "SELECT key, value FROM entry WHERE tab = $1 AND key = ANY($2::bytea[])";

/// Table, first key, most rows, most bytes.
pub(super) const SCAN: &str = "SELECT key, value FROM (
    SELECT key, value, sum(octet_length(value)) OVER (ORDER BY key ROWS UNBOUNDED PRECEDING)
        - octet_length(value) AS before
    FROM (SELECT key, value FROM entry WHERE tab = $1 AND key >= $2 ORDER BY key LIMIT $3) page
) counted WHERE before < $4::bigint ORDER BY key";

/// Table, first key, most rows, most bytes, end.
pub(super) const SCAN_TO: &str = "SELECT key, value FROM (
    SELECT key, value, sum(octet_length(value)) OVER (ORDER BY key ROWS UNBOUNDED PRECEDING)
        - octet_length(value) AS before
    FROM (SELECT key, value FROM entry WHERE tab = $1 AND key >= $2 AND key < $5 ORDER BY key LIMIT $3) page
) counted WHERE before < $4::bigint ORDER BY key";

/// The table after one.
pub(super) const NEXT_TABLE: &str =
    "SELECT tab FROM entry WHERE tab > $1 ORDER BY tab, key LIMIT 1";

/// See the migration.
pub(super) const COMMIT: &str =
    "SELECT failed, actual FROM commit_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// See the migration.
pub(super) const PUT_BLOCKS: &str = "SELECT FROM put_blocks($1, $2, $3, $4, $5)";

/// See the migration.
pub(super) const DELETE_BLOCKS: &str =
    "SELECT removed, removed_bytes, kept FROM delete_blocks($1, $2, $3)";

/// Space, CID.
pub(super) const BLOCK: &str = "SELECT b.bytes FROM space s JOIN block b ON b.space = s.id
    WHERE s.name = $1 AND b.cid = $2";

/// Space, CID.
pub(super) const BLOCK_SIZE: &str = "SELECT b.size FROM space s JOIN block b ON b.space = s.id
    WHERE s.name = $1 AND b.cid = $2";

/// Space, last CID of the page before, most rows.
pub(super) const LIST_BLOCKS: &str = "SELECT cid, size, generation FROM block
    WHERE space = (SELECT id FROM space WHERE name = $1) AND cid > $2 ORDER BY cid LIMIT $3";

/// Space.
pub(super) const BLOCK_COUNTS: &str = "SELECT count(*), coalesce(sum(size), 0)::bigint FROM block
    WHERE space = (SELECT id FROM space WHERE name = $1)";

/// Last space of the page before, most rows.
pub(super) const SPACES: &str = "SELECT name FROM space WHERE name > $1 ORDER BY name LIMIT $2";

/// Space, transaction.
pub(super) const CLOSE_TRANSACTION: &str = "DELETE FROM protection
    WHERE space = (SELECT id FROM space WHERE name = $1) AND transaction = $2";

/// Space, time.
pub(super) const EXPIRE_TRANSACTIONS: &str = "DELETE FROM protection
    WHERE space = (SELECT id FROM space WHERE name = $1) AND made_millis < $2";

/// Space.
pub(super) const PROTECTED_BLOCKS: &str = "SELECT DISTINCT cid FROM protection
    WHERE space = (SELECT id FROM space WHERE name = $1)";
