-- Make a partition ahead, if one is due. Answers until when there are partitions then, or NULL. Many may run at once.
SELECT litestar_jobs.make_partition() AS reaches
