-- Jobs by id. $1 their ids. Looked up one by one (LATERAL, kept apart by OFFSET 0): joined with a list, the states would
-- be read whole.
SELECT found.* FROM unnest($1::uuid[]) AS asked(id) CROSS JOIN LATERAL (
    SELECT id, queue, job_type, payload::text AS payload, status, attempts, max_retries, priority, run_at, started_at,
           locked_until, finished_at, last_error, trace_id, created_at, result::text AS result, progress, progress_message,
           expires_at, deadline_at, snoozes
      FROM litestar_jobs.jobs WHERE jobs.id = asked.id OFFSET 0) AS found
