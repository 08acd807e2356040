-- Make the tables plain again.
SELECT litestar_jobs.unpartition_tables()
