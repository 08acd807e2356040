-- One job. $1 its id.
SELECT id, queue, job_type, payload::text AS payload, status, attempts, max_retries, priority, run_at, started_at,
       locked_until, finished_at, last_error, trace_id, created_at
  FROM litestar_jobs.jobs WHERE id = $1::uuid
