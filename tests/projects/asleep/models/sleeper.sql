select 1 as id, '{{ ref('awake') }}' as above from pg_sleep({{ env_var('ASLEEP_SECONDS', '3600') }})
