-- Forget workflows of which no job is left: look at the next ones in the order of their ids.
-- $1 begin after this id · $2 look at so many, at the most.
-- Answers how many were seen, the last of them, and how many are gone. Many may run at once.
WITH seen AS MATERIALIZED (
    SELECT id FROM litestar_jobs.workflow WHERE id > $1::uuid ORDER BY id LIMIT $2::int
), gone AS (
    DELETE FROM litestar_jobs.workflow
     WHERE id = ANY (ARRAY(
        SELECT w.id FROM litestar_jobs.workflow w
         WHERE w.id = ANY (ARRAY(SELECT id FROM seen)) AND NOT EXISTS (
            SELECT FROM (SELECT id FROM litestar_jobs.step WHERE workflow_id = w.id OFFSET 0) AS steps
             WHERE (SELECT job.id FROM litestar_jobs.job WHERE job.id = steps.id) IS NOT NULL)
           FOR UPDATE SKIP LOCKED))
    RETURNING id
), steps AS (
    DELETE FROM litestar_jobs.step WHERE workflow_id = ANY (ARRAY(SELECT id FROM gone)) RETURNING id
), edges AS (
    DELETE FROM litestar_jobs.edge WHERE upstream = ANY (ARRAY(SELECT id FROM steps))
)
SELECT (SELECT count(*) FROM seen) AS seen, (SELECT id FROM seen ORDER BY id DESC LIMIT 1) AS last,
       (SELECT count(*) FROM gone) AS gone
