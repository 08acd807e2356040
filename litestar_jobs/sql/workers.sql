-- Live processes, oldest first.
SELECT id, hostname, pid, queues, started_at, expires_at
  FROM litestar_jobs.worker WHERE expires_at > statement_timestamp() ORDER BY started_at, id
