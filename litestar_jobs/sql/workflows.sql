-- Workflows, newest first, and how many of their steps are where. $1 the ids of some, or NULL: all · $2 at most so many.
-- A step whose job was deleted after its end keeps what was noted of it.
SELECT w.id, w.name, w.created_at, w.trace_id, steps.*,
       CASE WHEN waiting + active > 0 THEN 'running' WHEN failed > 0 THEN 'failed' WHEN cancelled > 0 THEN 'cancelled'
            ELSE 'completed' END AS status
  FROM (SELECT * FROM litestar_jobs.workflow
         WHERE $1::uuid[] IS NULL OR id = ANY ($1)
         ORDER BY id DESC LIMIT $2::int) AS w
 CROSS JOIN LATERAL (
    SELECT count(*) AS steps, count(*) FILTER (WHERE place = 'waiting') AS waiting,
           count(*) FILTER (WHERE place = 'active') AS active, count(*) FILTER (WHERE place = 'completed') AS completed,
           count(*) FILTER (WHERE place = 'failed') AS failed, count(*) FILTER (WHERE place = 'cancelled') AS cancelled
      FROM (SELECT COALESCE((SELECT finished.status FROM litestar_jobs.finished WHERE finished.id = step.id),
                            (SELECT 'waiting' FROM litestar_jobs.held WHERE held.id = step.id AND reason = 'workflow'),
                            (SELECT 'active' FROM litestar_jobs.job WHERE job.id = step.id),
                            step.status, 'cancelled') AS place
              FROM litestar_jobs.step WHERE step.workflow_id = w.id OFFSET 0) AS places) AS steps
 ORDER BY w.id DESC
