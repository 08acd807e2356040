-- Delete the progress of attempts that have ended, whoever ran them. Rows that another deletes or writes are skipped.
DELETE FROM litestar_jobs.progress WHERE id = ANY (ARRAY(
    SELECT p.id FROM litestar_jobs.progress p
     WHERE NOT EXISTS (SELECT FROM litestar_jobs.running r WHERE r.id = p.id AND r.token = p.token)
       FOR UPDATE OF p SKIP LOCKED))
