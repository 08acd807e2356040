-- Pending jobs of other types than these, by type. $1 the known types.
SELECT job_type, count(*) AS jobs
  FROM (SELECT id FROM litestar_jobs.ready UNION ALL SELECT id FROM litestar_jobs.scheduled
        UNION ALL SELECT id FROM litestar_jobs.held) AS pending
  JOIN litestar_jobs.job USING (id)
 WHERE job_type <> ALL ($1::text[])
 GROUP BY job_type
 ORDER BY job_type
