-- What waits at a gate may run.
INSERT INTO litestar_jobs.ready (id, run_at, priority, attempts, queue)
SELECT id, run_at, priority, attempts, queue FROM litestar_jobs.held WHERE key IS NOT NULL;
DELETE FROM litestar_jobs.held WHERE key IS NOT NULL;

ALTER TABLE litestar_jobs.held DROP CONSTRAINT IF EXISTS held_key;
ALTER TABLE litestar_jobs.held DROP COLUMN IF EXISTS key;
ALTER TABLE litestar_jobs.held RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
    autovacuum_vacuum_cost_delay, autovacuum_analyze_scale_factor, autovacuum_analyze_threshold);
DROP TABLE IF EXISTS litestar_jobs.limited, litestar_jobs.gate, litestar_jobs.pass;
