-- Cancel those of these jobs that have not ended, as cancel.sql does one. $1 ids · $2 channel to tell the workers that
-- run some. Answers those that moved.
-- Rows that somebody moves at this moment are skipped: two of these never wait for each other.
-- A notification holds less than 8,000 bytes: some hundred tokens.
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
), stopped AS (
    DELETE FROM litestar_jobs.running
     WHERE id = ANY (ARRAY(SELECT id FROM litestar_jobs.running WHERE id = ANY ($1::uuid[]) FOR UPDATE SKIP LOCKED))
    RETURNING id, attempt, started_at, worker_id, token
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
), told AS MATERIALIZED (
    SELECT pg_notify($2::text, 'cancel:' || string_agg(token::text, ','))
      FROM (SELECT token, row_number() OVER () / 300 AS part FROM stopped) AS numbered
     GROUP BY part
)
SELECT id, (SELECT count(*) FROM told) AS told FROM ended
