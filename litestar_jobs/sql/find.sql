-- Jobs by filter, newest first. A condition that is NULL is none.
-- $1 to $8 ($2, $3, $4, $5, $6, $7) as in matching.sql · $9 of ids smaller than this · $10 at most so many.
SELECT id, queue, job_type, payload::text AS payload, status, attempts, max_retries, priority, run_at, started_at,
       locked_until, finished_at, last_error, trace_id, created_at, result::text AS result,
       progress, progress_message,
       expires_at, deadline_at, snoozes
  FROM litestar_jobs.jobs
 WHERE status = ANY ($1::text[]) AND ($2::text IS NULL OR queue = $2) AND ($3::text IS NULL OR job_type = $3)
   AND ($4::timestamptz IS NULL OR created_at < $4)
   AND ($5::float8 IS NULL OR created_at <= statement_timestamp() - make_interval(secs => $5))
   AND ($6::text IS NULL OR strpos(lower(last_error), lower($6)) > 0)
   AND ($7::text IS NULL OR trace_id = $7) AND ($8::uuid[] IS NULL OR id = ANY ($8))
   AND ($9::uuid IS NULL OR id < $9)
 ORDER BY id DESC
 LIMIT $10::int
