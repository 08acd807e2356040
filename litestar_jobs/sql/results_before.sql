-- How the steps ended that a step comes after, in the order of the workflow. $1 the step.
SELECT up.id, up.name, up.job_type, up.status, up.result::text AS result, up.error
  FROM litestar_jobs.edge JOIN litestar_jobs.step AS up ON up.id = edge.upstream
 WHERE edge.downstream = $1::uuid
 ORDER BY up.position
