-- Cancel a job that has not ended. $1 its id · $2 channel to tell the worker that runs it. Answers it if it moved.
-- From now on the token of a running one is void: whatever its handler does, nothing of it is written or committed.
-- A row that somebody moves at this moment is waited for. What was let through for a start that never was gives it back.
WITH later AS (
    DELETE FROM litestar_jobs.scheduled WHERE id = $1::uuid RETURNING id, attempts
), now AS (
    DELETE FROM litestar_jobs.ready WHERE id = $1::uuid RETURNING id, attempts
), kept AS (
    DELETE FROM litestar_jobs.held WHERE id = $1::uuid RETURNING id, attempts
), stopped AS (
    DELETE FROM litestar_jobs.running WHERE id = $1::uuid RETURNING id, attempt, started_at, worker_id, token
), unused AS (
    DELETE FROM litestar_jobs.pass WHERE ctid = ANY (ARRAY(
        SELECT pass.place FROM now
         CROSS JOIN LATERAL (SELECT rate_key FROM litestar_jobs.limited WHERE limited.id = now.id OFFSET 0) AS l
         CROSS JOIN LATERAL (
            SELECT p.ctid AS place FROM litestar_jobs.pass p
             WHERE p.reason = 'rate' AND p.key = l.rate_key AND p.id = now.id AND p.started_at IS NULL
            OFFSET 0) AS pass))
), ended AS (
    INSERT INTO litestar_jobs.finished (id, status, attempts, started_at, finished_at, worker_id)
    SELECT id, 'cancelled', attempts, NULL, statement_timestamp(), NULL
      FROM (TABLE later UNION ALL TABLE now UNION ALL TABLE kept) AS pending
    UNION ALL
    SELECT id, 'cancelled', attempt, started_at, statement_timestamp(), worker_id FROM stopped
    RETURNING id
)
SELECT id, (SELECT pg_notify($2::text, 'cancel:' || token)::text FROM stopped) AS told FROM ended
