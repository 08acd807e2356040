-- Workflows, newest first, with how many of their steps are where.
-- $1 the ids of some, or NULL: all · $2 of ids smaller than this, or NULL · $3 at most so many.
-- Of a step that has ended its job says so; a job that is deleted is known by its step.
SELECT w.id, w.name, w.created_at, w.trace_id, steps.*
  FROM (SELECT * FROM litestar_jobs.workflow
         WHERE ($1::uuid[] IS NULL OR id = ANY ($1)) AND ($2::uuid IS NULL OR id < $2)
         ORDER BY id DESC LIMIT $3::int) AS w
 CROSS JOIN LATERAL (
    SELECT count(*) AS steps, count(*) FILTER (WHERE now.status = 'waiting') AS waiting,
           count(*) FILTER (WHERE now.status = 'active') AS active,
           count(*) FILTER (WHERE now.status = 'completed') AS completed,
           count(*) FILTER (WHERE now.status = 'failed') AS failed,
           count(*) FILTER (WHERE now.status = 'cancelled') AS cancelled
      FROM litestar_jobs.step
     CROSS JOIN LATERAL (
        SELECT COALESCE((SELECT finished.status FROM litestar_jobs.finished WHERE finished.id = step.id),
                        (SELECT 'waiting' FROM litestar_jobs.held WHERE held.id = step.id AND reason = 'workflow'),
                        (SELECT 'active' FROM litestar_jobs.job WHERE job.id = step.id),
                        step.status, 'cancelled') AS status) AS now
     WHERE step.workflow_id = w.id) AS steps
 ORDER BY w.id DESC
