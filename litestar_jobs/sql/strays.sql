-- Jobs that are in no state table or in more than one, and states without a job: always none.
SELECT id, array_agg(place) FILTER (WHERE place <> 'job') AS places
  FROM (SELECT id, 'job' AS place FROM litestar_jobs.job
        UNION ALL SELECT id, 'scheduled' FROM litestar_jobs.scheduled
        UNION ALL SELECT id, 'ready' FROM litestar_jobs.ready
        UNION ALL SELECT id, 'held' FROM litestar_jobs.held
        UNION ALL SELECT id, 'running' FROM litestar_jobs.running
        UNION ALL SELECT id, 'finished' FROM litestar_jobs.finished) AS everywhere
 GROUP BY id
HAVING count(*) <> 2 OR count(*) FILTER (WHERE place = 'job') <> 1
