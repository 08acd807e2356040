-- Let steps go that wait for nothing any more, now that these have ended. Their workflows are locked.
-- $1 ids of steps whose end was noted a moment ago · $2 how each ended · $3 whether each had ended before, otherwise
-- $4 channel to notify.
-- One with a limit or a rate waits at its first gate; limits in time begin to count. A step that was cancelled because of
-- another may run too, when that one was retried and has completed.
-- Answers those that may run, in how many seconds, and what becomes their payload.
WITH ended AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bool[]) AS e(id, status, had_ended)
), fewer AS MATERIALIZED (
    SELECT after.id, count(*) AS less
      FROM ended CROSS JOIN LATERAL (
        SELECT downstream AS id, (SELECT run_when FROM litestar_jobs.step WHERE step.id = downstream) AS run_when
          FROM litestar_jobs.edge WHERE upstream = ended.id OFFSET 0) AS after
     WHERE CASE after.run_when WHEN 'ended' THEN NOT ended.had_ended ELSE ended.status = 'completed' END
     GROUP BY after.id
), counted AS (
    UPDATE litestar_jobs.step
       SET waits_for = waits_for - less, cancelled_for = CASE WHEN waits_for > less THEN cancelled_for END
      FROM fewer
     WHERE step.id = fewer.id AND step.id = ANY (ARRAY(SELECT id FROM fewer))
    RETURNING step.id, step.waits_for
), freed AS (
    DELETE FROM litestar_jobs.held WHERE id = ANY (ARRAY(SELECT id FROM counted WHERE waits_for = 0)) AND reason = 'workflow'
    RETURNING id, queue, priority, run_at, attempts
), revived AS (
    DELETE FROM litestar_jobs.finished
     WHERE id = ANY (ARRAY(SELECT id FROM litestar_jobs.finished
                            WHERE status = 'cancelled' AND id = ANY (ARRAY(
                                SELECT counted.id FROM counted
                                 WHERE waits_for = 0 AND (SELECT cancelled_for FROM litestar_jobs.step
                                                           WHERE step.id = counted.id) IS NOT NULL))
                              FOR UPDATE SKIP LOCKED))
    RETURNING id, attempts
), moved AS (
    SELECT id, queue, priority, run_at, attempts FROM freed
    UNION ALL
    SELECT revived.id, job.queue, job.priority, job.run_at, revived.attempts
      FROM revived CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.job WHERE job.id = revived.id OFFSET 0) AS job
), going AS MATERIALIZED (
    SELECT moved.id, queue, priority, attempts, step.takes, step.expires_in, step.deadline, limited.reason,
           limited.key, GREATEST(run_at, statement_timestamp() + make_interval(secs => step.delay)) AS run_at
      FROM moved CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.step WHERE step.id = moved.id OFFSET 0) AS step
      LEFT JOIN LATERAL (SELECT reason, key FROM litestar_jobs.limited WHERE limited.id = moved.id OFFSET 0) AS limited ON true
), timed AS (
    UPDATE litestar_jobs.job
       SET expires_at = going.run_at + make_interval(secs => expires_in),
           deadline_at = statement_timestamp() + make_interval(secs => deadline)
      FROM going
     WHERE job.id = going.id
       AND job.id = ANY (ARRAY(SELECT id FROM going WHERE expires_in IS NOT NULL OR deadline IS NOT NULL))
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, run_at, attempts, reason, key FROM going
     WHERE run_at <= statement_timestamp() AND key IS NOT NULL
), later AS (
    INSERT INTO litestar_jobs.scheduled (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM going WHERE run_at > statement_timestamp()
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM going WHERE run_at <= statement_timestamp() AND key IS NULL
), told AS MATERIALIZED (
    SELECT pg_notify($4::text, message)
      FROM (SELECT DISTINCT COALESCE(reason || ':' || key, 'ready:' || queue) AS message FROM going
             WHERE run_at <= statement_timestamp()
            UNION ALL
            SELECT 'due:' || extract(epoch FROM min(run_at) - statement_timestamp())
              FROM going WHERE run_at > statement_timestamp() HAVING min(run_at) IS NOT NULL) AS news
)
SELECT id, queue, extract(epoch FROM run_at - statement_timestamp())::float8 AS delay, takes,
       (SELECT count(*) FROM told) AS told
  FROM going
