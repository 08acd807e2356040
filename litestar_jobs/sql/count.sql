-- How many jobs there are, by queue and status; of pending jobs also how many may run now, and for how long the
-- longest has been able to, in seconds. A scheduled job whose time has come is due even before it is promoted: without
-- a live worker nobody promotes it. So is one that waits at a gate, but it is not able to run. Others that are held may
-- not run, whatever their time.
SELECT queue, 'pending' AS status, count(*) AS jobs, count(*) FILTER (WHERE run_at <= statement_timestamp()) AS due,
       extract(epoch FROM statement_timestamp() - min(run_at) FILTER (WHERE run_at <= statement_timestamp()))::float8
       AS oldest
  FROM litestar_jobs.scheduled GROUP BY queue
UNION ALL
SELECT queue, 'pending', count(*), count(*), extract(epoch FROM statement_timestamp() - min(run_at))::float8
  FROM litestar_jobs.ready GROUP BY queue
UNION ALL
SELECT queue, 'pending', count(*), count(*) FILTER (WHERE key IS NOT NULL), NULL FROM litestar_jobs.held GROUP BY queue
UNION ALL
SELECT queue, 'running', count(*), 0, NULL FROM litestar_jobs.running GROUP BY queue
UNION ALL
SELECT job.queue, finished.status, count(*), 0, NULL
  FROM litestar_jobs.finished JOIN litestar_jobs.job USING (id) GROUP BY job.queue, finished.status
