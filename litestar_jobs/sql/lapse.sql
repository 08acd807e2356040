-- Lapse: jobs that nobody began in time end as cancelled, and those whose deadline is over while they wait have failed.
-- $1, $2 of those that expired after this, by time and id · $3, $4 of those whose deadline was after this: only hints, which
-- keep the walk from all that ended before · $5 at most so many of each · $6 channel to notify · $7 what follows a failed
-- job, and $8 what its headers do not inherit, as in settle.sql.
-- An attempt that counts, or a snooze, is a beginning. Rows that somebody moves at this moment are skipped.
-- What was let through for a start that never was gives it back, as in cancel.sql.
-- Answers how many were walked over, and how far, with each job that ended, or with NULLs.
WITH expired AS MATERIALIZED (
    SELECT expires_at AS at, id FROM litestar_jobs.job
     WHERE (expires_at, id) > ($1::timestamptz, $2::uuid) AND expires_at <= statement_timestamp()
     ORDER BY expires_at, id LIMIT $5::int
), overdue AS MATERIALIZED (
    SELECT deadline_at AS at, id FROM litestar_jobs.job
     WHERE (deadline_at, id) > ($3::timestamptz, $4::uuid) AND deadline_at <= statement_timestamp()
     ORDER BY deadline_at, id LIMIT $5::int
), unbegun AS MATERIALIZED (
    SELECT id FROM litestar_jobs.job WHERE id = ANY (ARRAY(SELECT id FROM expired)) AND snoozes = 0
), later AS (
    DELETE FROM litestar_jobs.scheduled WHERE id = ANY (ARRAY(
        SELECT id FROM litestar_jobs.scheduled
         WHERE id = ANY (ARRAY(SELECT id FROM overdue))
            OR (id = ANY (ARRAY(SELECT id FROM unbegun)) AND attempts = 0) FOR UPDATE SKIP LOCKED))
    RETURNING id, queue, attempts
), now AS (
    DELETE FROM litestar_jobs.ready WHERE id = ANY (ARRAY(
        SELECT id FROM litestar_jobs.ready
         WHERE id = ANY (ARRAY(SELECT id FROM overdue))
            OR (id = ANY (ARRAY(SELECT id FROM unbegun)) AND attempts = 0) FOR UPDATE SKIP LOCKED))
    RETURNING id, queue, attempts
), kept AS (
    DELETE FROM litestar_jobs.held WHERE id = ANY (ARRAY(
        SELECT id FROM litestar_jobs.held
         WHERE id = ANY (ARRAY(SELECT id FROM overdue))
            OR (id = ANY (ARRAY(SELECT id FROM unbegun)) AND attempts = 0) FOR UPDATE SKIP LOCKED))
    RETURNING id, queue, attempts
), unused AS (
    DELETE FROM litestar_jobs.pass WHERE ctid = ANY (ARRAY(
        SELECT pass.place FROM now
         CROSS JOIN LATERAL (SELECT rate_key FROM litestar_jobs.limited WHERE limited.id = now.id OFFSET 0) AS l
         CROSS JOIN LATERAL (
            SELECT p.ctid AS place FROM litestar_jobs.pass p
             WHERE p.reason = 'rate' AND p.key = l.rate_key AND p.id = now.id AND p.started_at IS NULL
            OFFSET 0) AS pass))
), judged AS MATERIALIZED (
    SELECT over.*, job.job_type, job.trace_id, over.attempts = 0 AND EXISTS (SELECT FROM unbegun WHERE unbegun.id = over.id)
           AS is_expired
      FROM (TABLE later UNION ALL TABLE now UNION ALL TABLE kept) AS over
     CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.job WHERE job.id = over.id OFFSET 0) AS job
), lapsed AS MATERIALIZED (
    SELECT *, CASE WHEN is_expired THEN 'JobExpired' ELSE 'JobDeadline' END AS error_type,
           CASE WHEN is_expired THEN 'no attempt was begun in time'
                ELSE 'the deadline of the job was over before an attempt could begin' END AS message
      FROM judged
), noted AS (
    INSERT INTO litestar_jobs.failure (id, attempt, failed_at, error_type, message)
    SELECT id, attempts, statement_timestamp(), error_type, message FROM lapsed
), ended AS (
    INSERT INTO litestar_jobs.finished (id, status, attempts, finished_at)
    SELECT id, CASE WHEN is_expired THEN 'cancelled' ELSE 'failed' END, attempts, statement_timestamp() FROM lapsed
), follows AS MATERIALIZED (
    SELECT litestar_jobs.new_id() AS id, $7::jsonb -> job.job_type AS next, job.trace_id,
           CASE WHEN jsonb_typeof(job.headers) = 'object' THEN job.headers - $8::text[] END AS headers,
           jsonb_build_object(
               'id', job.id, 'job_type', job.job_type, 'queue', lapsed.queue, 'payload', job.payload,
               'attempts', lapsed.attempts, 'error_type', lapsed.error_type, 'message', lapsed.message,
               'trace_id', job.trace_id) AS payload
      FROM lapsed CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.job WHERE job.id = lapsed.id OFFSET 0) AS job
     WHERE NOT lapsed.is_expired AND $7::jsonb ? job.job_type
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
    SELECT pg_notify($6::text, 'ready:' || queue) FROM (SELECT DISTINCT queue FROM follow) AS queues
)
SELECT walk.*, lapsed.id, lapsed.job_type, lapsed.queue, lapsed.trace_id, lapsed.is_expired
  FROM (SELECT GREATEST((SELECT count(*) FROM expired), (SELECT count(*) FROM overdue)) AS walked,
               last_expired.at AS expired_at, last_expired.id AS expired_id,
               last_overdue.at AS overdue_at, last_overdue.id AS overdue_id, (SELECT count(*) FROM told) AS told
          FROM (SELECT true) AS always
          LEFT JOIN (SELECT at, id FROM expired ORDER BY at DESC, id DESC LIMIT 1) AS last_expired ON true
          LEFT JOIN (SELECT at, id FROM overdue ORDER BY at DESC, id DESC LIMIT 1) AS last_overdue ON true) AS walk
  LEFT JOIN lapsed ON true
