-- Rescue: jobs of processes whose lease has ended, or far past their own deadline, run elsewhere. The attempt counts.
-- $1 grace beyond a deadline, in seconds · $2 channel to notify · $3 what follows a failed job, and $4 what its headers do not
-- inherit, as in settle.sql.
-- A job that is lost with its process a second time is a suspect: it may be what ends them, so it is held, until
-- release.sql lets it run without another suspect beside it. Others with a limit or a rate wait at their first gate.
-- Rows that a transaction is finishing at this moment are skipped; a later call sees what became of them.
WITH dead AS (
    DELETE FROM litestar_jobs.worker
     WHERE id IN (SELECT id FROM litestar_jobs.worker WHERE expires_at <= statement_timestamp() FOR UPDATE SKIP LOCKED)
    RETURNING id
), lost AS MATERIALIZED (
    SELECT r.id FROM litestar_jobs.running r
     WHERE NOT EXISTS (SELECT FROM litestar_jobs.worker w
                        WHERE w.id = r.worker_id AND w.expires_at > statement_timestamp())
        OR r.deadline < statement_timestamp() - make_interval(secs => $1::float8)
       FOR UPDATE OF r SKIP LOCKED
), gone AS (
    DELETE FROM litestar_jobs.running WHERE id = ANY (ARRAY(SELECT id FROM lost))
    RETURNING id, attempt, queue, started_at, worker_id, deadline
), seen AS MATERIALIZED (
    SELECT gone.*, job.priority, job.run_at, job.job_type, job.trace_id, l.reason, l.key,
           gone.attempt > job.max_retries AS was_last,
           COALESCE(gone.deadline < statement_timestamp() - make_interval(secs => $1::float8), false) AS overdue,
           (SELECT count(*) FROM litestar_jobs.failure f WHERE f.id = gone.id AND f.error_type = 'WorkerLost') AS before
      FROM gone CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.job WHERE job.id = gone.id OFFSET 0) AS job
      LEFT JOIN LATERAL (SELECT reason, key FROM litestar_jobs.limited WHERE limited.id = gone.id OFFSET 0) AS l ON true
), judged AS MATERIALIZED (
    SELECT *, before > 0 AND NOT overdue AND NOT was_last AS suspect,
           CASE WHEN overdue THEN 'JobTimeout' ELSE 'WorkerLost' END AS error_type,
           CASE WHEN overdue THEN 'the attempt was still running long after its timeout'
                WHEN before = 0 THEN 'the process that ran it stopped renewing its lease'
                ELSE format('its process ended while it ran, %s times now: the job may be what ends it', before + 1)
           END AS message
      FROM seen
), noted AS (
    INSERT INTO litestar_jobs.failure (id, attempt, failed_at, error_type, message)
    SELECT id, attempt, statement_timestamp(), error_type, message FROM judged
), ended AS (
    INSERT INTO litestar_jobs.finished (id, status, attempts, started_at, finished_at, worker_id)
    SELECT id, 'failed', attempt, started_at, statement_timestamp(), worker_id FROM judged WHERE was_last
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, CASE WHEN suspect THEN statement_timestamp() ELSE run_at END, attempt,
           CASE WHEN suspect THEN 'suspect' ELSE reason END, CASE WHEN NOT suspect THEN key END
      FROM judged WHERE suspect OR NOT was_last AND key IS NOT NULL
), again AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, statement_timestamp(), attempt FROM judged
     WHERE NOT was_last AND NOT suspect AND key IS NULL
), follows AS MATERIALIZED (
    SELECT litestar_jobs.new_id() AS id, $3::jsonb -> job.job_type AS next, job.trace_id,
           CASE WHEN jsonb_typeof(job.headers) = 'object' THEN job.headers - $4::text[] END AS headers,
           jsonb_build_object(
               'id', job.id, 'job_type', job.job_type, 'queue', judged.queue, 'payload', job.payload,
               'attempts', judged.attempt, 'error_type', judged.error_type, 'message', judged.message,
               'trace_id', job.trace_id) AS payload
      FROM judged CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.job WHERE job.id = judged.id OFFSET 0) AS job
     WHERE judged.was_last AND $3::jsonb ? job.job_type
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
    SELECT pg_notify($2::text, message)
      FROM (SELECT COALESCE(reason || ':' || key, 'ready:' || queue) AS message FROM judged WHERE NOT was_last AND NOT suspect
            UNION
            SELECT 'ready:' || queue FROM follow) AS news
)
SELECT id, job_type, queue, attempt, trace_id, worker_id, was_last, overdue, suspect,
       (SELECT count(*) FROM told) AS told
  FROM judged
