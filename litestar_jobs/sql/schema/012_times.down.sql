DROP VIEW litestar_jobs.jobs;
CREATE VIEW litestar_jobs.jobs AS
SELECT state.id, state.queue, state.job_type, state.payload, state.status, state.attempts, state.max_retries,
       state.priority, state.run_at, state.started_at, state.locked_until, state.finished_at,
       (SELECT f.error_type || COALESCE(': ' || NULLIF(f.message, ''), '') FROM litestar_jobs.failure f
         WHERE f.id = state.id ORDER BY f.failed_at DESC LIMIT 1) AS last_error,
       state.trace_id, state.created_at, state.result, state.progress, state.progress_message
  FROM (SELECT job.id, s.queue, job.job_type, job.payload, 'pending'::text AS status, s.attempts, job.max_retries,
               s.priority, s.run_at, NULL::timestamptz AS started_at, NULL::timestamptz AS locked_until,
               NULL::timestamptz AS finished_at, job.trace_id, job.created_at, NULL::jsonb AS result,
               NULL::float8 AS progress, NULL::text AS progress_message
          FROM litestar_jobs.scheduled s JOIN litestar_jobs.job USING (id)
        UNION ALL
        SELECT job.id, r.queue, job.job_type, job.payload, 'pending', r.attempts, job.max_retries,
               r.priority, r.run_at, NULL, NULL, NULL, job.trace_id, job.created_at, NULL, NULL, NULL
          FROM litestar_jobs.ready r JOIN litestar_jobs.job USING (id)
        UNION ALL
        SELECT job.id, h.queue, job.job_type, job.payload, 'pending', h.attempts, job.max_retries,
               h.priority, h.run_at, NULL, NULL, NULL, job.trace_id, job.created_at, NULL, NULL, NULL
          FROM litestar_jobs.held h JOIN litestar_jobs.job USING (id)
        UNION ALL
        SELECT job.id, r.queue, job.job_type, job.payload, 'running', r.attempt, job.max_retries,
               job.priority, job.run_at, r.started_at, w.expires_at, NULL, job.trace_id, job.created_at,
               NULL, p.part, p.message
          FROM litestar_jobs.running r JOIN litestar_jobs.job USING (id)
               LEFT JOIN litestar_jobs.worker w ON w.id = r.worker_id
               LEFT JOIN litestar_jobs.progress p ON p.id = r.id AND p.token = r.token
        UNION ALL
        SELECT job.id, job.queue, job.job_type, job.payload, e.status, e.attempts, job.max_retries,
               job.priority, job.run_at, e.started_at, NULL, e.finished_at, job.trace_id, job.created_at,
               e.result, NULL, NULL
          FROM litestar_jobs.finished e JOIN litestar_jobs.job USING (id)) AS state;
COMMENT ON VIEW litestar_jobs.jobs IS 'Every job with its state, for reading.';
