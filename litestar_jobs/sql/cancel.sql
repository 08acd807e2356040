-- Cancel a job that does not run yet. $1 its id. Answers it if it moved.
WITH later AS (
    DELETE FROM litestar_jobs.scheduled WHERE id = $1::uuid RETURNING id, attempts
), now AS (
    DELETE FROM litestar_jobs.ready WHERE id = $1::uuid RETURNING id, attempts
), kept AS (
    DELETE FROM litestar_jobs.held WHERE id = $1::uuid RETURNING id, attempts
)
INSERT INTO litestar_jobs.finished (id, status, attempts, finished_at)
SELECT id, 'cancelled', attempts, statement_timestamp() FROM (TABLE later UNION ALL TABLE now UNION ALL TABLE kept) AS pending
RETURNING id
