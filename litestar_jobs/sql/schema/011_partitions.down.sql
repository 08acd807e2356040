PERFORM litestar_jobs.unpartition_tables();
DROP FUNCTION litestar_jobs.partition_tables(interval), litestar_jobs.unpartition_tables(),
    litestar_jobs.replace_table(text, text, text), litestar_jobs.hindrances(), litestar_jobs.views_over(),
    litestar_jobs.drop_partition(text, float8, float8, float8), litestar_jobs.make_partition(),
    litestar_jobs.drop_unused_partitions(), litestar_jobs.add_partition(timestamptz, timestamptz),
    litestar_jobs.move_rows(text, text, uuid, uuid), litestar_jobs.table_like(text, text, text),
    litestar_jobs.columns_of(text), litestar_jobs.alone(boolean), litestar_jobs.lock_alone(), litestar_jobs.partitioned(), litestar_jobs.partitions(),
    litestar_jobs.id_time(uuid), litestar_jobs.first_id(timestamptz);
