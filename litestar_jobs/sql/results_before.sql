-- How the steps ended that a step comes after, in the order of the workflow. $1 the step.
SELECT up.id, up.name, up.job_type, up.status, up.result::text AS result, up.error
  FROM (SELECT upstream FROM litestar_jobs.edge WHERE downstream = $1::uuid OFFSET 0) AS edges
 CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.step WHERE step.id = upstream OFFSET 0) AS up
 ORDER BY up.position
