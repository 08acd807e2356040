-- Write jobs of which something special is asked; the plain ones go through enqueue.sql and its like.
-- $1 JSON array of objects, one a job · $2 channel to notify of it, or NULL: the caller wakes workers after its commit.
-- Keys of an object: id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at or NULL, delay in
-- seconds, where run_at is NULL; of a unique job key, until, within in seconds or NULL, on_conflict.
-- Answers for each: the id asked for, the id that counts, whether it is new, and the queue in which it may run in so many
-- seconds (NULL: workers need not be told). Where the id that counts is NULL nothing was written for a job, which met
-- another transaction and is to be asked for again, in another statement. Ids are text: some drivers give no UUIDs.
--
-- A key is free if the job that had it last was seen to have ended (or started, or to be deleted), and is that still when
-- the row of the key is locked: whoever wrote another job there meanwhile, which this statement cannot see, has it.
-- A pending job is changed by deleting it from where it waits, as a claim does: whoever comes second finds nothing.
-- Of several with one key in one statement, the first takes the key, or the last one changes the job that holds it.
WITH asked AS MATERIALIZED (
    SELECT a.n, a.id, a.queue, a.job_type, COALESCE(a.payload, 'null') AS payload, a.priority, a.max_retries, a.trace_id,
           a.headers, COALESCE(a.run_at, statement_timestamp() + make_interval(secs => a.delay)) AS run_at,
           a.key, a.until, a.within, a.on_conflict
      FROM ROWS FROM (jsonb_to_recordset($1::text::jsonb)
               AS (id uuid, queue text, job_type text, payload jsonb, priority smallint, max_retries smallint,
                   trace_id text, headers jsonb, run_at timestamptz, delay float8,
                   key uuid, until text, within float8, on_conflict text))
           WITH ORDINALITY
           AS a(id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, delay,
                key, until, within, on_conflict, n)
), seen AS MATERIALIZED (
    SELECT k.key, k.id, k.until, (k.kept_until > statement_timestamp()) IS TRUE AS is_kept,
           (SELECT true FROM litestar_jobs.running WHERE running.id = k.id) IS TRUE AS is_running,
           (SELECT true FROM litestar_jobs.finished WHERE finished.id = k.id) IS TRUE
           OR (SELECT true FROM litestar_jobs.job WHERE job.id = k.id) IS NULL AS is_over
      FROM litestar_jobs.unique_key k
     WHERE k.key = ANY (ARRAY(SELECT key FROM asked WHERE key IS NOT NULL))
), holder AS MATERIALIZED (
    SELECT key, id, NOT is_running AND NOT is_over AS is_pending,
           is_kept OR NOT (is_over OR is_running AND until = 'started') AS holds
      FROM seen
), taken AS (
    INSERT INTO litestar_jobs.unique_key AS k (key, id, follows, kept_until, until)
    SELECT DISTINCT ON (asked.key) asked.key, asked.id, holder.id,
           statement_timestamp() + make_interval(secs => asked.within), asked.until
      FROM asked LEFT JOIN holder USING (key)
     WHERE asked.key IS NOT NULL AND holder.holds IS NOT TRUE
     ORDER BY asked.key, asked.n
    ON CONFLICT (key) DO UPDATE SET id = EXCLUDED.id, follows = EXCLUDED.follows, kept_until = EXCLUDED.kept_until,
                                    until = EXCLUDED.until
     WHERE k.id = EXCLUDED.follows
    RETURNING id
), new AS MATERIALIZED (
    SELECT * FROM asked WHERE key IS NULL OR id IN (SELECT id FROM taken)
), change AS MATERIALIZED (
    SELECT DISTINCT ON (holder.id) holder.id, asked.on_conflict = 'replace' AS replaces, asked.queue, asked.payload,
           asked.priority, asked.max_retries, asked.run_at
      FROM asked JOIN holder USING (key)
     WHERE holder.is_pending AND asked.on_conflict IN ('replace', 'reschedule')
     ORDER BY holder.id, asked.n DESC
), from_later AS (
    DELETE FROM litestar_jobs.scheduled WHERE id = ANY (ARRAY(SELECT id FROM change)) RETURNING id, priority, attempts, queue
), from_now AS (
    DELETE FROM litestar_jobs.ready WHERE id = ANY (ARRAY(SELECT id FROM change)) RETURNING id, priority, attempts, queue
), from_held AS (
    DELETE FROM litestar_jobs.held WHERE id = ANY (ARRAY(SELECT id FROM change))
    RETURNING id, priority, attempts, queue, reason
), changed AS MATERIALIZED (
    SELECT id, change.replaces, change.payload, change.max_retries, change.run_at, was.reason,
           CASE WHEN change.replaces THEN change.priority ELSE was.priority END AS priority,
           CASE WHEN change.replaces THEN 0 ELSE was.attempts END AS attempts,
           CASE WHEN change.replaces THEN change.queue ELSE was.queue END AS queue
      FROM change
      JOIN (SELECT id, priority, attempts, queue, NULL AS reason FROM from_later
            UNION ALL SELECT id, priority, attempts, queue, NULL FROM from_now
            UNION ALL TABLE from_held) AS was USING (id)
), written AS (
    INSERT INTO litestar_jobs.job
           (id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, created_at)
    SELECT id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, statement_timestamp()
      FROM new
), rewritten AS (
    UPDATE litestar_jobs.job
       SET payload = CASE WHEN changed.replaces THEN changed.payload ELSE job.payload END,
           max_retries = CASE WHEN changed.replaces THEN changed.max_retries ELSE job.max_retries END,
           priority = changed.priority, queue = changed.queue, run_at = changed.run_at
      FROM changed
     WHERE job.id = changed.id AND job.id = ANY (ARRAY(SELECT id FROM changed))
), pending AS MATERIALIZED (
    SELECT id, queue, priority, run_at, 0 AS attempts FROM new
    UNION ALL
    SELECT id, queue, priority, run_at, attempts FROM changed WHERE reason IS NULL
), later AS (
    INSERT INTO litestar_jobs.scheduled (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM pending WHERE run_at > statement_timestamp()
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM pending WHERE run_at <= statement_timestamp()
), held_on AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason)
    SELECT id, queue, priority, run_at, attempts, reason FROM changed WHERE reason IS NOT NULL
), told AS MATERIALIZED (
    SELECT pg_notify($2::text, message)
      FROM (SELECT DISTINCT 'ready:' || queue AS message FROM pending WHERE run_at <= statement_timestamp()
            UNION ALL
            SELECT 'due:' || extract(epoch FROM min(run_at) - statement_timestamp())
              FROM pending WHERE run_at > statement_timestamp() HAVING min(run_at) IS NOT NULL) AS news
     WHERE $2 IS NOT NULL
), answer AS (
    SELECT asked.id AS asked, new.id IS NOT NULL AS is_new,
           CASE WHEN new.id IS NOT NULL THEN new.id
                WHEN holder.is_pending AND asked.on_conflict IN ('replace', 'reschedule') THEN changed.id
                WHEN holder.holds THEN holder.id END AS counts
      FROM asked
      LEFT JOIN new ON new.id = asked.id
      LEFT JOIN holder ON holder.key = asked.key
      LEFT JOIN changed ON changed.id = holder.id
)
SELECT answer.asked::text AS asked, answer.counts::text AS counts, answer.is_new, pending.queue,
       extract(epoch FROM pending.run_at - statement_timestamp())::float8 AS delay, (SELECT count(*) FROM told) AS told
  FROM answer
  LEFT JOIN pending ON pending.id = answer.counts AND (answer.is_new OR pending.id IN (SELECT id FROM changed))
