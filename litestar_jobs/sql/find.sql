-- Jobs by filter, newest first. $1 status or NULL · $2 queue or NULL · $3 job type or NULL · $4 at most so many.
SELECT id, queue, job_type, payload::text AS payload, status, attempts, max_retries, priority, run_at, started_at,
       locked_until, finished_at, last_error, trace_id, created_at, result::text AS result,
       progress, progress_message
  FROM litestar_jobs.jobs
 WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR queue = $2) AND ($3::text IS NULL OR job_type = $3)
 ORDER BY id DESC
 LIMIT $4::int
