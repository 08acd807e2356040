-- Nobody would let the waiting steps go any more, and they must not run before the others.
WITH gone AS (DELETE FROM litestar_jobs.held WHERE reason = 'workflow' RETURNING id, attempts)
INSERT INTO litestar_jobs.finished (id, status, attempts, finished_at)
SELECT id, 'cancelled', attempts, now() FROM gone;

DROP TABLE IF EXISTS litestar_jobs.edge, litestar_jobs.step, litestar_jobs.workflow;
