-- Note how steps have ended, and cancel those that need one to complete which did not, those that need these, and so on.
-- $1 ids of jobs: steps or not, ended or not. Their workflows are locked.
-- An end is noted once; of a step that failed, was retried and has completed by now, also the second. One whose job was
-- deleted before anybody noted its end counts as cancelled.
-- Scalar sub-selects, and LATERAL kept apart by OFFSET 0, go by the primary keys, whatever the statistics say.
-- Answers what was noted: how it ended, whether it had ended before, and of those that this has cancelled the reason.
WITH RECURSIVE seen AS MATERIALIZED (
    SELECT step.id, step.status AS before, job_end.result,
           COALESCE(job_end.status, CASE WHEN step.status IS NULL AND (
               SELECT job.id FROM litestar_jobs.job WHERE job.id = step.id) IS NULL THEN 'cancelled' END) AS status
      FROM litestar_jobs.step
      LEFT JOIN LATERAL (
        SELECT status, result FROM litestar_jobs.finished WHERE finished.id = step.id OFFSET 0) AS job_end ON true
     WHERE step.id = ANY ($1::uuid[])
), changed AS MATERIALIZED (
    SELECT id, before, status, result, CASE WHEN status <> 'completed' THEN (
               SELECT left(f.error_type || COALESCE(': ' || NULLIF(f.message, ''), ''), 2000)
                 FROM litestar_jobs.failure f WHERE f.id = seen.id ORDER BY f.failed_at DESC LIMIT 1) END AS error
      FROM seen WHERE status IS NOT NULL AND status IS DISTINCT FROM before
), doomed (id) AS (
    SELECT after.id FROM changed CROSS JOIN LATERAL (
        SELECT downstream AS id FROM litestar_jobs.edge
         WHERE upstream = changed.id
           AND (SELECT run_when FROM litestar_jobs.step WHERE step.id = downstream) = 'completed'
           AND (SELECT reason FROM litestar_jobs.held WHERE held.id = downstream) = 'workflow' OFFSET 0) AS after
     WHERE changed.status <> 'completed'
    UNION
    SELECT after.id FROM doomed CROSS JOIN LATERAL (
        SELECT downstream AS id FROM litestar_jobs.edge
         WHERE upstream = doomed.id
           AND (SELECT run_when FROM litestar_jobs.step WHERE step.id = downstream) = 'completed'
           AND (SELECT reason FROM litestar_jobs.held WHERE held.id = downstream) = 'workflow' OFFSET 0) AS after
), cancelled AS (
    DELETE FROM litestar_jobs.held WHERE id = ANY (ARRAY(SELECT id FROM doomed)) AND reason = 'workflow'
    RETURNING id, attempts, queue
), over AS (
    INSERT INTO litestar_jobs.finished (id, status, attempts, finished_at)
    SELECT id, 'cancelled', attempts, statement_timestamp() FROM cancelled
), ended AS MATERIALIZED (
    SELECT id, before, status, result, error, NULL::uuid AS cause FROM changed
    UNION ALL
    SELECT doomed.id, NULL, 'cancelled', NULL,
           format('step ''%s'' %s', cause.name, CASE cause.status WHEN 'failed' THEN 'failed' ELSE 'was cancelled' END), cause.id
      FROM doomed CROSS JOIN LATERAL (
        SELECT upstream AS id, changed.status, (SELECT name FROM litestar_jobs.step WHERE step.id = upstream) AS name
          FROM litestar_jobs.edge LEFT JOIN changed ON changed.id = upstream
         WHERE downstream = doomed.id AND (changed.status <> 'completed' OR upstream IN (SELECT id FROM doomed))
         ORDER BY changed.id
         LIMIT 1) AS cause
), noted AS (
    UPDATE litestar_jobs.step
       SET status = ended.status, result = ended.result, error = ended.error, cancelled_for = ended.cause
      FROM ended
     WHERE step.id = ended.id AND step.id = ANY (ARRAY(SELECT id FROM ended))
    RETURNING step.id, step.job_type, step.workflow_id
)
SELECT noted.id, ended.status, ended.before IS NOT NULL AS had_ended, CASE WHEN ended.cause IS NOT NULL THEN ended.error END
       AS reason, noted.job_type, (SELECT queue FROM cancelled WHERE cancelled.id = noted.id) AS queue,
       (SELECT trace_id FROM litestar_jobs.workflow WHERE workflow.id = noted.workflow_id) AS trace_id
  FROM noted JOIN ended USING (id)
