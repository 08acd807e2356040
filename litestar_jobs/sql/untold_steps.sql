-- Steps that have ended and whose end nobody has noted: whoever ended them died before, or is older than workflows.
-- $1 begin after this id · $2 look at so many, at the most. Answers how many were seen, the last of them, and those.
WITH seen AS MATERIALIZED (
    SELECT id, status FROM litestar_jobs.step
     WHERE id > $1::uuid AND status IS DISTINCT FROM 'completed'
     ORDER BY id
     LIMIT $2::int
), judged AS (
    SELECT id, status, (SELECT finished.status FROM litestar_jobs.finished WHERE finished.id = seen.id) AS ended
      FROM seen
)
SELECT count(*) AS seen, (SELECT id FROM seen ORDER BY id DESC LIMIT 1) AS last,
       COALESCE(array_agg(id) FILTER (WHERE ended <> status OR status IS NULL AND (
           ended IS NOT NULL OR (SELECT job.id FROM litestar_jobs.job WHERE job.id = judged.id) IS NULL)), '{}') AS untold
  FROM judged
