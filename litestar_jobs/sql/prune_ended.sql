-- Delete failed or cancelled jobs that have been kept long enough, those that ended first before the others.
-- $1 'failed' or 'cancelled' · $2 kept for so many seconds · $3 none that ended before this: a hint, which keeps the
-- scan from walking over the entries of those that were deleted a moment ago · $4 at most so many.
-- Answers how many are gone, and when the last of them had ended. Many may run at once.
WITH expired AS MATERIALIZED (
    SELECT id FROM litestar_jobs.finished
     WHERE status = $1::text AND status <> 'completed' AND finished_at >= $3::timestamptz
       AND finished_at <= statement_timestamp() - make_interval(secs => $2::float8)
     ORDER BY finished_at
     LIMIT $4::int
       FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM litestar_jobs.finished WHERE id = ANY (ARRAY(SELECT id FROM expired)) RETURNING id, finished_at
), asked AS (
    DELETE FROM litestar_jobs.job WHERE id = ANY (ARRAY(SELECT id FROM gone))
), noted AS (
    DELETE FROM litestar_jobs.failure WHERE id = ANY (ARRAY(SELECT id FROM gone))
), limited AS (
    DELETE FROM litestar_jobs.limited WHERE id = ANY (ARRAY(SELECT id FROM gone))
)
SELECT count(*) AS gone, max(finished_at) AS last FROM gone
