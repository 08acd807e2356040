-- Delete those of these jobs that ended with one of these statuses, with all that belongs to them.
-- $1 ids · $2 statuses. Answers those that are gone. Rows that somebody moves at this moment are skipped.
WITH gone AS (
    DELETE FROM litestar_jobs.finished
     WHERE id = ANY (ARRAY(SELECT id FROM litestar_jobs.finished
                            WHERE id = ANY ($1::uuid[]) AND status = ANY ($2::text[]) FOR UPDATE SKIP LOCKED))
    RETURNING id
), asked AS (
    DELETE FROM litestar_jobs.job WHERE id = ANY (ARRAY(SELECT id FROM gone))
), noted AS (
    DELETE FROM litestar_jobs.failure WHERE id = ANY (ARRAY(SELECT id FROM gone))
), limited AS (
    DELETE FROM litestar_jobs.limited WHERE id = ANY (ARRAY(SELECT id FROM gone))
)
SELECT id FROM gone
