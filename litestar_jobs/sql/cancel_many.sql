-- Cancel those of these jobs that do not run yet. $1 ids. Answers those that moved.
-- Rows that somebody moves at this moment are skipped: two of these never wait for each other.
WITH later AS (
    DELETE FROM litestar_jobs.scheduled
     WHERE id = ANY (ARRAY(SELECT id FROM litestar_jobs.scheduled WHERE id = ANY ($1::uuid[]) FOR UPDATE SKIP LOCKED))
    RETURNING id, attempts
), now AS (
    DELETE FROM litestar_jobs.ready
     WHERE id = ANY (ARRAY(SELECT id FROM litestar_jobs.ready WHERE id = ANY ($1::uuid[]) FOR UPDATE SKIP LOCKED))
    RETURNING id, attempts
), kept AS (
    DELETE FROM litestar_jobs.held
     WHERE id = ANY (ARRAY(SELECT id FROM litestar_jobs.held WHERE id = ANY ($1::uuid[]) FOR UPDATE SKIP LOCKED))
    RETURNING id, attempts
)
INSERT INTO litestar_jobs.finished (id, status, attempts, finished_at)
SELECT id, 'cancelled', attempts, statement_timestamp()
  FROM (TABLE later UNION ALL TABLE now UNION ALL TABLE kept) AS pending
RETURNING id
