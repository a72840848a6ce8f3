-- Metadata: all tables of the node in one, because they differ in name only. The node's order of keys is that of
-- their bytes, which is how bytea compares.
CREATE TABLE entry (
    tab   text COLLATE "C" NOT NULL,
    key   bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (tab, key)
);
-- Most values are encrypted or random; compressing them would only cost time.
ALTER TABLE entry ALTER COLUMN value SET STORAGE EXTERNAL;
-- Rows that are updated again and again stay on their page.
ALTER TABLE entry SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- Who this data set is.
CREATE TABLE data_set (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    id       uuid NOT NULL DEFAULT gen_random_uuid(),
    created  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO data_set DEFAULT VALUES;

-- Checks the conditions of a batch and applies its writes, in the one transaction of the calling statement.
--
-- Every batch holds a lock on each of its keys, also on keys that have no row, until it is committed. Locks are
-- taken in ascending order, so no two batches wait for each other; each statement below sees what was committed
-- when it started, which is after the locks were had. Batches of many keys lock all of them at once.
--
-- Returns the position of the first condition that does not hold, from 0, with what is stored under its key; or
-- -1 when the batch was applied.
CREATE FUNCTION commit_batch(
    lock_space int, locks int[],
    condition_tabs text[], condition_keys bytea[], condition_values bytea[],
    removed_tabs text[], removed_keys bytea[],
    put_tabs text[], put_keys bytea[], put_values bytea[],
    OUT failed int, OUT actual bytea
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    number int;
BEGIN
    IF locks IS NULL THEN
        PERFORM pg_advisory_xact_lock(lock_space, -1);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(lock_space, -1);
        FOREACH number IN ARRAY locks LOOP
            PERFORM pg_advisory_xact_lock(lock_space, number);
        END LOOP;
    END IF;
    IF cardinality(condition_keys) > 0 THEN
        SELECT c.n::int - 1, r.value INTO failed, actual
        FROM unnest(condition_tabs, condition_keys, condition_values)
            WITH ORDINALITY AS c (tab, key, value, n)
        LEFT JOIN entry r ON r.tab = c.tab AND r.key = c.key
        WHERE r.value IS DISTINCT FROM c.value
        ORDER BY c.n
        LIMIT 1;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    IF cardinality(removed_keys) > 0 THEN
        DELETE FROM entry r USING unnest(removed_tabs, removed_keys) AS w (tab, key)
        WHERE r.tab = w.tab AND r.key = w.key;
    END IF;
    IF cardinality(put_keys) > 0 THEN
        INSERT INTO entry AS r (tab, key, value)
        SELECT w.tab, w.key, w.value FROM unnest(put_tabs, put_keys, put_values) AS w (tab, key, value)
        ON CONFLICT (tab, key) DO UPDATE SET value = excluded.value;
    END IF;
    failed := -1;
END
$$;

-- Blocks, for small data sets that keep everything in the database.
CREATE TABLE space (
    id   int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);
CREATE SEQUENCE generation;
CREATE TABLE block (
    space      int NOT NULL REFERENCES space,
    cid        bytea NOT NULL,
    generation bigint NOT NULL,
    size       int NOT NULL,
    bytes      bytea NOT NULL,
    PRIMARY KEY (space, cid)
);
ALTER TABLE block ALTER COLUMN bytes SET STORAGE EXTERNAL;
-- Which puts of open transactions protect which blocks; times in milliseconds since 1970 UTC.
CREATE TABLE protection (
    space       int NOT NULL REFERENCES space,
    cid         bytea NOT NULL,
    transaction text COLLATE "C" NOT NULL,
    made_millis bigint NOT NULL
);
CREATE INDEX protection_by_block ON protection (space, cid);
CREATE INDEX protection_by_transaction ON protection (space, transaction);

-- Stores blocks, in ascending order of names so that two puts never wait for each other.
CREATE FUNCTION put_blocks(
    space_name text, transaction_id text, now_millis bigint, cids bytea[], contents bytea[]
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    number int;
BEGIN
    SELECT id INTO number FROM space WHERE name = space_name;
    IF NOT FOUND THEN
        INSERT INTO space (name) VALUES (space_name) ON CONFLICT (name) DO NOTHING;
        SELECT id INTO STRICT number FROM space WHERE name = space_name;
    END IF;
    IF transaction_id IS NOT NULL THEN
        INSERT INTO protection (space, cid, transaction, made_millis)
        SELECT number, c, transaction_id, now_millis FROM unnest(cids) AS c;
    END IF;
    INSERT INTO block AS b (space, cid, generation, size, bytes)
    SELECT number, p.cid, nextval('generation'), octet_length(p.content), p.content
    FROM unnest(cids, contents) AS p (cid, content)
    ORDER BY p.cid
    ON CONFLICT (space, cid) DO UPDATE
        SET generation = excluded.generation, size = excluded.size, bytes = excluded.bytes;
END
$$;

-- Deletes blocks that still have the generation they were listed with and that no open transaction protects.
-- A put that waits for one of the rows locked here stores its block anew; one that was faster moved the
-- generation on.
CREATE FUNCTION delete_blocks(
    space_name text, cids bytea[], generations bigint[],
    OUT removed bigint, OUT removed_bytes bigint, OUT kept bigint
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    number int;
    candidate record;
    found_generation bigint;
    found_size bigint;
BEGIN
    removed := 0; removed_bytes := 0; kept := 0;
    SELECT id INTO number FROM space WHERE name = space_name;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOR candidate IN
        SELECT c.cid, c.generation FROM unnest(cids, generations) AS c (cid, generation) ORDER BY c.cid
    LOOP
        SELECT b.generation, b.size INTO found_generation, found_size
        FROM block b WHERE b.space = number AND b.cid = candidate.cid FOR UPDATE;
        IF NOT FOUND THEN
            CONTINUE;
        END IF;
        IF found_generation <> candidate.generation
            OR EXISTS (SELECT FROM protection p WHERE p.space = number AND p.cid = candidate.cid)
        THEN
            kept := kept + 1;
            CONTINUE;
        END IF;
        DELETE FROM block b WHERE b.space = number AND b.cid = candidate.cid;
        removed := removed + 1;
        removed_bytes := removed_bytes + found_size;
    END LOOP;
END
$$;
