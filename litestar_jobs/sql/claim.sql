-- Claim jobs: from ready to running, each with a fresh token.
-- $1 queues · $2 how many of each · $3, $4, $5 lower bounds (priority, run_at, id), one of each per queue
-- $6 worker id · $7 timeouts, JSON object of job type to seconds · $8 the largest payload to read, in bytes of text:
-- a larger one is answered as NULL, so that it cannot fill the worker's memory; neither can headers.
-- Answers of each too whether it had to be begun before now (expired), and how long it is until its deadline, in seconds.
-- The lower bound keeps the scan from walking over the entries of jobs already claimed; it is only a hint.
-- Uncorrelated arrays (ctid = ANY(ARRAY(...))) always look like ten rows to the planner: it stays with the index,
-- whatever the statistics say. What was asked for is looked up one by one (OFFSET 0 keeps it apart): planned while ready is empty,
-- a join would read all of it again for each of them. A worker whose lease has ended claims nothing.
WITH picked AS MATERIALIZED (
    SELECT r.place
      FROM unnest($1::text[], $2::int[], $3::smallint[], $4::timestamptz[], $5::uuid[])
           AS q(queue, slots, priority, run_at, id)
     CROSS JOIN LATERAL (
        SELECT ready.ctid AS place
          FROM litestar_jobs.ready
         WHERE ready.queue = q.queue AND (ready.priority, ready.run_at, ready.id) >= (q.priority, q.run_at, q.id)
         ORDER BY ready.priority, ready.run_at, ready.id
         LIMIT q.slots
           FOR UPDATE SKIP LOCKED
     ) AS r
     WHERE EXISTS (SELECT FROM litestar_jobs.worker WHERE id = $6::uuid AND expires_at > statement_timestamp())
), taken AS (
    DELETE FROM litestar_jobs.ready WHERE ctid = ANY (ARRAY(SELECT place FROM picked))
    RETURNING id, queue, priority, run_at, attempts
), work AS MATERIALIZED (
    SELECT taken.id, nextval('litestar_jobs.token') AS token, (taken.attempts + 1)::smallint AS attempt, taken.queue,
           taken.priority, taken.run_at, job.job_type, job.payload::text AS payload, job.max_retries, job.trace_id,
           job.headers::text AS headers, job.created_at, job.snoozes,
           taken.attempts = 0 AND job.snoozes = 0 AND job.expires_at <= statement_timestamp() AS expired, job.deadline_at
      FROM taken CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.job WHERE job.id = taken.id OFFSET 0) AS job
), started AS (
    INSERT INTO litestar_jobs.running (id, token, queue, attempt, worker_id, started_at, deadline)
    SELECT id, token, queue, attempt, $6::uuid, statement_timestamp(),
           LEAST(statement_timestamp() + make_interval(secs => ($7::jsonb ->> job_type)::float8), deadline_at)
      FROM work
)
SELECT id, token, attempt, queue, priority, run_at, job_type, max_retries, trace_id, created_at, snoozes, expired,
       extract(epoch FROM deadline_at - statement_timestamp())::float8 AS seconds_left,
       CASE WHEN octet_length(payload) <= $8::int THEN payload END AS payload,
       CASE WHEN octet_length(headers) <= 20000 THEN headers END AS headers
  FROM work
 ORDER BY priority, run_at, id
