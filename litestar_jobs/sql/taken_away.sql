-- Which of these attempts were taken away from the worker that ran them. $1 ids · $2 attempts, one of each.
-- Only a rescue notes a failed attempt without a traceback.
SELECT f.id FROM litestar_jobs.failure f
  JOIN unnest($1::uuid[], $2::int[]) AS asked(id, attempt) ON f.id = asked.id AND f.attempt = asked.attempt
 WHERE f.traceback IS NULL
