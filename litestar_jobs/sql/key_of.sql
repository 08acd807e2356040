-- The key that a job holds, if it does. $1 its id. Reads all keys: for people who look at one job.
SELECT k.key, k.until, k.kept_until
  FROM litestar_jobs.unique_key k
 WHERE k.id = $1::uuid
   AND (k.kept_until > statement_timestamp()
        OR NOT EXISTS (SELECT FROM litestar_jobs.finished f WHERE f.id = k.id)
           AND (k.until = 'finished' OR NOT EXISTS (SELECT FROM litestar_jobs.running r WHERE r.id = k.id)))
