-- Workflows: jobs that wait for others. A step that waits is held, for the reason 'workflow', until what it waits for has
-- ended. What is known of its end is kept with the step, so that those that follow do not need its job any more.

CREATE TABLE IF NOT EXISTS litestar_jobs.workflow (
    id         uuid        NOT NULL PRIMARY KEY,
    created_at timestamptz NOT NULL,
    name       text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 250),
    trace_id   text        CHECK (char_length(trace_id) BETWEEN 1 AND 64)
);
COMMENT ON TABLE litestar_jobs.workflow IS 'Many jobs as one. Its row is also the lock of whoever leads on from its steps.';

CREATE TABLE IF NOT EXISTS litestar_jobs.step (
    id            uuid     NOT NULL PRIMARY KEY,
    workflow_id   uuid     NOT NULL,
    cancelled_for uuid,
    delay         float8   NOT NULL CHECK (delay >= 0),
    position      smallint NOT NULL,
    waits_for     smallint NOT NULL CHECK (waits_for >= 0),
    name          text     NOT NULL CHECK (char_length(name) BETWEEN 1 AND 250),
    job_type      text     NOT NULL,
    run_when      text     NOT NULL CHECK (run_when IN ('completed', 'ended')),
    takes         text     CHECK (takes IN ('result', 'all')),
    status        text     CHECK (status IN ('completed', 'failed', 'cancelled')),
    error         text,
    result        jsonb
) WITH (fillfactor = 80);
COMMENT ON TABLE litestar_jobs.step IS 'The steps of workflows; the id is that of the job.';
COMMENT ON COLUMN litestar_jobs.step.waits_for IS 'How many of those before it have not ended as it needs.';
COMMENT ON COLUMN litestar_jobs.step.takes IS 'What becomes its payload: the result of the one before it, or how all ended.';
COMMENT ON COLUMN litestar_jobs.step.status IS 'How it ended, once those after it have been told.';
COMMENT ON COLUMN litestar_jobs.step.cancelled_for IS 'The step before it whose end cancelled it.';
CREATE UNIQUE INDEX IF NOT EXISTS step_of_workflow ON litestar_jobs.step (workflow_id, position);
-- What may still have to be told: workers walk it now and then.
CREATE INDEX IF NOT EXISTS step_open ON litestar_jobs.step (id) WHERE status IS DISTINCT FROM 'completed';

CREATE TABLE IF NOT EXISTS litestar_jobs.edge (
    upstream   uuid NOT NULL,
    downstream uuid NOT NULL,
    PRIMARY KEY (upstream, downstream)
);
COMMENT ON TABLE litestar_jobs.edge IS 'Which step of a workflow comes after which.';
CREATE INDEX IF NOT EXISTS edge_downstream ON litestar_jobs.edge (downstream);
