-- The steps of a workflow, in their order, with the names of those that each comes after. $1 its id.
SELECT step.id, step.name, step.job_type, step.run_when, step.status AS noted, step.error,
       (SELECT reason = 'workflow' FROM litestar_jobs.held WHERE held.id = step.id) IS TRUE AS is_waiting,
       ARRAY(SELECT up.name
               FROM (SELECT upstream FROM litestar_jobs.edge WHERE downstream = step.id OFFSET 0) AS edges
              CROSS JOIN LATERAL (SELECT name, position FROM litestar_jobs.step AS s WHERE s.id = upstream OFFSET 0) AS up
              ORDER BY up.position) AS after
  FROM litestar_jobs.step
 WHERE step.workflow_id = $1::uuid
 ORDER BY step.position
