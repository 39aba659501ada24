select 1 as id, '{{ ref('awake') }}' as above from pg_sleep(3600)
