-- Hand back: jobs that a worker claimed without ever hearing the answer go back as they came. They were never begun.
-- $1 worker id · $2 the tokens that it knows. Answers what moved. No claim of this worker may be under way meanwhile.
-- Nobody is notified: who asks for this claims next.
WITH gone AS (
    DELETE FROM litestar_jobs.running WHERE worker_id = $1::uuid AND token <> ALL ($2::bigint[])
    RETURNING id, attempt, queue
)
INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
SELECT gone.id, gone.queue, job.priority, statement_timestamp(), gone.attempt - 1
  FROM gone JOIN litestar_jobs.job USING (id)
 WHERE job.id = ANY (ARRAY(SELECT id FROM gone))
RETURNING id
