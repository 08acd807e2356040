-- Settle every other end of an attempt, where the token still is the right one.
-- $1 ids · $2 tokens · $3 verdicts: 'failed' and 'cancelled' end the job, 'retry' counts the attempt and runs it
-- again, 'release' does not count it · $4 delays in seconds of these two · $5 error types (NULL: nothing failed)
-- $6 messages · $7 tracebacks · $8 channel to notify of jobs that may run at once.
-- One with a limit or a rate waits at its first gate; without a delay it has its old place there.
-- Answers the ids that moved; the others had lost their lease.
-- job.id = ANY(ARRAY(...)): by the primary key, whatever the statistics say, as in claim.sql.
WITH outcome AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::float8[], $5::text[], $6::text[], $7::text[])
               AS o(id, token, verdict, delay, error_type, message, traceback)
), gone AS (
    DELETE FROM litestar_jobs.running WHERE id = ANY ($1::uuid[]) AND token = ANY ($2::bigint[])
    RETURNING id, attempt, queue, started_at, worker_id
), settled AS MATERIALIZED (
    SELECT gone.*, outcome.verdict, outcome.delay, outcome.error_type, outcome.message, outcome.traceback
      FROM gone JOIN outcome USING (id)
), noted AS (
    INSERT INTO litestar_jobs.failure (id, attempt, failed_at, error_type, message, traceback)
    SELECT id, attempt, statement_timestamp(), error_type, message, traceback FROM settled WHERE error_type IS NOT NULL
), ended AS (
    INSERT INTO litestar_jobs.finished (id, status, attempts, started_at, finished_at, worker_id)
    SELECT id, verdict, attempt, started_at, statement_timestamp(), worker_id
      FROM settled WHERE verdict IN ('failed', 'cancelled')
), again AS MATERIALIZED (
    SELECT settled.id, settled.queue, job.priority, settled.delay > 0 AS waits, job.run_at AS asked_at, l.reason, l.key,
           statement_timestamp() + make_interval(secs => settled.delay) AS run_at,
           CASE verdict WHEN 'retry' THEN attempt ELSE attempt - 1 END AS attempts
      FROM settled JOIN litestar_jobs.job USING (id) LEFT JOIN LATERAL (
        SELECT reason, key FROM litestar_jobs.limited WHERE limited.id = settled.id OFFSET 0) AS l ON true
     WHERE verdict IN ('retry', 'release') AND job.id = ANY (ARRAY(SELECT id FROM settled))
), later AS (
    INSERT INTO litestar_jobs.scheduled (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM again WHERE waits
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM again WHERE NOT waits AND key IS NULL
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, asked_at, attempts, reason, key FROM again WHERE NOT waits AND key IS NOT NULL
)
SELECT settled.id,
       (SELECT pg_notify($8::text, COALESCE(reason || ':' || key, 'ready:' || queue))::text
          FROM again WHERE again.id = settled.id AND NOT waits)
  FROM settled
