-- Finish jobs that went well and have a result, as complete.sql does those without.
-- $1 ids · $2 tokens · $3 results as JSON, one of each. Answers the ids that moved; the others had lost their lease.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS g(id, token, result)
), gone AS (
    DELETE FROM litestar_jobs.running WHERE id = ANY ($1::uuid[]) AND token = ANY ($2::bigint[])
    RETURNING id, token, attempt, started_at, worker_id
)
INSERT INTO litestar_jobs.finished (id, status, attempts, started_at, finished_at, worker_id, result)
SELECT gone.id, 'completed', attempt, started_at, statement_timestamp(), worker_id, result::jsonb
  FROM gone JOIN given USING (id, token)
RETURNING id
