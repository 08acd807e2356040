-- What each kind of role may do. Run as the owner of the schema, and again after each `litestar jobs upgrade`.
-- The roles are groups: CREATE ROLE jobs_work NOLOGIN; GRANT jobs_work TO the_role_of_the_worker;

GRANT USAGE ON SCHEMA litestar_jobs TO jobs_enqueue, jobs_work, jobs_read, jobs_operate;
GRANT SELECT ON litestar_jobs.migration TO jobs_enqueue, jobs_work, jobs_read, jobs_operate;

-- Enqueue, and look at nothing, not even at what it has enqueued.
GRANT INSERT ON litestar_jobs.job, litestar_jobs.ready, litestar_jobs.scheduled, litestar_jobs.held, litestar_jobs.limited,
    litestar_jobs.workflow, litestar_jobs.step, litestar_jobs.edge TO jobs_enqueue;
GRANT SELECT (run_at) ON litestar_jobs.job TO jobs_enqueue;
GRANT SELECT (id, reason, key) ON litestar_jobs.held, litestar_jobs.limited TO jobs_enqueue;
-- Of unique jobs also the ids of those before them, and in which state they are.
GRANT SELECT (id) ON litestar_jobs.job, litestar_jobs.running, litestar_jobs.finished TO jobs_enqueue;
GRANT SELECT, INSERT, UPDATE ON litestar_jobs.unique_key TO jobs_enqueue;

-- Work: move jobs from state to state, and delete those that were kept long enough. Of what was asked for only the number of
-- snoozes changes, and limits in time: a step of a workflow gets its own when it waits no more, a retry by hand forgets them.
GRANT SELECT ON ALL TABLES IN SCHEMA litestar_jobs TO jobs_work;
GRANT INSERT, DELETE ON litestar_jobs.job, litestar_jobs.failure TO jobs_work;
GRANT INSERT, UPDATE, DELETE ON litestar_jobs.ready, litestar_jobs.scheduled, litestar_jobs.running,
    litestar_jobs.finished, litestar_jobs.held, litestar_jobs.suspect, litestar_jobs.worker, litestar_jobs.schedule,
    litestar_jobs.progress, litestar_jobs.unique_key, litestar_jobs.limited, litestar_jobs.gate, litestar_jobs.pass,
    litestar_jobs.workflow, litestar_jobs.step, litestar_jobs.edge TO jobs_work;
GRANT UPDATE (snoozes, expires_at, deadline_at) ON litestar_jobs.job TO jobs_work;
GRANT USAGE ON SEQUENCE litestar_jobs.token TO jobs_work;
-- Where the tables are partitioned: what was kept long enough is dropped with the rights of the owner.
GRANT EXECUTE ON FUNCTION litestar_jobs.make_partition(), litestar_jobs.drop_partition(text, float8, float8, float8)
    TO jobs_work, jobs_operate;

-- Replace: what enqueues and works needs this too if unique jobs replace or reschedule those that are pending.
GRANT SELECT, INSERT, DELETE ON litestar_jobs.ready, litestar_jobs.scheduled, litestar_jobs.held TO jobs_replace;
GRANT SELECT, INSERT, UPDATE, DELETE ON litestar_jobs.limited TO jobs_replace;
GRANT SELECT, DELETE ON litestar_jobs.pass TO jobs_replace;
GRANT SELECT, UPDATE (payload, queue, priority, max_retries, run_at, expires_at, deadline_at) ON litestar_jobs.job TO jobs_replace;

-- Read: payloads, errors and tracebacks too.
GRANT SELECT ON ALL TABLES IN SCHEMA litestar_jobs TO jobs_read, jobs_operate;

-- Operate: cancel, retry, move, delete and prune. UPDATE is for locking rows; of what was asked for, a move changes
-- the queue and the priority, and a retry begins to count anew.
GRANT INSERT, UPDATE, DELETE ON litestar_jobs.finished, litestar_jobs.ready, litestar_jobs.scheduled, litestar_jobs.held
    TO jobs_operate;
GRANT UPDATE, DELETE ON litestar_jobs.running TO jobs_operate;
GRANT UPDATE (queue, priority, snoozes, expires_at, deadline_at), DELETE ON litestar_jobs.job TO jobs_operate;
GRANT DELETE ON litestar_jobs.failure, litestar_jobs.limited, litestar_jobs.pass TO jobs_operate;
-- When a step of a workflow is cancelled, others go on: what they take over is written with their jobs.
GRANT UPDATE ON litestar_jobs.workflow, litestar_jobs.step TO jobs_operate;
GRANT INSERT ON litestar_jobs.job, litestar_jobs.failure TO jobs_operate;
GRANT INSERT, UPDATE ON litestar_jobs.queue TO jobs_operate;
