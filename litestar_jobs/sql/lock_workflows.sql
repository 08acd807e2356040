-- Lock the workflows that these jobs are steps of: only one leads on from them at a time, and what the statements after
-- this one in its transaction see of them stays so. $1 ids of jobs, steps or not.
-- In the order of their ids, so that no two wait for each other. Answers the workflows.
SELECT id FROM litestar_jobs.workflow
 WHERE id = ANY (ARRAY(SELECT workflow_id FROM litestar_jobs.step WHERE step.id = ANY ($1::uuid[])))
 ORDER BY id
   FOR UPDATE
