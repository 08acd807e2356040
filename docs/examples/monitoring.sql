-- How long the oldest job of each queue has been due: the number to alert on.
-- Without a live worker, jobs stay in scheduled although their time has come.
SELECT queue, count(*) AS due, now() - min(run_at) AS oldest
  FROM (SELECT queue, run_at FROM litestar_jobs.ready
        UNION ALL
        SELECT queue, run_at FROM litestar_jobs.scheduled WHERE run_at <= now()) AS waiting
 GROUP BY queue;

-- What runs, where, and since when.
SELECT j.job_type, r.queue, r.attempt, now() - r.started_at AS running_for, w.hostname, w.pid
  FROM litestar_jobs.running r
  JOIN litestar_jobs.job j USING (id)
  LEFT JOIN litestar_jobs.worker w ON w.id = r.worker_id
 ORDER BY r.started_at;

-- What failed for good in the last hour, and why.
SELECT job_type, last_error, count(*)
  FROM litestar_jobs.jobs
 WHERE status = 'failed' AND finished_at > now() - interval '1 hour'
 GROUP BY job_type, last_error ORDER BY count(*) DESC;

-- Attempts that failed in the last hour, whether or not their jobs came through later.
SELECT error_type, count(*) FROM litestar_jobs.failure
 WHERE failed_at > now() - interval '1 hour' GROUP BY error_type;

-- Live processes.
SELECT hostname, pid, queues, now() - started_at AS up, expires_at > now() AS alive
  FROM litestar_jobs.worker;
