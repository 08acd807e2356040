-- Write jobs of which something special is asked; the plain ones go through enqueue.sql and its like.
-- $1 JSON array of objects, one a job · $2 channel to notify of it, or NULL: the caller wakes workers after its commit.
-- $3 how long to wait for the transactions of others, as a lock_timeout for this transaction, or NULL: as it is set.
-- Keys of an object: id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at or NULL, delay in
-- seconds, where run_at is NULL; expires_in and deadline in seconds or NULL: the one counts from when the job may run, the
-- other from now; of a unique job key, until, and within in seconds or NULL; limit_key and concurrency, rate_key, rate and
-- per, where there is a limit or a rate.
-- Answers for each: the id asked for, the id that counts, whether it is new, whether it is another one that is pending,
-- the queue in which it may run in so many seconds, or the gate at which it waits now (both NULL: workers need not be
-- told). Where the id that counts is NULL
-- nothing was written for a job, which met another transaction and is to be asked for again, in another statement. Ids
-- are text: some drivers give no UUIDs.
-- A key is free if the job that had it last was seen to have ended (or started, or to be deleted), and is still that one
-- when the row of the key is locked: whoever wrote another job there meanwhile, which this statement cannot see, has it.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', $3::text, true) WHERE $3 IS NOT NULL
), asked AS MATERIALIZED (
    SELECT a.ordinality, a.id, a.queue, a.job_type, COALESCE(a.payload, 'null') AS payload, a.priority, a.max_retries,
           a.trace_id, a.headers, COALESCE(a.run_at, statement_timestamp() + make_interval(secs => a.delay)) AS run_at,
           a.expires_in, a.deadline, a.key, a.until, a.within, a.limit_key, a.rate_key, a.concurrency, a.rate, a.per
      FROM ROWS FROM (jsonb_to_recordset($1::text::jsonb)
               AS (id uuid, queue text, job_type text, payload jsonb, priority smallint, max_retries smallint,
                   trace_id text, headers jsonb, run_at timestamptz, delay float8,
                   expires_in float8, deadline float8, key uuid, until text, within float8,
                   limit_key text, rate_key text, concurrency int, rate int, per float8)) WITH ORDINALITY AS a
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
     WHERE asked.key IS NOT NULL AND holder.holds IS NOT TRUE AND (SELECT count(*) FROM patience) >= 0
     ORDER BY asked.key, asked.ordinality
    ON CONFLICT (key) DO UPDATE SET id = EXCLUDED.id, follows = EXCLUDED.follows, kept_until = EXCLUDED.kept_until,
                                    until = EXCLUDED.until
     WHERE k.id = EXCLUDED.follows
    RETURNING id
), new AS MATERIALIZED (
    SELECT * FROM asked WHERE key IS NULL OR id IN (SELECT id FROM taken)
), written AS (
    INSERT INTO litestar_jobs.job
           (id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, created_at, expires_at,
            deadline_at)
    SELECT id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, statement_timestamp(),
           GREATEST(run_at, statement_timestamp()) + make_interval(secs => expires_in),
           statement_timestamp() + make_interval(secs => deadline)
      FROM new
), gated AS (
    INSERT INTO litestar_jobs.limited (id, limit_key, rate_key, concurrency, rate, per)
    SELECT id, limit_key, rate_key, concurrency, rate, per FROM new WHERE COALESCE(limit_key, rate_key) IS NOT NULL
    RETURNING id, reason, key
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, run_at, 0, gated.reason, gated.key FROM new JOIN gated USING (id)
     WHERE run_at <= statement_timestamp()
    RETURNING id, reason || ':' || key AS gate
), later AS (
    INSERT INTO litestar_jobs.scheduled (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, 0 FROM new WHERE run_at > statement_timestamp()
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, 0 FROM new
     WHERE run_at <= statement_timestamp() AND COALESCE(limit_key, rate_key) IS NULL
), told AS MATERIALIZED (
    SELECT pg_notify($2::text, message)
      FROM (SELECT DISTINCT COALESCE(gate, 'ready:' || queue) AS message FROM new LEFT JOIN kept USING (id)
             WHERE run_at <= statement_timestamp()
            UNION ALL
            SELECT 'due:' || extract(epoch FROM min(run_at) - statement_timestamp())
              FROM new WHERE run_at > statement_timestamp() HAVING min(run_at) IS NOT NULL) AS news
     WHERE $2 IS NOT NULL
)
SELECT asked.id::text AS asked, CASE WHEN new.id IS NOT NULL THEN new.id WHEN holder.holds THEN holder.id END::text AS counts,
       new.id IS NOT NULL AS is_new, new.id IS NULL AND holder.is_pending IS TRUE AS is_pending,
       CASE WHEN kept.gate IS NULL THEN new.queue END AS queue, kept.gate,
       extract(epoch FROM new.run_at - statement_timestamp())::float8 AS delay, (SELECT count(*) FROM told) AS told
  FROM asked
  LEFT JOIN new ON new.id = asked.id
  LEFT JOIN kept ON kept.id = asked.id
  LEFT JOIN holder ON holder.key = asked.key
