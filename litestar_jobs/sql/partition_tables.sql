-- Partition the tables, or give the partitions that follow another width. $1 the width in seconds.
SELECT litestar_jobs.partition_tables(make_interval(secs => $1::float8))
