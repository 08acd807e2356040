-- Settle every other end of an attempt, where the token still is the right one.
-- $1 ids · $2 tokens · $3 verdicts: 'failed' and 'cancelled' end the job; 'retry' counts the attempt and runs it again;
-- 'release' does not count it, and neither does 'snooze', which is counted itself; 'expired' and 'overdue' end a job, as
-- cancelled and as failed, of which this attempt was never begun · $4 delays in seconds of those that run again
-- $5 error types (NULL: nothing failed) · $6 messages · $7 tracebacks · $8 channel to notify of jobs that may run at once
-- $9 what follows a failed job: JSON object of job types to job_type, queue, priority and max_retries of another job
-- $10 what its headers do not inherit.
-- Answers the ids that moved; the others had lost their lease.
-- Jobs are looked up one by one, whatever the statistics say, as in claim.sql.
WITH outcome AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::float8[], $5::text[], $6::text[], $7::text[])
               AS o(id, token, verdict, delay, error_type, message, traceback)
), gone AS (
    DELETE FROM litestar_jobs.running WHERE id = ANY ($1::uuid[]) AND token = ANY ($2::bigint[])
    RETURNING id, attempt, queue, started_at, worker_id
), settled AS MATERIALIZED (
    SELECT gone.id, gone.queue, outcome.verdict, outcome.delay, outcome.error_type, outcome.message, outcome.traceback,
           gone.attempt - (verdict IN ('release', 'snooze', 'expired', 'overdue'))::int AS attempts,
           CASE WHEN verdict NOT IN ('expired', 'overdue') THEN gone.started_at END AS started_at, gone.worker_id,
           CASE verdict WHEN 'expired' THEN 'cancelled' WHEN 'overdue' THEN 'failed' ELSE verdict END AS becomes
      FROM gone JOIN outcome USING (id)
), noted AS (
    INSERT INTO litestar_jobs.failure (id, attempt, failed_at, error_type, message, traceback)
    SELECT id, attempts, statement_timestamp(), error_type, message, traceback FROM settled WHERE error_type IS NOT NULL
), ended AS (
    INSERT INTO litestar_jobs.finished (id, status, attempts, started_at, finished_at, worker_id)
    SELECT id, becomes, attempts, started_at, statement_timestamp(), worker_id
      FROM settled WHERE becomes IN ('failed', 'cancelled')
), again AS MATERIALIZED (
    SELECT settled.id, settled.queue, job.priority, settled.delay > 0 AS waits, job.run_at AS asked_at, l.reason, l.key,
           statement_timestamp() + make_interval(secs => settled.delay) AS run_at, settled.attempts
      FROM settled CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.job WHERE job.id = settled.id OFFSET 0) AS job
      LEFT JOIN LATERAL (SELECT reason, key FROM litestar_jobs.limited WHERE limited.id = settled.id OFFSET 0) AS l ON true
     WHERE verdict IN ('retry', 'release', 'snooze')
), snoozed AS (
    UPDATE litestar_jobs.job SET snoozes = LEAST(snoozes + 1, 32767)
     WHERE id = ANY (ARRAY(SELECT id FROM settled WHERE verdict = 'snooze'))
), later AS (
    INSERT INTO litestar_jobs.scheduled (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM again WHERE waits
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM again WHERE NOT waits AND key IS NULL
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, asked_at, attempts, reason, key FROM again WHERE NOT waits AND key IS NOT NULL
), follows AS MATERIALIZED (
    SELECT litestar_jobs.new_id() AS id, $9::jsonb -> job.job_type AS next, job.trace_id,
           CASE WHEN jsonb_typeof(job.headers) = 'object' THEN job.headers - $10::text[] END AS headers,
           jsonb_build_object(
               'id', job.id, 'job_type', job.job_type, 'queue', settled.queue, 'payload', job.payload,
               'attempts', settled.attempts, 'error_type', COALESCE(settled.error_type, ''),
               'message', COALESCE(settled.message, ''), 'trace_id', job.trace_id) AS payload
      FROM settled CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.job WHERE job.id = settled.id OFFSET 0) AS job
     WHERE settled.becomes = 'failed' AND $9::jsonb ? job.job_type
), follow AS (
    INSERT INTO litestar_jobs.job
           (id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, created_at)
    SELECT id, next ->> 'queue', next ->> 'job_type', payload, (next ->> 'priority')::smallint,
           (next ->> 'max_retries')::smallint, trace_id, headers, statement_timestamp(), statement_timestamp()
      FROM follows
    RETURNING id, queue, priority, run_at
), follow_now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, 0 FROM follow
), told AS MATERIALIZED (
    SELECT pg_notify($8::text, message)
      FROM (SELECT COALESCE(reason || ':' || key, 'ready:' || queue) AS message FROM again WHERE NOT waits
            UNION
            SELECT 'ready:' || queue FROM follow) AS news
)
SELECT id, (SELECT count(*) FROM told) AS told FROM settled
