-- Hand over: what came before becomes the payload of steps that take it, which were let go a moment ago, in this
-- transaction. $1 ids of steps · $2 the largest payload that is made of how others ended, in bytes.
-- A step that takes a result has one before it. One that takes all gets them in the order of the workflow; if that would be
-- too large, a text says so, and its job fails when that does not decode.
-- What was asked for is written once: its row is not updated, which a worker need not be allowed to, but written anew.
-- NULL is what waits there already.
WITH handed AS MATERIALIZED (
    SELECT step.id, CASE step.takes WHEN 'result' THEN before.result ELSE before.all_of_them END AS payload
      FROM litestar_jobs.step CROSS JOIN LATERAL (
        SELECT (array_agg(up.result))[1] AS result,
               CASE WHEN step.takes <> 'all' THEN NULL
                    WHEN sum(octet_length(up.result::text)) > $2::int THEN to_jsonb(format(
                        'the results before this step have %s bytes together, and at most %s are handed over',
                        sum(octet_length(up.result::text)), $2::int))
                    ELSE jsonb_agg(jsonb_build_object('id', up.id, 'name', up.name, 'job_type', up.job_type,
                                                      'status', up.status, 'result', up.result, 'error', up.error)
                                   ORDER BY up.position) END AS all_of_them
          FROM (SELECT upstream FROM litestar_jobs.edge WHERE downstream = step.id OFFSET 0) AS edges
         CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.step AS s WHERE s.id = upstream OFFSET 0) AS up) AS before
     WHERE step.id = ANY ($1::uuid[])
), gone AS (
    DELETE FROM litestar_jobs.job
     WHERE id = ANY (ARRAY(SELECT id FROM handed WHERE jsonb_typeof(payload) <> 'null'))
    RETURNING job AS asked
)
INSERT INTO litestar_jobs.job
SELECT anew.*
  FROM gone JOIN handed ON handed.id = (gone.asked).id
 CROSS JOIN LATERAL jsonb_populate_record(gone.asked, jsonb_build_object('payload', handed.payload)) AS anew
