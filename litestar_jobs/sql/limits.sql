-- Limits and rates with jobs: of each its numbers, how many passes count now, as in admit.sql, and how many jobs wait.
WITH waiting AS (
    SELECT reason, key, count(*) AS jobs, (array_agg(id ORDER BY priority, run_at, id))[1] AS first
      FROM litestar_jobs.held WHERE key IS NOT NULL GROUP BY reason, key
), known AS (
    SELECT reason, key, g.most, g.per, w.first, COALESCE(w.jobs, 0) AS waiting
      FROM litestar_jobs.gate g FULL JOIN waiting w USING (reason, key)
)
SELECT k.reason, k.key, k.waiting, COALESCE(k.most, CASE k.reason WHEN 'limit' THEN l.concurrency ELSE l.rate END) AS most,
       CASE k.reason WHEN 'rate' THEN COALESCE(k.per, l.per) END AS per,
       (SELECT count(*) FROM litestar_jobs.pass p
         WHERE p.reason = k.reason AND p.key = k.key AND CASE
               WHEN EXISTS (SELECT FROM litestar_jobs.ready WHERE ready.id = p.id) THEN true
               WHEN k.reason = 'limit' THEN EXISTS (SELECT FROM litestar_jobs.running WHERE running.id = p.id)
                 OR EXISTS (SELECT FROM litestar_jobs.held WHERE held.id = p.id AND held.reason = 'rate')
               ELSE COALESCE(p.started_at, (SELECT r.started_at FROM litestar_jobs.running r WHERE r.id = p.id),
                             (SELECT COALESCE(f.started_at, to_timestamp(0)) FROM litestar_jobs.finished f WHERE f.id = p.id),
                             statement_timestamp()) > statement_timestamp() - make_interval(secs => k.per) END) AS taken
  FROM known k LEFT JOIN litestar_jobs.limited l ON l.id = k.first
 ORDER BY k.reason, k.key
