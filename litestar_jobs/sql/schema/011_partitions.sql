-- Partitions, for those who choose them: of job, finished, failure and limited, by ranges of the id, which is a time. Without
-- partition_tables() nothing of this is used, and the tables stay as they are.
-- Each table also has a rest, for ids that no other partition takes: of jobs that stay when their partition goes, of clocks
-- that are wrong, of a time for which nobody made a partition. So no enqueue ever fails for want of one.

-- The least id of a moment, and the moment of an id.
CREATE OR REPLACE FUNCTION litestar_jobs.first_id(at timestamptz) RETURNS uuid LANGUAGE sql STABLE AS $first_id$
    SELECT rpad(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$first_id$;

CREATE OR REPLACE FUNCTION litestar_jobs.id_time(id uuid) RETURNS timestamptz LANGUAGE sql STABLE AS $id_time$
    SELECT to_timestamp(('x0000' || left(replace(id::text, '-', ''), 12))::bit(64)::bigint / 1000.0)
$id_time$;

-- The partitions but the rest, the oldest first. The first one begins before all times.
CREATE OR REPLACE FUNCTION litestar_jobs.partitions()
RETURNS TABLE (label text, begins timestamptz, ends timestamptz) LANGUAGE sql STABLE AS $partitions$
    SELECT substr(relname, 5), litestar_jobs.id_time(substring(bound FROM $$FROM \('([^']+)'\)$$)::uuid),
           litestar_jobs.id_time(substring(bound FROM $$TO \('([^']+)'\)$$)::uuid) AS ends
      FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
     CROSS JOIN LATERAL pg_get_expr(relpartbound, pg_class.oid) AS bound
     WHERE inhparent = to_regclass('litestar_jobs.job') AND bound <> 'DEFAULT'
     ORDER BY ends
$partitions$;

CREATE OR REPLACE FUNCTION litestar_jobs.partitioned() RETURNS text[] LANGUAGE sql IMMUTABLE AS $partitioned$
    SELECT '{failure,finished,job,limited}'::text[]
$partitioned$;

-- Whoever changes partitions, or migrates, does so alone.
CREATE OR REPLACE FUNCTION litestar_jobs.alone(patiently boolean) RETURNS boolean LANGUAGE plpgsql AS $alone$
DECLARE
    name text := (SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                   WHERE pg_class.oid = to_regclass('litestar_jobs.job'));
BEGIN
    IF patiently THEN
        PERFORM pg_advisory_xact_lock(hashtext('litestar_jobs'), hashtext(name));
        RETURN true;
    END IF;
    RETURN pg_try_advisory_xact_lock(hashtext('litestar_jobs'), hashtext(name));
END $alone$;

-- The columns of a table that can be written.
CREATE OR REPLACE FUNCTION litestar_jobs.columns_of(named text) RETURNS text LANGUAGE sql STABLE AS $columns_of$
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
     WHERE attrelid = to_regclass('litestar_jobs.' || quote_ident(named))
       AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
$columns_of$;

-- An empty table with the columns, constraints, indexes, storage parameters and the owner of another one.
CREATE OR REPLACE FUNCTION litestar_jobs.table_like(made text, named text, stored text) RETURNS void LANGUAGE plpgsql
AS $table_like$
DECLARE
    model record;
BEGIN
    SELECT array_to_string(reloptions, ', ') AS options, pg_get_userbyid(relowner) AS owner INTO model
      FROM pg_class WHERE oid = to_regclass('litestar_jobs.' || quote_ident(stored));
    EXECUTE concat('CREATE TABLE litestar_jobs.', quote_ident(made), ' (LIKE litestar_jobs.', quote_ident(named),
                   ' INCLUDING ALL) ', 'WITH (' || model.options || ')');
    EXECUTE 'ALTER TABLE litestar_jobs.' || quote_ident(made) || ' OWNER TO ' || quote_ident(model.owner);
END $table_like$;

-- Rows of the ids from low to high go from one table to another.
CREATE OR REPLACE FUNCTION litestar_jobs.move_rows(source text, target text, low uuid, high uuid) RETURNS void
LANGUAGE plpgsql AS $move_rows$
DECLARE
    columns text := litestar_jobs.columns_of(source);
BEGIN
    EXECUTE 'WITH moved AS (DELETE FROM litestar_jobs.' || source || ' WHERE id >= $1 AND ($2 IS NULL OR id < $2)'
            ' RETURNING ' || columns || ') INSERT INTO litestar_jobs.' || target || ' (' || columns || ')'
            ' SELECT ' || columns || ' FROM moved' USING low, high;
END $move_rows$;

CREATE OR REPLACE FUNCTION litestar_jobs.add_partition(begins timestamptz, ends timestamptz) RETURNS void LANGUAGE plpgsql
AS $add_partition$
DECLARE
    label text := to_char(begins AT TIME ZONE 'UTC', 'YYYYMMDD"t"HH24MI');
    low uuid := litestar_jobs.first_id(begins);
    high uuid := litestar_jobs.first_id(ends);
    named text;
BEGIN
    FOREACH named IN ARRAY litestar_jobs.partitioned() LOOP
        PERFORM litestar_jobs.table_like(named || '_' || label, named, named || '_rest');
    END LOOP;
    -- What the rest has of these ids would be in the way, and nobody may add to it meanwhile.
    LOCK TABLE litestar_jobs.failure_rest, litestar_jobs.finished_rest, litestar_jobs.job_rest, litestar_jobs.limited_rest
        IN ACCESS EXCLUSIVE MODE;
    FOREACH named IN ARRAY litestar_jobs.partitioned() LOOP
        PERFORM litestar_jobs.move_rows(named || '_rest', named || '_' || label, low, high);
        EXECUTE 'ALTER TABLE litestar_jobs.' || named || ' ATTACH PARTITION litestar_jobs.' || named || '_' || label
                || ' FOR VALUES FROM (' || quote_literal(low) || ') TO (' || quote_literal(high) || ')';
    END LOOP;
END $add_partition$;

-- Make the next partition, as wide as the last one, if what there is does not reach further than that into the future.
-- Answers until when it reaches; NULL if there was nothing to do. Does not wait long for those who use the tables.
CREATE OR REPLACE FUNCTION litestar_jobs.make_partition() RETURNS timestamptz LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '200ms' AS $make_partition$
DECLARE
    last record;
    since timestamptz;
    width interval;
BEGIN
    IF NOT litestar_jobs.alone(false) THEN
        RETURN NULL;
    END IF;
    SELECT begins, ends INTO last FROM litestar_jobs.partitions() ORDER BY ends DESC LIMIT 1;
    width := last.ends - last.begins;
    IF width IS NULL OR last.ends > now() + width THEN
        RETURN NULL;
    END IF;
    since := CASE WHEN last.ends > now() THEN last.ends ELSE date_bin(width, now(), 'epoch') + width END;
    PERFORM litestar_jobs.add_partition(since, since + width);
    RETURN since + width;
END $make_partition$;

-- Drop a partition whose jobs were all kept long enough, for so many seconds by how they ended (NULL: for ever). Jobs that
-- have not ended, or are kept longer, go to the rest. If these are too many nothing happens: all who use the
-- tables would wait while they move. Does not wait long for those who use the tables.
CREATE OR REPLACE FUNCTION litestar_jobs.drop_partition(
    labelled text, keep_completed float8, keep_failed float8, keep_cancelled float8,
    OUT dropped boolean, OUT completed bigint, OUT failed bigint, OUT cancelled bigint
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '200ms' AS $drop_partition$
DECLARE
    most CONSTANT integer := 50000;
    low uuid;
    high uuid;
    open_jobs uuid[];
    ended_jobs uuid[];
    named text;
    part text;
    columns text;
BEGIN
    dropped := false;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE invalid_transaction_state USING MESSAGE = 'partitions are dropped in transactions that are READ COMMITTED';
    END IF;
    IF NOT litestar_jobs.alone(false) THEN
        RETURN;
    END IF;
    SELECT COALESCE(litestar_jobs.first_id(begins), '00000000-0000-0000-0000-000000000000'), litestar_jobs.first_id(ends)
      INTO low, high FROM litestar_jobs.partitions()
     WHERE label = labelled AND ends <= statement_timestamp() - make_interval(secs => keep_completed);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- If it is in vain, it should be so before the partition is read.
    BEGIN
        LOCK TABLE ONLY litestar_jobs.failure, ONLY litestar_jobs.finished, ONLY litestar_jobs.job, ONLY litestar_jobs.limited
            IN ACCESS EXCLUSIVE MODE;
        RAISE no_data_found;
    EXCEPTION WHEN no_data_found THEN  -- and the locks are gone
    END;
    -- While it is read, no job of it ends, and none that has ended is retried.
    EXECUTE 'LOCK TABLE litestar_jobs.' || quote_ident('finished_' || labelled) || ' IN SHARE ROW EXCLUSIVE MODE';
    EXECUTE 'SELECT count(*) FILTER (WHERE over AND status = ''completed''), count(*) FILTER (WHERE over AND status = ''failed''),
                    count(*) FILTER (WHERE over AND status = ''cancelled''), array_agg(id) FILTER (WHERE NOT over)
               FROM (SELECT id, status, COALESCE(finished_at <= statement_timestamp() - make_interval(secs =>
                            CASE status WHEN ''completed'' THEN $1 WHEN ''failed'' THEN $2 ELSE $3 END), false) AS over
                       FROM litestar_jobs.' || quote_ident('finished_' || labelled) || ') AS ended'
       INTO completed, failed, cancelled, ended_jobs USING keep_completed, keep_failed, keep_cancelled;
    IF cardinality(ended_jobs) > most THEN
        RETURN;
    END IF;
    LOCK TABLE ONLY litestar_jobs.failure, ONLY litestar_jobs.finished, ONLY litestar_jobs.job, ONLY litestar_jobs.limited
        IN ACCESS EXCLUSIVE MODE;
    SELECT array_agg(id) INTO open_jobs
      FROM (SELECT id FROM litestar_jobs.scheduled WHERE id >= low AND id < high
            UNION ALL SELECT id FROM litestar_jobs.ready WHERE id >= low AND id < high
            UNION ALL SELECT id FROM litestar_jobs.held WHERE id >= low AND id < high
            UNION ALL SELECT id FROM litestar_jobs.running WHERE id >= low AND id < high LIMIT most + 1) AS live;
    IF cardinality(ended_jobs || open_jobs) > most THEN
        RETURN;
    END IF;
    FOREACH named IN ARRAY litestar_jobs.partitioned() LOOP
        part := 'litestar_jobs.' || quote_ident(named || '_' || labelled);
        columns := litestar_jobs.columns_of(named);
        EXECUTE 'ALTER TABLE litestar_jobs.' || named || ' DETACH PARTITION ' || part;
        EXECUTE 'INSERT INTO litestar_jobs.' || named || ' (' || columns || ') SELECT ' || columns || ' FROM ' || part
                || ' WHERE id = ANY ($1)' USING ended_jobs || open_jobs;
        EXECUTE 'DROP TABLE ' || part;
    END LOOP;
    dropped := true;
END $drop_partition$;

-- These two do what their owner may. Whoever deletes jobs that were kept long enough needs to be allowed to call them.
REVOKE EXECUTE ON FUNCTION litestar_jobs.make_partition(),
    litestar_jobs.drop_partition(text, float8, float8, float8) FROM PUBLIC;

-- The views over these tables, as commands that make them anew in their place, with all that is granted on them.
CREATE OR REPLACE FUNCTION litestar_jobs.views_over() RETURNS text[] LANGUAGE sql STABLE AS $views_over$
    SELECT array_agg(DISTINCT concat('CREATE OR REPLACE VIEW ', seen.oid::regclass, ' ',
                                     'WITH (' || array_to_string(seen.reloptions, ', ') || ')', ' AS ', pg_get_viewdef(seen.oid)))
      FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid JOIN pg_class AS seen ON seen.oid = ev_class
     WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass AND seen.relkind = 'v'
       AND refobjid = ANY (ARRAY(SELECT to_regclass('litestar_jobs.' || each) FROM unnest(litestar_jobs.partitioned()) AS each))
$views_over$;

-- What others have put on these tables that a partitioned one would not have.
CREATE OR REPLACE FUNCTION litestar_jobs.hindrances() RETURNS text LANGUAGE sql STABLE AS $hindrances$
    WITH mine AS MATERIALIZED (
        SELECT to_regclass('litestar_jobs.' || each) AS oid FROM unnest(litestar_jobs.partitioned()) AS each
    )
    SELECT string_agg(what, ', ')
      FROM (SELECT concat('the trigger ', tgname, ' of ', tgrelid::regclass)
              FROM pg_trigger JOIN mine ON mine.oid = tgrelid WHERE NOT tgisinternal
            UNION ALL
            SELECT concat('the foreign key ', conname, ' of ', conrelid::regclass) FROM pg_constraint
             WHERE contype = 'f' AND (confrelid IN (SELECT oid FROM mine) OR conrelid IN (SELECT oid FROM mine))
            UNION ALL
            SELECT concat('the row security of ', mine.oid) FROM pg_class JOIN mine USING (oid) WHERE relrowsecurity
            UNION ALL
            SELECT concat('the publication ', pubname)
              FROM pg_publication JOIN pg_publication_rel ON prpubid = pg_publication.oid JOIN mine ON mine.oid = prrelid
            UNION ALL
            SELECT DISTINCT concat('the function ', objid::regprocedure)
              FROM pg_depend JOIN mine ON mine.oid = refobjid WHERE classid = 'pg_proc'::regclass
            UNION ALL
            SELECT DISTINCT concat('the materialized view ', ev_class::regclass)
              FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid JOIN pg_class ON pg_class.oid = ev_class
              JOIN mine ON mine.oid = refobjid
             WHERE classid = 'pg_rewrite'::regclass AND relkind = 'm') AS hindrance(what)
$hindrances$;

-- A table takes the place of one that is renamed: with its columns, constraints, indexes, comments, owner and grants.
CREATE OR REPLACE FUNCTION litestar_jobs.replace_table(named text, suffix text, behind text) RETURNS void LANGUAGE plpgsql
AS $replace_table$
DECLARE
    old regclass := to_regclass('litestar_jobs.' || named);
    target text := 'litestar_jobs.' || named;
    aside text := named || '_' || suffix;
    command text;
    commands text[] := ARRAY(
        SELECT 'ALTER TABLE ' || target || ' VALIDATE CONSTRAINT ' || quote_ident(conname)
          FROM pg_constraint WHERE conrelid = old AND NOT convalidated
    ) || ARRAY(
        SELECT 'ALTER INDEX ' || indexrelid::regclass || ' RENAME TO ' || quote_ident(relname || '_' || suffix)
          FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = old
    ) || ARRAY[
        'ALTER TABLE ' || target || ' RENAME TO ' || aside,
        'CREATE TABLE ' || target || ' (LIKE litestar_jobs.' || aside || ' INCLUDING ALL EXCLUDING INDEXES) ' || behind
    ] || ARRAY(
        SELECT concat('ALTER TABLE ', target, ' ADD CONSTRAINT ', quote_ident(conname), ' ', pg_get_constraintdef(oid))
          FROM pg_constraint WHERE conrelid = old AND contype IN ('p', 'u', 'x')
    ) || ARRAY(
        SELECT replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ') FROM pg_index
         WHERE indrelid = old AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND conrelid = old)
    ) || ARRAY(
        SELECT 'COMMENT ON TABLE ' || target || ' IS ' || quote_literal(obj_description(old, 'pg_class'))
         WHERE obj_description(old, 'pg_class') IS NOT NULL
    ) || ARRAY(
        SELECT 'ALTER TABLE ' || target || ' OWNER TO ' || quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = old
    ) || ARRAY(
        SELECT concat('GRANT ', privilege_type, ' (' || quote_ident(attname) || ')', ' ON ', target, ' TO ',
                      CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
                      CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
          FROM (SELECT NULL AS attname, relowner, relacl AS acl FROM pg_class WHERE oid = old
                UNION ALL
                SELECT attname, relowner, attacl FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
                 WHERE attrelid = old AND NOT attisdropped) AS granted
         CROSS JOIN LATERAL aclexplode(acl)
         WHERE grantee <> relowner);
BEGIN
    FOREACH command IN ARRAY commands LOOP
        EXECUTE command;
    END LOOP;
END $replace_table$;

-- Lock the tables for us alone. Those who wait behind us do so for lock_timeout at the most, and go on before the next try.
-- The tables come in the order in which most statements name them, or two would wait for each other. What is done to the view
-- changes nothing, and locks it: whoever reads it locks the tables after it.
CREATE OR REPLACE FUNCTION litestar_jobs.lock_alone() RETURNS void LANGUAGE plpgsql AS $lock_alone$
BEGIN
    FOR tries_left IN REVERSE 4..0 LOOP
        BEGIN
            ALTER VIEW litestar_jobs.jobs ALTER COLUMN id DROP DEFAULT;
            LOCK TABLE litestar_jobs.failure, litestar_jobs.finished, litestar_jobs.job, litestar_jobs.limited
                IN ACCESS EXCLUSIVE MODE;
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF tries_left = 0 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5 + random());
        END;
    END LOOP;
END $lock_alone$;

-- From now on partitions of this width. What there is already becomes the first of them. Where there are partitions, later
-- ones get this width.
CREATE OR REPLACE FUNCTION litestar_jobs.partition_tables(width interval) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '500ms' AS $partition_tables$
DECLARE
    since timestamptz := date_bin(width, now(), 'epoch') + width;
    views text[];
    command text;
    named text;
    hindrances text := litestar_jobs.hindrances();
BEGIN
    PERFORM litestar_jobs.alone(true);
    PERFORM litestar_jobs.lock_alone();
    IF to_regclass('litestar_jobs.job_rest') IS NOT NULL THEN
        PERFORM litestar_jobs.drop_unused_partitions();
        since := COALESCE((SELECT max(ends) FROM litestar_jobs.partitions()), since);
        PERFORM litestar_jobs.add_partition(since, since + width);
        RETURN;
    END IF;
    IF hindrances IS NOT NULL THEN
        RAISE object_not_in_prerequisite_state
            USING MESSAGE = 'the tables cannot be partitioned, since these would be lost: ' || hindrances;
    END IF;
    views := litestar_jobs.views_over();
    FOREACH named IN ARRAY litestar_jobs.partitioned() LOOP
        PERFORM litestar_jobs.replace_table(named, 'before', 'PARTITION BY RANGE (id)');
        PERFORM litestar_jobs.table_like(named || '_rest', named, named || '_before');
        EXECUTE 'ALTER TABLE litestar_jobs.' || named || ' ATTACH PARTITION litestar_jobs.' || named || '_rest DEFAULT';
        PERFORM litestar_jobs.move_rows(named || '_before', named || '_rest', litestar_jobs.first_id(since), NULL);
        EXECUTE 'ALTER TABLE litestar_jobs.' || named || ' ATTACH PARTITION litestar_jobs.' || named || '_before'
                ' FOR VALUES FROM (MINVALUE) TO (' || quote_literal(litestar_jobs.first_id(since)) || ')';
    END LOOP;
    PERFORM litestar_jobs.add_partition(since, since + width);
    FOREACH command IN ARRAY views LOOP
        EXECUTE command;
    END LOOP;
END $partition_tables$;

-- Those made ahead that are empty.
CREATE OR REPLACE FUNCTION litestar_jobs.drop_unused_partitions() RETURNS void LANGUAGE plpgsql AS $drop_unused$
DECLARE
    made record;
    named text;
    is_used boolean;
BEGIN
    FOR made IN SELECT label FROM litestar_jobs.partitions() WHERE begins > now() ORDER BY ends DESC LOOP
        FOREACH named IN ARRAY litestar_jobs.partitioned() LOOP
            EXECUTE 'SELECT EXISTS (SELECT FROM litestar_jobs.' || quote_ident(named || '_' || made.label) || ')' INTO is_used;
            EXIT WHEN is_used;
        END LOOP;
        EXIT WHEN is_used;
        FOREACH named IN ARRAY litestar_jobs.partitioned() LOOP
            EXECUTE 'DROP TABLE litestar_jobs.' || quote_ident(named || '_' || made.label);
        END LOOP;
    END LOOP;
END $drop_unused$;

-- Back to plain tables. All rows are copied, and nobody can use the tables meanwhile.
CREATE OR REPLACE FUNCTION litestar_jobs.unpartition_tables() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $unpartition_tables$
DECLARE
    views text[];
    command text;
    named text;
    options text;
    columns text;
BEGIN
    PERFORM litestar_jobs.alone(true);
    IF to_regclass('litestar_jobs.job_rest') IS NULL THEN
        RETURN;
    END IF;
    PERFORM litestar_jobs.lock_alone();
    views := litestar_jobs.views_over();
    FOREACH named IN ARRAY litestar_jobs.partitioned() LOOP
        options := (SELECT array_to_string(reloptions, ', ') FROM pg_class
                     WHERE oid = to_regclass('litestar_jobs.' || named || '_rest'));
        columns := litestar_jobs.columns_of(named);
        PERFORM litestar_jobs.replace_table(named, 'partitioned', COALESCE('WITH (' || options || ')', ''));
        EXECUTE 'INSERT INTO litestar_jobs.' || named || ' (' || columns || ') SELECT ' || columns
                || ' FROM litestar_jobs.' || named || '_partitioned';
    END LOOP;
    FOREACH command IN ARRAY views LOOP
        EXECUTE command;
    END LOOP;
    FOREACH named IN ARRAY litestar_jobs.partitioned() LOOP
        EXECUTE 'DROP TABLE litestar_jobs.' || named || '_partitioned';
    END LOOP;
END $unpartition_tables$;
