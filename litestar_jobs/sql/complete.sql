-- Finish jobs that went well: from running to finished, where the token still is the right one.
-- $1 ids · $2 tokens. Tokens are unique over all jobs, so "the id is in one list and the token in the other" is as
-- good as pairs, and leaves the primary key as the only way in. Answers the ids that moved; the others had lost
-- their lease.
WITH gone AS (
    DELETE FROM litestar_jobs.running WHERE id = ANY ($1::uuid[]) AND token = ANY ($2::bigint[])
    RETURNING id, attempt, started_at, worker_id
)
INSERT INTO litestar_jobs.finished (id, status, attempts, started_at, finished_at, worker_id)
SELECT id, 'completed', attempt, started_at, statement_timestamp(), worker_id FROM gone
RETURNING id
