-- Which of these attempts may write no more, because their tokens have left running. $1 ids · $2 tokens, one of each.
-- Answers the tokens, and whether the job is cancelled. Asked by a worker of what it has not ended itself.
SELECT asked.token,
       COALESCE((SELECT status FROM litestar_jobs.finished WHERE finished.id = asked.id), '') = 'cancelled' AS cancelled
  FROM unnest($1::uuid[], $2::bigint[]) AS asked(id, token)
 WHERE (SELECT running.token FROM litestar_jobs.running WHERE running.id = asked.id) IS DISTINCT FROM asked.token
